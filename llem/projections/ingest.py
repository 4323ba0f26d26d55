"""One segment into the tables: the rows of its new blocks, and the checkpoint after them."""

from collections.abc import Iterable
from typing import Any

from llem.projections.checkpoint import KnownSegment, SegmentFile
from llem.projections.containment import UNUSABLE, reason_against
from llem.projections.ranges import check_header
from llem.projections.replay_events import Replay
from llem.projections.samples import Identity
from llem.projections.tables import Row, Tables
from llem_events import (
    SCHEMA_VERSION,
    CorruptError,
    Damage,
    NewerFormatError,
    SegmentHeader,
    SegmentReader,
    SegmentReadError,
    Verdict,
)

COUNTS = ("applied_bytes", "blocks", "events", "samples", "requests", "skipped_bytes")
REFUSALS: dict[type[Exception], str] = {
    CorruptError: "corrupt",
    NewerFormatError: "newer",
    SegmentReadError: "unreadable",
}


class ChangedError(Exception):
    """What follows a checkpoint does not continue it: the file is not the one that was applied."""


def apply_segment(
    tables: Tables, file: SegmentFile, known: KnownSegment | None, *, left_out: str | None, salvage: bool
) -> None:
    """Apply new blocks and their checkpoint in one transaction, or none of them and the reason. Raises ChangedError."""
    if known is not None and known.unchanged(file):
        return
    if left_out is not None:
        _save(tables, file, {"verdict": "left_out", "problem": left_out})
        return
    try:
        with tables.transaction():
            _checkpoint(tables, file, _read(tables, file, known, salvage=salvage))
    except Exception as error:
        verdict = REFUSALS.get(type(error), UNUSABLE)
        problem = str(error) if type(error) in REFUSALS else reason_against(error)
        problem = problem.removesuffix("; upgrade llem")  # whoever tells it says so
        if known is not None:
            raise ChangedError from error
        skipped_bytes = file.file_bytes if salvage and isinstance(error, CorruptError) else 0
        _save(tables, file, {"verdict": verdict, "problem": problem, "skipped_bytes": skipped_bytes})


def refuse_segments(tables: Tables, files: Iterable[SegmentFile], reason: str) -> None:
    """A checkpoint for each file that says only why nothing of it is in the tables."""
    for file in files:
        _save(tables, file, {"verdict": UNUSABLE, "problem": reason})


def _read(tables: Tables, file: SegmentFile, known: KnownSegment | None, *, salvage: bool) -> Row:
    """Insert the rows of all new blocks and return what the checkpoint says."""
    with SegmentReader(file.path, salvage_damage=salvage) as reader:
        if reader.header is None:
            return {"verdict": reader.verdict, "problem": _told(reader.damages)}
        _check_identity(reader.header, file)
        identity = Identity(
            experiment_id=file.experiment_id,
            process_index=reader.header.process_index,
            segment_id=reader.header.segment_id.hex(),
        )
        replay = Replay(tables, reader, identity)
        try:
            replay.run(known.position if known else None)
        except CorruptError as error:
            raise CorruptError(_told(reader.damages) or error.text, offset=error.offset) from error
        return _header_fields(reader) | _progress(reader, replay, known)


def _check_identity(header: SegmentHeader, file: SegmentFile) -> None:
    if header.schema_version > SCHEMA_VERSION:
        raise NewerFormatError(
            f"store from a newer schema, version {header.schema_version}, expected at most {SCHEMA_VERSION}"
        )
    if header.experiment_id != file.experiment_id:
        raise CorruptError(
            f"the header names experiment {header.experiment_id!r}, the folder is {file.experiment_id!r}",
            offset=0,
        )
    check_header(header)


def _header_fields(reader: SegmentReader) -> dict[str, Any]:
    header = reader.header
    assert header is not None
    return {
        "segment_id": header.segment_id.hex(),
        "role": header.role,
        "process_index": header.process_index,
        "host": header.host,
        "boot_id": header.boot_id,
        "pid": header.pid,
        "llem_version": header.llem_version,
        "schema_version": header.schema_version,
        "monotonic_ns": header.monotonic_ns,
        "wall_ns": header.wall_ns,
        "recovered_from": None if header.recovered_from is None else header.recovered_from.hex(),
        "lost_bytes": header.skipped_bytes,
        "being_written": reader.verdict is not Verdict.CLEAN and reader.is_being_written(),
    }


def _progress(reader: SegmentReader, replay: Replay, known: KnownSegment | None) -> dict[str, Any]:
    at = reader.position
    skipped = reader.damages if reader.verdict is Verdict.CORRUPT else []
    skipped_bytes = sum(each.end - each.offset for each in skipped)
    return {
        "verdict": reader.verdict,
        "problem": _told(reader.damages),
        "applied_bytes": at.offset,
        "blocks": at.blocks,
        "events": at.events,
        "digest": at.digest.hex(),
        "samples": replay.samples + (known.samples if known else 0),
        "requests": replay.requests + (known.requests if known else 0),
        "skipped_bytes": skipped_bytes + (known.skipped_bytes if known else 0),
    }


def _told(damages: list[Damage]) -> str | None:
    """Bytes, blocks and events that did not verify."""
    return "; ".join(map(_tell, damages)) or None


def _tell(damage: Damage) -> str:
    what = f"bytes {damage.offset} to {damage.end}, from block {damage.first_block} and event {damage.first_event}"
    if damage.next_block is not None:
        what += f" to before block {damage.next_block} and event {damage.next_event}"
    return f"{what}: {damage.text}"


def _save(tables: Tables, file: SegmentFile, fields: Row) -> None:
    with tables.transaction():
        _checkpoint(tables, file, fields)


def _checkpoint(tables: Tables, file: SegmentFile, fields: Row) -> None:
    tables.connection.execute(
        "DELETE FROM segments WHERE experiment_id = ? AND file = ?", [file.experiment_id, file.path.name]
    )
    row = {
        "experiment_id": file.experiment_id,
        "file": file.path.name,
        "file_bytes": file.file_bytes,
        "modified_ns": file.modified_ns,
    }
    nothing = {"being_written": False, **dict.fromkeys(COUNTS, 0)}
    tables.insert("segments", [nothing | dict(fields) | row])
