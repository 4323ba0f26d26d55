"""What `llem log` says of a segment, in words and as JSON."""

from collections.abc import Iterator
from typing import Any

import msgspec

from llem.store import LOG_FOLDER
from llem_events import Damage, Recovery, Survey, Verdict
from llem_events.readable import plain


def describe_damage(damage: Damage) -> str:
    """The byte range, what is wrong, and which blocks and events are missing."""
    blocks, events = damage.missing_blocks, damage.missing_events
    if damage.next_block is None or damage.next_event is None:
        missing = f"from block {damage.first_block} and event {damage.first_event} on"
    elif blocks:
        missing = f"{blocks} blocks from {damage.first_block}, {events} events from {damage.first_event}"
    else:
        missing = "nothing"
    return f"bytes {damage.offset} to {damage.end}: {damage.text}; missing: {missing}"


def stated_verdict(found: Survey) -> str:
    """The verdict on the bytes, unless they verify and what they say is newer, in another's folder, or does not fit its type."""
    if found.verdict is Verdict.CORRUPT:
        return "corrupt"
    if found.newer is not None:
        return "newer"
    if misplaced(found) is not None:
        return "misplaced"
    return "misfit" if found.misfits else str(found.verdict)


def misplaced(found: Survey) -> str | None:
    """Why a segment stands in the wrong folder of a log; None where it does not, or stands in no log."""
    folder = found.path.absolute().parent
    if found.header is None or folder.parent.name != LOG_FOLDER or found.header.experiment_id == folder.name:
        return None
    return f"its header names experiment {found.header.experiment_id!r}, its folder is {folder.name!r}"


def verdict_lines(found: Survey) -> Iterator[str]:
    """A line with the verdict and the counts, and one for each thing that is wrong."""
    at_work = ", its writer is at work" if found.is_being_written else ""
    yield f"{stated_verdict(found):<10} {found.path}: {found.blocks} blocks, {found.events} events{at_work}"
    for text in _complaints(found):
        yield f"{'':<10} {text}"


def _complaints(found: Survey) -> Iterator[str]:
    yield from filter(None, (found.newer, misplaced(found), _skipped(found)))
    yield from map(describe_damage, found.damages)
    yield from found.misfit_texts
    if found.misfits > len(found.misfit_texts):
        yield f"and {found.misfits - len(found.misfit_texts)} more events that do not fit their type"


def _skipped(found: Survey) -> str | None:
    """What a recovered segment says of the one that it was recovered from."""
    if found.header is None or not found.header.skipped_bytes:
        return None
    header = found.header
    return (
        f"recovered: {header.skipped_bytes} bytes, {header.skipped_blocks} blocks and {header.skipped_events} events "
        "of the original are not in it"
    )


def survey_report(found: Survey) -> dict[str, Any]:
    """Everything that a survey has found."""
    header = None if found.header is None else plain(msgspec.structs.asdict(found.header))
    return {
        "path": str(found.path),
        "verdict": stated_verdict(found),
        "newer": found.newer,
        "misplaced": misplaced(found),
        "sealed": found.seal is not None,
        "being_written": found.is_being_written,
        "header": header,
        "blocks": found.blocks,
        "events": found.events,
        "events_by_type": {
            f"{name} {version}": n for (name, version), n in sorted(found.events_by_type.items())
        },
        "unknown_events": found.unknown_events,
        "misfits": found.misfits,
        "misfit_texts": list(found.misfit_texts),
        "file_bytes": found.file_bytes,
        "raw_bytes": found.raw_bytes,
        "compressed_bytes": found.compressed_bytes,
        "ratio": _ratio(found),
        "damages": [damage_report(damage) for damage in found.damages],
    }


def damage_report(damage: Damage) -> dict[str, Any]:
    """One damage; `next_block` and `next_event` are None where nothing readable follows."""
    return {name: getattr(damage, name) for name in damage.__slots__}


def info_lines(found: Survey) -> Iterator[str]:
    """A survey for people."""
    yield f"{found.path}: {stated_verdict(found)}"
    for name, text in ({} if found.header is None else plain(msgspec.structs.asdict(found.header))).items():
        yield f"  {name:<16} {text['hex'] if isinstance(text, dict) else text}"
    ratio = _ratio(found)
    yield f"  {'blocks':<16} {found.blocks}"
    yield f"  {'events':<16} {found.events}, {found.unknown_events} of unknown types"
    for (name, version), count in sorted(found.events_by_type.items()):
        yield f"    {count:>8}  {name} {version}"
    yield f"  {'file':<16} {found.file_bytes} bytes"
    yield f"  {'payload':<16} {found.raw_bytes} bytes raw, {found.compressed_bytes} compressed" + (
        "" if ratio is None else f", {ratio:.1f} to 1"
    )
    for text in _complaints(found):
        yield "  " + text


def _ratio(found: Survey) -> float | None:
    return found.raw_bytes / found.compressed_bytes if found.compressed_bytes else None


def recovery_line(recovery: Recovery) -> str:
    """What was kept, in a line."""
    return (
        f"{recovery.target}: {recovery.kept.blocks} blocks and {recovery.kept.events} events kept, "
        f"{recovery.original.lost_bytes} bytes lost; {recovery.original.path} is as it was"
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
        "cut": [damage_report(damage) for damage in recovery.original.damages],
    }
