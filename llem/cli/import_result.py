"""llem import."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.options import StoreOption
from llem.cli.progress import Work, WorkLine
from llem.errors import LlemError
from llem.importers.asked import Asked
from llem.importers.beside_result import is_study
from llem.importing import File, files_in, understand
from llem.importing import import_result as import_file
from llem.registry import IMPORTERS, one_of
from llem.seal.bundle import is_bundle, take_bundle, verified
from llem.store import Store
from llem_events import LogError


def import_result(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Files of other programs, folders of LLenergyMeasure's results and studies, or bundles of `llem export --bundle`; see docs/importing.md.",
        ),
    ],
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help=f"{one_of(*IMPORTERS)}; by the content unless named.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what each file becomes and why a figure will be NULL; import nothing."
        ),
    ] = False,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="START,END",
            help="The measurement within a log of samples: seconds from its first, or times. All of it unless named.",
            show_default=False,
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            metavar="ZONE",
            help="Of times without one, such as Europe/Berlin; this host's unless named, UTC for LLenergyMeasure.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it began, of a file that has no times.", show_default=False),
    ] = None,
    interval_s: Annotated[
        float | None,
        typer.Option(
            "--interval", metavar="SECONDS", help="Between two samples without times.", show_default=False
        ),
    ] = None,
    keep_bytes: Annotated[
        bool, typer.Option("--keep-bytes", help="Keep each file byte for byte, secrets in it included.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Take files of other programs into the store.

    Each of their runs becomes an experiment that is marked as imported. A file that is refused leaves nothing behind, and the others are taken: status 1; 2 where none was.
    """
    if file_format is not None and file_format not in IMPORTERS:
        raise LlemError("--format", found=repr(file_format), expected=f"one of {', '.join(IMPORTERS)}")
    asked = Asked(window=window, timezone=timezone, start=start, interval_s=interval_s)
    place = Store.locate(store)
    refused = 0
    line = WorkLine()
    paths = [file for path in paths for file in _files(path)]
    for number, path in enumerate(paths):
        # On a terminal the ids themselves say how far it is.
        if not sys.stdout.isatty():
            line.update(Work("importing", number, len(paths), "files"))
        try:
            if is_bundle(path):
                refused += not _take_bundle(path, place, dry_run=dry_run)
                continue
            if dry_run:
                understood = understand(path, keep_bytes=keep_bytes, file_format=file_format, asked=asked)
                console.say("\n".join(_mapping(understood)))
                continue
            taken = import_file(path, place, keep_bytes=keep_bytes, file_format=file_format, asked=asked)
            console.say("\n".join(taken.experiment_ids))
        except (LlemError, LogError) as error:
            line.erase()
            console.complain(str(error))
            refused += 1
    line.erase()
    if refused:
        raise typer.Exit(console.FAILED if refused < len(paths) else console.WRONG)


def _files(path: Path) -> list[Path]:
    """A bundle as it is, the results of any other folder."""
    return files_in(path) if is_study(path) or not is_bundle(path) else [path]


def _mapping(file: File) -> Iterator[str]:
    """What each run of a file becomes."""
    for run, experiment_id in zip(file.runs, file.ids, strict=True):
        yield f"{file.path}: {file.format}, would be {experiment_id}"
        for column, source, reason in run.mapping:
            yield f"  {column} " + (f"NULL: {reason}" if source is None else f"from {source}")
        yield from (f"  note: {note}" for note in run.notes)


def _take_bundle(folder: Path, store: Store, *, dry_run: bool) -> bool:
    """All its runs, whose ids are printed; returns whether all are there now. Raises LlemError."""
    if dry_run:
        manifest = verified(folder)
        console.say(f"{folder}: a bundle by llem {manifest.llem_version}, every file as it was written")
        for experiment_id in manifest.root_digests:
            console.say(f"  {experiment_id}")
        return True
    manifest, collected = take_bundle(folder, store)
    for left in collected.left:
        console.complain(str(left))
    taken = [run for run in manifest.root_digests if store.segments(run)]
    console.say("\n".join(taken))
    return not collected.left
