"""What `llem log` says of a segment, in words and as JSON."""

from collections.abc import Iterator
from typing import Any

import msgspec

from llem_events import Damage, Recovery, Survey
from llem_events.readable import plain


def describe_damage(damage: Damage) -> str:
    """The byte range, what is wrong, and which blocks and events are missing."""
    missing = f"from block {damage.first_block} and event {damage.first_event} on"
    if damage.next_block is not None and damage.next_event is not None:
        blocks, events = damage.next_block - damage.first_block, damage.next_event - damage.first_event
        missing = f"{blocks} blocks from {damage.first_block}, {events} events from {damage.first_event}"
        missing = missing if blocks else "nothing"
    return f"bytes {damage.offset} to {damage.end}: {damage.text}; missing: {missing}"


def survey_report(found: Survey) -> dict[str, Any]:
    """Everything that a survey has found."""
    header = None if found.header is None else plain(msgspec.structs.asdict(found.header))
    return {
        "path": str(found.path),
        "verdict": str(found.verdict),
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
    yield f"{found.path}: {found.verdict}"
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
    for damage in found.damages:
        yield "  " + describe_damage(damage)


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
