"""Applying segments to open tables: every transaction leaves them as some prefix of the log would."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import msgspec

from llem.errors import DamagedLogError, LlemError, StoreError
from llem.projections.derive import derive
from llem.projections.replay_events import Replay
from llem.projections.segment_files import KnownSegment, SegmentFile, known_segments, pending, scan
from llem.projections.tables import Tables
from llem.store import Store
from llem_events import SCHEMA_VERSION, CorruptError, NewerFormatError, SegmentHeader, SegmentReader, Verdict

LOG_TABLES = ("events", "samples", "requests")
Known = Mapping[str, KnownSegment]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to the tables."""

    blocks: int
    events: int
    derived: Sequence[str]
    refused: Sequence[LlemError]


def apply_experiments(
    store: Store, connection: duckdb.DuckDBPyConnection, *, salvage: bool = False
) -> Applied:
    """Bring every experiment that is behind up to its log, then derive its results."""
    tables = Tables(connection)
    files, known = scan(store), known_segments(connection)
    wanted = sorted(pending(files, known, salvage=salvage))
    before = _totals(connection)
    for experiment_id in wanted:
        _apply_experiment(
            tables,
            experiment_id,
            [file for file in files.values() if file.experiment_id == experiment_id],
            {key[1]: segment for key, segment in known.items() if key[0] == experiment_id},
            salvage=salvage,
        )
    derive(tables, wanted)
    blocks, events = (now - then for now, then in zip(_totals(connection), before, strict=True))
    refused = refusals(store, known_segments(connection).values())
    return Applied(blocks=blocks, events=events, derived=wanted, refused=refused)


def refusals(store: Store, segments: Iterable[KnownSegment]) -> list[LlemError]:
    """One error for every segment that keeps its experiment out of the tables."""
    return [_refusal(store, segment) for segment in segments if segment.refused]


def _refusal(store: Store, segment: KnownSegment) -> LlemError:
    path = store.log_path / segment.experiment_id / segment.file
    if segment.verdict == "newer":
        return StoreError(f"segment {path}", found=segment.problem, hint="upgrade llem")
    return DamagedLogError(
        f"segment {path} is corrupt",
        found=segment.problem,
        hint="`llem log verify` tells more, --salvage goes on without the damaged part",
    )


def _totals(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    found = connection.execute("SELECT coalesce(sum(blocks), 0), coalesce(sum(events), 0) FROM segments")
    blocks, events = found.fetchall()[0]
    return int(blocks), int(events)


def _apply_experiment(
    tables: Tables, experiment_id: str, files: Sequence[SegmentFile], known: Known, *, salvage: bool
) -> None:
    if _must_start_over(files, known):
        _forget(tables, experiment_id)
        known = {}
    try:
        for file in files:
            _apply_segment(tables, file, known.get(file.path.name), salvage=salvage)
    except _ChangedError:
        _forget(tables, experiment_id)
        for file in files:
            _apply_segment(tables, file, None, salvage=salvage)
    _leave_out_if_refused(tables, experiment_id)


def _must_start_over(files: Sequence[SegmentFile], known: Known) -> bool:
    """Whether the log did more than grow, or an experiment that was left out may now be taken."""
    sizes = {file.path.name: file.file_bytes for file in files}
    return any(
        segment.refused or sizes.get(segment.file, -1) < segment.applied_bytes for segment in known.values()
    )


def _forget(tables: Tables, experiment_id: str) -> None:
    with tables.transaction():
        for table in (*LOG_TABLES, "segments"):
            tables.delete(table, experiment_id=experiment_id)


def _leave_out_if_refused(tables: Tables, experiment_id: str) -> None:
    """A damaged segment keeps the whole experiment out: sums over the rest would look whole."""
    found = known_segments(tables.connection).values()
    if any(segment.refused for segment in found if segment.experiment_id == experiment_id):
        with tables.transaction():
            for table in LOG_TABLES:
                tables.delete(table, experiment_id=experiment_id)


class _ChangedError(Exception):
    """What follows a checkpoint does not continue it: the file is not the one that was applied."""


def _apply_segment(tables: Tables, file: SegmentFile, known: KnownSegment | None, *, salvage: bool) -> None:
    if known is not None and known.unchanged(file):
        return
    try:
        with tables.transaction():
            _checkpoint(tables, file, _read(tables, file, known, salvage=salvage))
    except (CorruptError, NewerFormatError) as error:
        if known is not None:
            raise _ChangedError from error
        verdict = "newer" if isinstance(error, NewerFormatError) else "corrupt"
        with tables.transaction():
            _checkpoint(tables, file, {"verdict": verdict, "problem": str(error)})


def _read(tables: Tables, file: SegmentFile, known: KnownSegment | None, *, salvage: bool) -> dict[str, Any]:
    """Insert the rows of all new blocks and return the checkpoint after them."""
    with SegmentReader(file.path, salvage_damage=salvage) as reader:
        if reader.header is None:
            return {"verdict": reader.verdict, "problem": reader.damages[0].text}
        _check_identity(reader.header, file)
        segment_id = reader.header.segment_id.hex()
        replay = Replay(
            tables,
            experiment_id=file.experiment_id,
            segment_id=segment_id,
            process_index=reader.header.process_index,
        )
        for block in reader.blocks(known.position if known else None):
            replay.add(block, reader)
        replay.insert()
        return _header_fields(reader.header) | _progress(reader, replay, known)


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


def _header_fields(header: SegmentHeader) -> dict[str, Any]:
    names = ("role", "process_index", "host", "boot_id", "pid", "llem_version", "schema_version")
    clocks = ("monotonic_ns", "wall_ns")
    fields = {name: getattr(header, name) for name in (*names, *clocks)}
    return fields | {"segment_id": header.segment_id.hex()}


def _progress(reader: SegmentReader, replay: Replay, known: KnownSegment | None) -> dict[str, Any]:
    at, damages = reader.position, reader.damages
    skipped = damages if reader.verdict is Verdict.CORRUPT else []
    return {
        "verdict": reader.verdict,
        "problem": "; ".join(f"bytes {each.offset} to {each.end}: {each.text}" for each in damages) or None,
        "applied_bytes": at.offset,
        "blocks": at.blocks,
        "events": at.events,
        "digest": at.digest.hex(),
        "samples": replay.samples + (known.samples if known else 0),
        "requests": replay.requests + (known.requests if known else 0),
        "skipped_bytes": sum(each.end - each.offset for each in skipped)
        + (known.skipped_bytes if known else 0),
    }


def _checkpoint(tables: Tables, file: SegmentFile, fields: Mapping[str, Any]) -> None:
    nothing = dict.fromkeys(("applied_bytes", "blocks", "events", "samples", "requests", "skipped_bytes"), 0)
    row = {
        "experiment_id": file.experiment_id,
        "file": file.path.name,
        "file_bytes": file.file_bytes,
        "modified_ns": file.modified_ns,
    }
    tables.connection.execute(
        "DELETE FROM segments WHERE experiment_id = ? AND file = ?", [file.experiment_id, file.path.name]
    )
    tables.insert("segments", [nothing | dict(fields) | row])
