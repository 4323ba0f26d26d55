"""llem log: look into segments, check them, recover what is readable, and name them by a digest."""

import json as encoder
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from llem.cli import console
from llem.cli.options import JsonOption, RunArgument, StoreOption
from llem.cli.segment_report import describe_damage, info_lines, recovery_line, recovery_report, survey_report
from llem.store import LAST, SEGMENT_SUFFIX, Store
from llem_events import LogError, SegmentReader, Survey, Verdict, recover, root_digest, segment_digest, survey
from llem_events.following import follow, numbered_events
from llem_events.readable import row
from llem_events.recovery import DEFAULT_LIMIT_BYTES

EXIT_FAILED, EXIT_UNREADABLE, EXIT_DAMAGED = 1, 2, 3

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="Look into segments: info, cat, verify, recover, digest.",
)
TARGET = "PATH|RUN"
TargetsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar=TARGET, help="Segment files, folders or runs; all runs by default."),
]
TargetArgument = Annotated[str, typer.Argument(metavar=TARGET, help="A segment file, a folder, or a run.")]


@app.command()
def verify(targets: TargetsArgument = None, json: JsonOption = False, store: StoreOption = None) -> None:
    """Check every byte: clean, unclosed and torn are fine (status 0), corrupt is not (status 3)."""
    status = 0
    for path in _paths(targets or [], store):
        try:
            found = survey(path)
        except LogError as error:
            status = max(status, EXIT_UNREADABLE)
            _say(
                f"unreadable  {path}: {error}",
                {"path": str(path), "verdict": None, "error": str(error)},
                as_json=json,
            )
            continue
        if found.verdict is Verdict.CORRUPT or found.misfits:
            status = EXIT_DAMAGED
        _say("\n".join(_verdict_lines(found)), survey_report(found), as_json=json)
    raise typer.Exit(status)


def _verdict_lines(found: Survey) -> Iterator[str]:
    at_work = ", its writer is at work" if found.is_being_written else ""
    yield f"{found.verdict:<9} {found.path}: {found.blocks} blocks, {found.events} events{at_work}"
    for damage in found.damages:
        yield "          " + describe_damage(damage)
    for text in found.misfit_texts:
        yield "          " + text
    if found.misfits > len(found.misfit_texts):
        yield f"          and {found.misfits - len(found.misfit_texts)} more events that do not fit their type"


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
        raise typer.Exit(EXIT_FAILED) from error
    lines = [
        recovery_line(recovery),
        *("  cut: " + describe_damage(each) for each in recovery.original.damages),
    ]
    _say("\n".join(lines), recovery_report(recovery), as_json=json)
    console.note("in the folder of its run, the new segment is taken in the place of the original")
    raise typer.Exit(EXIT_DAMAGED if recovery.original.verdict is Verdict.CORRUPT else 0)


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
    events = (
        follow(lambda: _paths([target], store))
        if follow_on
        else _events(_paths([target], store), salvage=salvage)
    )
    for path, number, envelope in events:
        if event_type in (None, envelope.type):
            _say_event(path, row(envelope, number), as_json=json)
            if follow_on:
                sys.stdout.flush()


def _events(paths: Iterable[Path], *, salvage: bool) -> Iterator[tuple[Path, int, Any]]:
    for path in paths:
        with SegmentReader(path, salvage_damage=salvage) as reader:
            for number, envelope in numbered_events(reader):
                yield path, number, envelope
            for damage in reader.damages:
                console.note(f"{path}: {reader.verdict}: {describe_damage(damage)}")


def _say_event(path: Path, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.say(_dump({"segment": path.name, **found}))
        return
    problem = f"  ({found['problem']})" if "problem" in found else ""
    at_s = found["at_ns"] / 1e9
    console.say(f"{found['number']:>6} {at_s:>16.6f} s  {found['type']} {_dump(found['body'])}{problem}")


@app.command()
def info(target: TargetArgument, json: JsonOption = False, store: StoreOption = None) -> None:
    """Header, verdict, counts of each event type, sizes."""
    for path in _paths([target], store):
        found = survey(path)
        _say("\n".join(info_lines(found)), survey_report(found), as_json=json)


@app.command()
def digest(
    run: RunArgument = LAST,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """The root digest of a run, to publish beside its result; any later change of any segment changes it."""
    place = Store.locate(store)
    experiment_id = place.resolve(run)
    segments = [segment_digest(path) for path in place.segments(experiment_id)]
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


def _paths(targets: Iterable[str], store: Path | None) -> list[Path]:
    """Segment files of the targets; of all runs where there are none."""
    place = Store.locate(store)
    found: list[Path] = []
    for target in targets or place.require().experiment_ids():
        path = Path(target)
        if targets and path.is_dir():
            found += sorted(path.rglob(f"*{SEGMENT_SUFFIX}"))
        elif targets and (os.path.lexists(path) or os.sep in target or target.endswith(SEGMENT_SUFFIX)):
            found.append(path)
        else:
            found += place.segments(place.resolve(target))
    return found


def _say(text: str, report: dict[str, Any], *, as_json: bool) -> None:
    console.say(_dump(report) if as_json else text)


def _dump(report: Any) -> str:
    return encoder.dumps(report, ensure_ascii=False, separators=(", ", ": "))
