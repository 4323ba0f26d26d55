"""Applying the log to open tables: every transaction leaves them as some prefix of the log would."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import duckdb
import msgspec

from llem.errors import DamagedLogError, LlemError, StoreError
from llem.projections.checkpoint import (
    Files,
    KnownSegment,
    SegmentFile,
    known_segments,
    left_out,
    pending,
    scan,
)
from llem.projections.containment import LOG_TABLES, UNUSABLE, reason_against
from llem.projections.derive.rows import derive
from llem.projections.ingest import ChangedError, apply_segment, refuse_segments
from llem.projections.tables import Tables
from llem.store import Store, mend_access

Known = Mapping[str, KnownSegment]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to the tables."""

    blocks: int
    events: int
    derived: Sequence[str]
    refused: Sequence[LlemError]


def apply_experiments(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    *,
    salvage: bool = False,
    only: Collection[str] | None = None,
) -> Applied:
    """Bring every experiment that is behind up to its log, or only some of these, then derive its results."""
    tables = Tables(connection)
    files, known = scan(store), known_segments(connection)
    behind = pending(files, known, salvage=salvage)
    wanted = sorted(behind if only is None else behind.intersection(only))
    before = _totals(connection)
    tables.course.begin("reading the log", _bytes(files, wanted), "bytes")
    for experiment_id in wanted:
        segments = list(files.get(experiment_id, {}).values())
        try:
            _apply_experiment(tables, experiment_id, segments, known.get(experiment_id, {}), salvage=salvage)
        except Exception as error:  # noqa: BLE001 -- whatever a log brings about is its own experiment's damage
            _forget(tables, experiment_id)
            refuse_segments(tables, segments, reason_against(error))
    derive(tables, wanted)
    blocks, events = (now - then for now, then in zip(_totals(connection), before, strict=True))
    refused = refusals(store, known_segments(connection))
    return Applied(blocks=blocks, events=events, derived=wanted, refused=refused)


def refusals(store: Store, known: Mapping[str, Known]) -> list[LlemError]:
    """One error for every segment that keeps its experiment out of the tables."""
    segments = (segment for experiment in known.values() for segment in experiment.values())
    return [_refusal(store, segment) for segment in segments if segment.refused]


def _refusal(store: Store, segment: KnownSegment) -> LlemError:
    what = f"segment {store.log_path / segment.experiment_id / segment.file}"
    match segment.verdict:
        case "newer":
            return StoreError(what, found=segment.problem, hint="upgrade llem")
        case "unreadable":
            folder = store.log_path / segment.experiment_id
            return StoreError(
                f"experiment {segment.experiment_id} cannot be read",
                found=segment.problem,
                hint=mend_access(folder),
            )
        case verdict if verdict == UNUSABLE:
            hint = "`llem log cat` shows what it holds, `llem rebuild` tries again"
            what = f"experiment {segment.experiment_id} is left out"
            return DamagedLogError(what, found=segment.problem, hint=hint)
        case _:
            hint = "`llem log verify` tells more, --salvage goes on without the damaged part"
            return DamagedLogError(f"{what} is corrupt", found=segment.problem, hint=hint)


def _bytes(files: Files, experiment_ids: Sequence[str]) -> int:
    return sum(
        file.file_bytes for experiment_id in experiment_ids for file in files.get(experiment_id, {}).values()
    )


def _totals(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    sums = connection.execute("SELECT coalesce(sum(blocks), 0), coalesce(sum(events), 0) FROM segments")
    blocks, events = sums.fetchall()[0]
    return int(blocks), int(events)


def _apply_experiment(
    tables: Tables, experiment_id: str, files: Sequence[SegmentFile], known: Known, *, salvage: bool
) -> None:
    excluded = left_out(files)
    if _must_start_over(files, known, excluded):
        _forget(tables, experiment_id)
        known = {}
    try:
        _apply_segments(tables, files, known, excluded, salvage=salvage)
    except ChangedError:
        _forget(tables, experiment_id)
        _apply_segments(tables, files, {}, excluded, salvage=salvage)
    _leave_out_if_refused(tables, experiment_id)


def _apply_segments(
    tables: Tables,
    files: Iterable[SegmentFile],
    known: Known,
    excluded: Mapping[str, str],
    *,
    salvage: bool,
) -> None:
    for file in files:
        name = file.path.name
        apply_segment(tables, file, known.get(name), left_out=excluded.get(name), salvage=salvage)
        tables.course.complete(file.file_bytes)


def _must_start_over(files: Iterable[SegmentFile], known: Known, excluded: Mapping[str, str]) -> bool:
    """Whether the log did more than grow, or an experiment that was refused may now be taken."""
    found = {file.path.name: file for file in files}
    return any(
        segment.refused
        or name not in found
        or not segment.only_grew(found[name])
        or (name in excluded) != (segment.verdict == "left_out")
        for name, segment in known.items()
    )


def _forget(tables: Tables, experiment_id: str) -> None:
    with tables.transaction():
        for table in (*LOG_TABLES, "segments"):
            tables.delete_experiments(table, [experiment_id])


def _leave_out_if_refused(tables: Tables, experiment_id: str) -> None:
    """A damaged segment keeps the whole experiment out: sums over the rest would look whole."""
    segments = known_segments(tables.connection, experiment_id).get(experiment_id, {})
    if any(segment.refused for segment in segments.values()):
        with tables.transaction():
            for table in LOG_TABLES:
                tables.delete_experiments(table, [experiment_id])
