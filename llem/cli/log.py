"""llem log: look into segments, check them, recover what is readable, and name them by a digest."""

import json as encoder
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from llem.cli import console
from llem.cli.options import JsonOption, RunArgument, StoreOption
from llem.cli.surveys import (
    describe_damage,
    info_lines,
    recovery_line,
    recovery_report,
    stated_verdict,
    survey_report,
    verdict_lines,
)
from llem.errors import StoreError
from llem.store import LAST, SEGMENT_SUFFIX, Store, mend_access
from llem_events import (
    LogError,
    NewerFormatError,
    SegmentReader,
    Verdict,
    recover,
    redact,
    root_digest,
    segment_digest,
    survey,
)
from llem_events.following import follow, numbered_events
from llem_events.inspection import readable_row
from llem_events.recovery import DEFAULT_LIMIT_BYTES

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="Look into segments: info, cat, verify, recover, redact, digest.",
)
TARGET = "PATH|RUN"
TargetsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar=f"{TARGET}...", help="Segment files, folders or runs; all runs by default."),
]
TargetArgument = Annotated[str, typer.Argument(metavar=TARGET, help="A segment file, a folder, or a run.")]


@app.command()
def verify(targets: TargetsArgument = None, json: JsonOption = False, store: StoreOption = None) -> None:
    """Check every byte: clean, unclosed and torn are fine (status 0); newer or unreadable has status 2, damaged 3."""
    place = Store.locate(store)
    files = segment_files(targets or [], place)
    status = console.DONE
    for problem in files.refused:
        status = console.WRONG
        _say(f"unreadable {problem}", {"path": None, "verdict": None, "error": str(problem)}, as_json=json)
    for path in files.paths:
        status = max(status, _verify(path, as_json=json))
    _note_strange_folders(place, asked_for_all=not targets)
    raise typer.Exit(status)


def _verify(path: Path, *, as_json: bool) -> int:
    """Say what one file is; returns its status."""
    try:
        surveyed = survey(path)
    except LogError as error:
        verdict = "newer" if isinstance(error, NewerFormatError) else None
        hint = f"; try `{mend_access(path)}`" if is_denied(path) else ""
        report = {"path": str(path), "verdict": verdict, "error": f"{error}{hint}"}
        _say(f"{verdict or 'unreadable':<10} {path}: {error}{hint}", report, as_json=as_json)
        return console.WRONG
    _say("\n".join(verdict_lines(surveyed)), survey_report(surveyed), as_json=as_json)
    return {
        "corrupt": console.DAMAGED,
        "misplaced": console.DAMAGED,
        "misfit": console.DAMAGED,
        "newer": console.WRONG,
    }.get(stated_verdict(surveyed), console.DONE)


def _note_strange_folders(store: Store, *, asked_for_all: bool) -> None:
    for name in store.strange_folders() if asked_for_all else ():
        console.note(f"llem: {store.log_path / name}: left out, its name is no id of an experiment")


@app.command("recover")
def recover_segment(
    segment: Annotated[
        Path, typer.Argument(metavar="SEGMENT", help="The damaged file; it is left as it is.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="NEW", help="The new segment.")],
    limit: Annotated[
        int, typer.Option(min=0, help="Refuse to lose more bytes than this.")
    ] = DEFAULT_LIMIT_BYTES,
    force: Annotated[bool, typer.Option("--force", help="Recover whatever is lost.")] = False,
    json: JsonOption = False,
) -> None:
    """Copy all that verifies to a new segment: status 0 without loss, 3 with, 1 where it failed."""
    try:
        recovery = recover(segment, output, limit_bytes=None if force else limit)
    except LogError as error:
        console.complain(str(error))
        raise typer.Exit(console.FAILED) from error
    lines = [
        recovery_line(recovery),
        *("  cut: " + describe_damage(damage) for damage in recovery.original.damages),
    ]
    _say("\n".join(lines), recovery_report(recovery), as_json=json)
    console.note("in the folder of its run, the new segment is taken in the place of the original")
    raise typer.Exit(console.DAMAGED if recovery.original.verdict is Verdict.CORRUPT else console.DONE)


@app.command("redact")
def redact_segment(
    segment: Annotated[Path, typer.Argument(metavar="SEGMENT", help="The file; it is left as it is.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="NEW", help="The new segment.")],
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="T", help="A text to take out; may be given again.")
    ] = None,
    text_file: Annotated[
        list[Path] | None,
        typer.Option("--text-file", metavar="FILE", help="The same, out of a file: no shell remembers it."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Copy a segment without a text, such as a secret, and name the old one's digest in it."""
    texts = [*(text or []), *map(_read_text, text_file or [])]
    redaction = redact(segment, output, texts=texts)
    line = (
        f"{redaction.target}: {redaction.changed_events} of {redaction.kept.events} events changed; "
        f"{segment} still holds the text"
    )
    report = {
        "original": str(redaction.original),
        "original_digest": redaction.original_digest.hex(),
        "redacted": str(redaction.target),
        "blocks": redaction.kept.blocks,
        "events": redaction.kept.events,
        "changed_events": redaction.changed_events,
    }
    _say(line, report, as_json=json)
    console.note(
        f"in the folder of its run, the new segment is taken in the place of the original; to be rid of the text, remove "
        f"{segment}, then `llem rebuild`"
    )


def _read_text(path: Path) -> str:
    """The text in a file, without the line's end. Raises StoreError."""
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "bytes that are not UTF-8"
        raise StoreError(f"--text-file {path} cannot be read", found=found) from error


@app.command()
def cat(
    target: TargetArgument,
    json: JsonOption = False,
    event_type: Annotated[
        str | None, typer.Option("--type", metavar="T", help="Only events of this type.")
    ] = None,
    follow_on: Annotated[bool, typer.Option("--follow", help="Go on until the writers end.")] = False,
    salvage: Annotated[bool, typer.Option("--salvage", help="Skip what is damaged.")] = False,
    store: StoreOption = None,
) -> None:
    """Print events, one a line; samples as columns of values, byte strings as hex."""
    place = Store.locate(store)
    events = (
        follow(lambda: _readable([target], place))
        if follow_on
        else _events(_readable([target], place), salvage=salvage)
    )
    seen = set()
    for path, number, envelope in events:
        seen.add(envelope.type)
        if event_type in (None, envelope.type):
            _say_event(path, readable_row(envelope, number), as_json=json)
            if follow_on:
                sys.stdout.flush()
    if event_type is not None and event_type not in seen:
        console.note(f"llem: no event is of type {event_type}; there are {', '.join(sorted(seen)) or 'none'}")


def _events(paths: Iterable[Path], *, salvage: bool) -> Iterator[tuple[Path, int, Any]]:
    for path in paths:
        with SegmentReader(path, salvage_damage=salvage) as reader:
            for number, envelope in numbered_events(reader):
                yield path, number, envelope
            for damage in reader.damages:
                console.note(f"{path}: {reader.verdict}: {describe_damage(damage)}")


def _say_event(path: Path, event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.say(_dump({"segment": path.name, **event}))
        return
    problem = f"  ({event['problem']})" if "problem" in event else ""
    at_s = event["at_ns"] / 1e9
    console.say(f"{event['number']:>6} {at_s:>16.6f} s  {event['type']} {_dump(event['body'])}{problem}")


@app.command()
def info(target: TargetArgument, json: JsonOption = False, store: StoreOption = None) -> None:
    """Header, verdict, counts of each event type, sizes; status 2 where a part is newer than this llem."""
    status = console.DONE
    for path in _readable([target], Store.locate(store)):
        surveyed = survey(path)
        status = max(status, console.WRONG if surveyed.newer else console.DONE)
        _say("\n".join(info_lines(surveyed)), survey_report(surveyed), as_json=json)
    raise typer.Exit(status)


@app.command()
def digest(
    run: RunArgument = LAST,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The root digest of a run, to publish beside its result; any later change of any segment changes it."""
    place = Store.locate(store)
    experiment_id = place.resolve(run)
    paths = _readable([experiment_id], place)
    if not paths:
        raise StoreError(f"experiment {experiment_id}", found="no segment", expected="something to digest")
    segments = [segment_digest(path) for path in paths]
    root = root_digest(segments).hex()
    for segment in segments:
        if not segment.is_sealed:
            console.note(f"{segment.path.name} has no seal: what follows later changes the digest")
    report = {
        "experiment_id": experiment_id,
        "root_digest": root,
        "segments": [
            {
                "file": segment.path.name,
                "segment_id": segment.segment_id.hex(),
                "blocks": segment.blocks,
                "events": segment.events,
                "sealed": segment.is_sealed,
                "last_digest": segment.last_digest.hex(),
            }
            for segment in segments
        ],
    }
    _say(f"{root}  {experiment_id}", report, as_json=json)


def _readable(targets: Iterable[str], store: Store) -> list[Path]:
    """Segment files of the targets. Raises StoreError where one cannot be listed."""
    files = segment_files(targets, store)
    if files.refused:
        raise files.refused[0]
    return files.paths


def _say(text: str, report: dict[str, Any], *, as_json: bool) -> None:
    console.say(_dump(report) if as_json else text)


def _dump(report: Any) -> str:
    return encoder.dumps(report, ensure_ascii=False, separators=(", ", ": "))


@dataclass(frozen=True)
class SegmentFiles:
    """Files in the order of the targets, and one error for each folder that could not be looked into."""

    paths: list[Path] = field(default_factory=list)
    refused: list[StoreError] = field(default_factory=list)


def segment_files(targets: Iterable[str], store: Store) -> SegmentFiles:
    """Segment files of the targets; of all runs where there are none. Raises StoreError for a run that is not there."""
    files = SegmentFiles()
    named = list(targets)
    for experiment_id in () if named else store.require().experiment_ids():
        _add_run(files, store, experiment_id)
    for target in named:
        path = Path(target)
        if path.is_dir():
            _add_folder(files, path)
        elif os.path.lexists(path) or os.sep in target or target.endswith(SEGMENT_SUFFIX):
            files.paths.append(path)
        else:
            _add_run(files, store, store.resolve(target))
    return files


def _add_run(files: SegmentFiles, store: Store, experiment_id: str) -> None:
    if (problem := store.unreadable(experiment_id)) is not None:
        files.refused.append(problem)
    files.paths.extend(store.segments(experiment_id))


def _add_folder(files: SegmentFiles, folder: Path) -> None:
    def refuse(error: OSError) -> None:
        hint = mend_access(Path(error.filename)) if isinstance(error, PermissionError) else None
        files.refused.append(
            StoreError(f"folder {error.filename} cannot be read", found=error.strerror, hint=hint)
        )

    names = (
        Path(inner) / name for inner, _, names in os.walk(folder, onerror=refuse) for name in sorted(names)
    )
    files.paths.extend(sorted(path for path in names if path.name.endswith(SEGMENT_SUFFIX)))


def is_denied(path: Path) -> bool:
    """Whether the file is there and belongs to somebody who does not let this user read it."""
    return os.path.exists(path) and not os.access(path, os.R_OK)  # noqa: PTH110 -- a Path raises in a folder of another user
