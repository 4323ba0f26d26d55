"""What was found in a segment, and what was recovered of it: in lines for people, and as JSON."""

from collections.abc import Iterator
from typing import Any

import msgspec

from llem.cli.console import counted
from llem.store import LOG_FOLDER
from llem_events import Damage, Recovery, Survey, Verdict
from llem_events.inspection import plain


def describe_damage(damage: Damage) -> str:
    """The byte range, what is wrong, and which blocks and events are missing."""
    blocks, events = damage.missing_blocks, damage.missing_events
    if damage.next_block is None or damage.next_event is None:
        missing = f"from block {damage.first_block} and event {damage.first_event} on"
    elif blocks:
        missing = f"{counted(blocks, 'block')} from {damage.first_block}, {counted(events, 'event')} from {damage.first_event}"
    else:
        missing = "nothing"
    return f"bytes {damage.offset} to {damage.end}: {damage.text}; missing: {missing}"


def stated_verdict(survey: Survey) -> str:
    """The verdict on the bytes, unless they verify and what they say is newer, in another's folder, or does not fit its type."""
    if survey.verdict is Verdict.CORRUPT:
        return "corrupt"
    if survey.newer is not None:
        return "newer"
    if _misplaced(survey) is not None:
        return "misplaced"
    return "misfit" if survey.misfits else str(survey.verdict)


def _misplaced(survey: Survey) -> str | None:
    """Why a segment stands in the wrong folder of a log; None where it does not, or stands in no log."""
    folder = survey.path.absolute().parent
    if (
        survey.header is None
        or folder.parent.name != LOG_FOLDER
        or survey.header.experiment_id == folder.name
    ):
        return None
    return f"its header names experiment {survey.header.experiment_id!r}, its folder is {folder.name!r}"


def verdict_lines(survey: Survey) -> Iterator[str]:
    """A line with the verdict and the counts, and one for each thing that is wrong."""
    at_work = ", its writer is at work" if survey.is_being_written else ""
    counts = f"{counted(survey.blocks, 'block')}, {counted(survey.events, 'event')}"
    yield f"{stated_verdict(survey):<10} {survey.path}: {counts}{at_work}"
    for text in _complaints(survey):
        yield f"{'':<10} {text}"


def _complaints(survey: Survey) -> Iterator[str]:
    yield from filter(None, (survey.newer, _misplaced(survey), _skipped(survey)))
    yield from map(describe_damage, survey.damages)
    yield from survey.misfit_texts
    if survey.misfits > len(survey.misfit_texts):
        yield f"and {survey.misfits - len(survey.misfit_texts)} more events that do not fit their type"


def _skipped(survey: Survey) -> str | None:
    """What a recovered segment says of the one that it was recovered from."""
    if survey.header is None or not survey.header.skipped_bytes:
        return None
    header = survey.header
    return (
        f"recovered: {counted(header.skipped_bytes, 'byte')}, {counted(header.skipped_blocks, 'block')} "
        f"and {counted(header.skipped_events, 'event')} "
        "of the original are not in it"
    )


def survey_report(survey: Survey) -> dict[str, Any]:
    """Everything that a survey has found."""
    header = None if survey.header is None else plain(msgspec.structs.asdict(survey.header))
    return {
        "path": str(survey.path),
        "verdict": stated_verdict(survey),
        "newer": survey.newer,
        "misplaced": _misplaced(survey),
        "sealed": survey.seal is not None,
        "being_written": survey.is_being_written,
        "header": header,
        "blocks": survey.blocks,
        "events": survey.events,
        "events_by_type": {
            f"{name} {version}": n for (name, version), n in sorted(survey.events_by_type.items())
        },
        "unknown_events": survey.unknown_events,
        "misfits": survey.misfits,
        "misfit_texts": list(survey.misfit_texts),
        "file_bytes": survey.file_bytes,
        "raw_bytes": survey.raw_bytes,
        "compressed_bytes": survey.compressed_bytes,
        "ratio": _ratio(survey),
        "damages": [_damage_report(damage) for damage in survey.damages],
    }


def _damage_report(damage: Damage) -> dict[str, Any]:
    """One damage; `next_block` and `next_event` are None where nothing readable follows."""
    return {name: getattr(damage, name) for name in damage.__slots__}


def info_lines(survey: Survey) -> Iterator[str]:
    """A survey for people."""
    yield f"{survey.path}: {stated_verdict(survey)}"
    for name, text in _stated_fields(survey):
        yield f"  {name:<16} {text['hex'] if isinstance(text, dict) else text}"
    ratio = _ratio(survey)
    yield f"  {'blocks':<16} {survey.blocks}"
    yield f"  {'events':<16} {survey.events}, {survey.unknown_events} of unknown types"
    for (name, version), count in sorted(survey.events_by_type.items()):
        yield f"    {count:>8}  {name}, version {version}"
    yield f"  {'file':<16} {survey.file_bytes} bytes"
    yield f"  {'payload':<16} {survey.raw_bytes} bytes raw, {survey.compressed_bytes} compressed" + (
        "" if ratio is None else f", {ratio:.1f} to 1"
    )
    for text in _complaints(survey):
        yield "  " + text


def _stated_fields(survey: Survey) -> Iterator[tuple[str, Any]]:
    """The fields of the header that say something."""
    if survey.header is None:
        return
    for stated in msgspec.structs.fields(survey.header):
        content = getattr(survey.header, stated.name)
        if content is not None and content != stated.default:
            yield stated.name, plain(content)


def _ratio(survey: Survey) -> float | None:
    return survey.raw_bytes / survey.compressed_bytes if survey.compressed_bytes else None


def recovery_line(recovery: Recovery) -> str:
    """What was kept, in a line."""
    return (
        f"{recovery.target}: {counted(recovery.kept.blocks, 'block')} and {counted(recovery.kept.events, 'event')} kept, "
        f"{counted(recovery.original.lost_bytes, 'byte')} lost; {recovery.original.path} is as it was"
    )


def recovery_report(recovery: Recovery) -> dict[str, Any]:
    """What was kept and what was cut."""
    return {
        "original": str(recovery.original.path),
        "original_verdict": str(recovery.original.verdict),
        "recovered": str(recovery.target),
        "segment_id": recovery.segment_id.hex(),
        "blocks": recovery.kept.blocks,
        "events": recovery.kept.events,
        "lost_bytes": recovery.original.lost_bytes,
        "cut": [_damage_report(damage) for damage in recovery.original.damages],
    }
