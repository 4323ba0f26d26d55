"""The projector: brings the tables up to the log, new blocks only, or builds them anew in a fresh file that is swapped in."""

import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import msgspec

from llem.errors import DamagedLogError, LlemError, StoreError
from llem.projections import database
from llem.projections.bulk import Bulk, chunks
from llem.projections.checkpoint import (
    Files,
    Known,
    KnownSegment,
    SegmentFile,
    known_segments,
    left_out,
    pending,
    refused_segments,
    scan,
)
from llem.projections.containment import LOG_TABLES, UNUSABLE, reason_against
from llem.projections.current import doubtful, remember_folders
from llem.projections.database import Tables, create_tables, writer_lock
from llem.projections.derive.rows import DERIVED_TABLES, derive
from llem.projections.derive_again import derive_again
from llem.projections.diff import Change, count_rows, result_changes, table_changes
from llem.projections.going_on import GoingOn, going_on
from llem.projections.ingest import ChangedError, apply_segment, refuse_segments
from llem.projections.sample_pieces import SMALL_ROWS, WEIGHT_SQL
from llem.store import Store, mend_access

KnownSegments = Mapping[str, KnownSegment]  # by name of the file
SCRATCH_PREFIX = "projections-"
REBUILD_LOCK_WAIT_S = 30.0
_MISSING = f"""
SELECT count(*) FROM (SELECT *, sum({WEIGHT_SQL}) OVER (PARTITION BY experiment_id) AS weight FROM segments) s
LEFT JOIN (SELECT experiment_id, segment_id, count(*) AS found FROM samples GROUP BY ALL) a USING (experiment_id, segment_id)
LEFT JOIN (SELECT experiment_id, segment_id, count(*) AS found FROM requests GROUP BY ALL) b USING (experiment_id, segment_id)
LEFT JOIN (SELECT experiment_id, segment_id, sum(samples) AS found FROM sample_pieces GROUP BY ALL) c USING (experiment_id, segment_id)
WHERE (s.samples <> coalesce(a.found, 0) OR s.samples <> coalesce(c.found, CASE WHEN weight > {SMALL_ROWS} THEN 0 ELSE s.samples END) OR s.requests <> coalesce(b.found, 0))
  AND s.experiment_id NOT IN (SELECT experiment_id FROM experiments WHERE status IN ('damaged', 'newer'))
  AND s.derived_blocks = s.blocks
"""
_UNDERIVED = """
SELECT count(*) FROM (SELECT DISTINCT experiment_id FROM segments WHERE derived_blocks IS NOT NULL)
FULL JOIN experiments USING (experiment_id) FULL JOIN experiment_results r USING (experiment_id)
WHERE experiments.status IS NULL OR r.status IS NULL
"""
LOCK_WAIT_S = 5.0  # another catch-up is doing the same work
FIRST_BUILD_WAIT_S = 120.0
READERS_WAIT_S = 1.0
LOST = "rows were lost in a crash"


class CatchUpReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a catch-up did, what it refused, and how far behind the tables still are."""

    rebuilt: str | None = None  # why the tables were built anew
    derived_again: str | None = None  # why all results were derived again from the tables of the log
    blocks: int = 0
    events: int = 0
    derived: Sequence[str] = ()  # experiments whose results were derived again
    waiting: Sequence[GoingOn] = ()  # experiments whose results leave out what is newest
    refused: Sequence[LlemError] = ()
    behind_experiments: Sequence[str] = ()  # experiments that could not be brought up to date
    behind_bytes: int = 0
    behind_reason: str | None = None
    duration_sec: float = 0.0


def catch_up(store: Store, *, salvage: bool = False, doubted: Collection[str] | None = None) -> CatchUpReport:
    """Apply what is new in the log, or in that of the experiments that may be behind. Raises StoreError where there is no store; damage is in the report."""
    started = time.monotonic()
    store.require()
    try:
        report = _catch_up(store, doubted, salvage=salvage)
    except duckdb.Error as error:
        raise StoreError(
            f"projections {store.projections_path} cannot be built", found=database.first_line(error)
        ) from error
    return msgspec.structs.replace(report, duration_sec=time.monotonic() - started)


def _catch_up(
    store: Store, doubted: Collection[str] | None = None, *, salvage: bool, built: bool = False
) -> CatchUpReport:
    try:
        with database.connect(store.projections_path, read_only=True, wait_s=READERS_WAIT_S) as connection:
            if doubted is None:
                doubted = doubtful(store, connection)
            files, known = scan(store, doubted), known_segments(connection, doubted)
            refused = refusals(store, connection)
    except database.UnusableError as error:
        if built:
            raise StoreError(
                f"projections {store.projections_path}",
                found="this program holds them open as they were before",
                hint="close its connection",
            ) from error
        return _build(store, salvage=salvage)
    except database.BusyError:
        return _held(store) or _catch_up(store, salvage=salvage, built=built)
    wanted = pending(files, known, salvage=salvage)
    if not wanted:
        return CatchUpReport(refused=refused)
    if not os.access(store.path, os.W_OK):
        wanted = pending(files, known, salvage=salvage, is_same=KnownSegment.is_copied)
        reason = "the store cannot be written"
        return _behind(files, known, wanted, reason) if wanted else CatchUpReport(refused=refused)
    with writer_lock(store, wait_s=LOCK_WAIT_S) as locked:
        if not locked:
            return _behind(files, known, wanted, "another llem is writing the tables")
        return _apply_pending(store, wanted, salvage=salvage) or _behind(
            files, known, wanted, "a query holds the tables"
        )


def _held(store: Store) -> CatchUpReport | None:
    """Who keeps the tables from being read: another llem, None where it has just ended; a stranger, who may never end, raises StoreError."""
    with writer_lock(store, wait_s=LOCK_WAIT_S) as locked:
        if not locked:
            return CatchUpReport(behind_reason="another llem is writing the tables")
        if database.is_held(store.projections_path):
            raise _stranger_writes(store)
    return None


def _stranger_writes(store: Store) -> StoreError:
    return StoreError(
        f"projections {store.projections_path}",
        found="another program holds them open for writing",
        hint="it should read a copy of its own: `llem query --snapshot FILE`",
    )


def _build(store: Store, *, salvage: bool) -> CatchUpReport:
    """Derive all results again, or build all tables anew, unless another process has just done so."""
    with writer_lock(store, wait_s=FIRST_BUILD_WAIT_S) as locked:
        if not locked:
            return CatchUpReport(behind_reason="another llem is building the tables")
        try:
            derived_again = _derive_again_if_outdated(store)
        except database.BusyError as error:
            raise _stranger_writes(store) from error
        except (database.UnusableError, duckdb.Error) as error:
            applied = build_and_swap(store, salvage=salvage)
            return _catch_up_report(applied, rebuilt=database.first_line(error))
    report = _catch_up(store, salvage=salvage, built=True)
    return msgspec.structs.replace(report, derived_again=derived_again)


def _derive_again_if_outdated(store: Store) -> str | None:
    """In place, or in a copy that is swapped in where a reader holds the tables; why, or None. Raises UnusableError, duckdb.Error."""
    crashed = database.has_wal(store)
    try:
        return _derive_again_in(store.projections_path, crashed=crashed)
    except database.BusyError:
        return _derive_again_in_a_copy(store, crashed=crashed)


def _derive_again_in(path: Path, *, crashed: bool) -> str | None:
    with database.connect(path, read_only=False, wait_s=READERS_WAIT_S, outdated=True) as connection:
        try:
            database.check_version(connection)
        except database.OutdatedError as error:
            if crashed and not is_whole(connection):
                raise database.UnusableError(LOST) from error
            derive_again(connection)
            database.complete(connection)
            return str(error)
    return None


def _derive_again_in_a_copy(store: Store, *, crashed: bool) -> str | None:
    """Readers keep the file that they hold."""
    try:
        database.connect(store.projections_path, read_only=True).close()
    except database.OutdatedError as error:
        if crashed:
            raise database.UnusableError(LOST) from error
    else:
        return None
    with scratch_folder(store) as scratch:
        fresh = scratch / store.projections_path.name
        shutil.copyfile(store.projections_path, fresh)
        fresh.chmod(0o600)
        reason = _derive_again_in(fresh, crashed=False)
        swap(store, fresh)
    return reason


def _behind(files: Files, known: Known, wanted: set[str], reason: str) -> CatchUpReport:
    behind_bytes = 0
    for experiment_id in wanted:
        applied = known.get(experiment_id, {})
        for name, file in files.get(experiment_id, {}).items():
            done = applied[name].applied_bytes if name in applied else 0
            behind_bytes += max(0, file.file_bytes - done)
    return CatchUpReport(behind_experiments=sorted(wanted), behind_bytes=behind_bytes, behind_reason=reason)


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to the tables."""

    blocks: int
    events: int
    derived: Sequence[str]
    waiting: Sequence[GoingOn]
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
    folders = store.folder_times(only)
    files, known = scan(store, only), known_segments(connection, only)
    wanted = sorted(pending(files, known, salvage=salvage))
    before = _totals(connection)
    tables.course.begin("reading the log", _bytes(files, wanted), "bytes")
    at_once = _apply_at_once(tables, {each: files.get(each, {}) for each in wanted if each not in known})
    one_by_one = [experiment_id for experiment_id in wanted if experiment_id not in at_once]
    for experiment_id in one_by_one:
        segments = list(files.get(experiment_id, {}).values())
        try:
            _apply_experiment(tables, experiment_id, segments, known.get(experiment_id, {}), salvage=salvage)
        except Exception as error:  # noqa: BLE001 -- whatever a log brings about is its own experiment's damage
            _forget(tables, experiment_id)
            refuse_segments(tables, segments, reason_against(error))
    waiting = going_on(connection, one_by_one)
    left = {experiment.experiment_id for experiment in waiting}
    derive(tables, [experiment_id for experiment_id in one_by_one if experiment_id not in left])
    remember_folders(connection, {each: folders[each] for each in wanted if each in folders})
    blocks, events = (now - then for now, then in zip(_totals(connection), before, strict=True))
    return Applied(
        blocks=blocks,
        events=events,
        derived=[experiment_id for experiment_id in wanted if experiment_id not in left],
        waiting=waiting,
        refused=refusals(store, connection),
    )


def _apply_at_once(tables: Tables, new: Files) -> set[str]:
    """Put the small experiments among the new ones into the tables, and say which."""
    taken: set[str] = set()
    if not new:
        return taken
    _forget_derived(tables, new)
    new_ones = Bulk(tables)
    for chunk in chunks(new):
        taken.update(new_ones.apply(chunk))
        tables.course.complete(_bytes(new, taken.intersection(chunk)))
    return taken


def _forget_derived(tables: Tables, experiment_ids: Iterable[str]) -> None:
    """Remove what a crash left of experiments whose log was taken out of the tables."""
    rows = tables.connection.execute(
        "SELECT experiment_id FROM experiments WHERE experiment_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY ALL",
        [list(experiment_ids)],
    ).fetchall()
    left = [experiment_id for (experiment_id,) in rows]
    if left:
        with tables.transaction():
            for table in DERIVED_TABLES:
                tables.delete_experiments(table, left)


def refusals(store: Store, connection: duckdb.DuckDBPyConnection) -> list[LlemError]:
    """One error for every segment that keeps its experiment out of the tables."""
    return [_refusal(store, segment) for segment in refused_segments(connection)]


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


def _bytes(files: Files, experiment_ids: Iterable[str]) -> int:
    return sum(
        file.file_bytes for experiment_id in experiment_ids for file in files.get(experiment_id, {}).values()
    )


def _totals(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    sums = connection.execute("SELECT coalesce(sum(blocks), 0), coalesce(sum(events), 0) FROM segments")
    blocks, events = sums.fetchall()[0]
    return int(blocks), int(events)


def _apply_experiment(
    tables: Tables, experiment_id: str, files: Sequence[SegmentFile], known: KnownSegments, *, salvage: bool
) -> None:
    excluded = left_out(files)
    if _must_start_over(files, known, excluded) or (known and _lacks_pieces(tables, experiment_id)):
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
    known: KnownSegments,
    excluded: Mapping[str, str],
    *,
    salvage: bool,
) -> None:
    for file in files:
        name = file.path.name
        apply_segment(tables, file, known.get(name), left_out=excluded.get(name), salvage=salvage)
        tables.course.complete(file.file_bytes)


def _must_start_over(files: Iterable[SegmentFile], known: KnownSegments, excluded: Mapping[str, str]) -> bool:
    """Whether the log did more than grow, or an experiment that was refused may now be taken."""
    found = {file.path.name: file for file in files}
    return any(
        segment.refused
        or name not in found
        or not segment.only_grew(found[name])
        or (name in excluded) != (segment.verdict == "left_out")
        for name, segment in known.items()
    )


def _lacks_pieces(tables: Tables, experiment_id: str) -> bool:
    """Whether the experiment was small and taken at once: now that it grew, its figures may come from pieces."""
    return not tables.has_rows("sample_pieces", experiment_id) and tables.has_rows("samples", experiment_id)


def _forget(tables: Tables, experiment_id: str) -> None:
    with tables.transaction():
        for table in (*LOG_TABLES, "segments"):
            tables.delete_experiments(table, [experiment_id])


def _leave_out_if_refused(tables: Tables, experiment_id: str) -> None:
    """A damaged segment keeps the whole experiment out: sums over the rest would look whole."""
    segments = known_segments(tables.connection, [experiment_id]).get(experiment_id, {})
    if any(segment.refused for segment in segments.values()):
        with tables.transaction():
            for table in LOG_TABLES:
                tables.delete_experiments(table, [experiment_id])


class RebuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a rebuild made of the log, and where that differs from the tables before."""

    experiments: int
    rows: Mapping[str, int]  # table -> rows
    blocks: int
    events: int
    refused: Sequence[LlemError]
    compared: str | None  # None: compared with the tables before; else why not
    changed_tables: Sequence[str] = ()
    changes: Sequence[Change] = ()  # figures of results that are not what they were
    duration_sec: float

    @property
    def differs(self) -> bool:
        """Whether the tables before were not what the log gives."""
        return self.compared is not None or bool(self.changed_tables)


def rebuild(store: Store, *, check: bool = False, salvage: bool = False) -> RebuildReport:
    """Build all tables from the log and swap them in; with `check`, only compare. Raises StoreError."""
    started = time.monotonic()
    store.require()
    with database.writing(f"projections {store.projections_path}"):
        report = _rebuild(store, check=check, salvage=salvage)
    return msgspec.structs.replace(report, duration_sec=time.monotonic() - started)


def _rebuild(store: Store, *, check: bool, salvage: bool) -> RebuildReport:
    if check and not os.access(store.path, os.W_OK):
        with tempfile.TemporaryDirectory() as scratch:
            fresh = Path(scratch) / store.projections_path.name
            return _rebuild_report(store, fresh, build(store, fresh, salvage=salvage))
    with writer_lock(store, wait_s=REBUILD_LOCK_WAIT_S) as locked:
        if not locked:
            raise StoreError(
                f"projections {store.projections_path}",
                found="another llem is writing them",
                hint="try again in a moment",
            )
        with scratch_folder(store) as scratch:
            fresh = scratch / store.projections_path.name
            applied = build(store, fresh, salvage=salvage)
            report = _rebuild_report(store, fresh, applied)
            if not check:
                swap(store, fresh)
    return report


def build_and_swap(store: Store, *, salvage: bool) -> Applied:
    """Build the tables and put them in the place of what cannot be read. The caller holds the writer lock."""
    with scratch_folder(store) as scratch:
        fresh = scratch / store.projections_path.name
        applied = build(store, fresh, salvage=salvage)
        swap(store, fresh)
    return applied


def build(store: Store, path: Path, *, salvage: bool) -> Applied:
    """All tables from the log into a new file, which is whole then. Raises duckdb.Error."""
    try:
        with database.create(path) as connection:
            applied = fill(store, connection, salvage=salvage)
            database.complete(connection)
    finally:
        database.wal_beside(path).unlink(missing_ok=True)  # of a disk that is full
    return applied


def fill(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    *,
    salvage: bool = False,
    only: Collection[str] | None = None,
) -> Applied:
    """All tables, or those of some experiments, into a database that is empty."""
    create_tables(connection)
    return apply_experiments(store, connection, salvage=salvage, only=only)


def _rebuild_report(store: Store, fresh: Path, applied: Applied) -> RebuildReport:
    with database.connect(fresh, read_only=True) as new:
        compared, changed_tables, changes = _compare(store, new)
        rows = count_rows(new)
    return RebuildReport(
        experiments=rows["experiments"],
        rows=rows,
        blocks=applied.blocks,
        events=applied.events,
        refused=applied.refused,
        compared=compared,
        changed_tables=changed_tables,
        changes=changes,
        duration_sec=0.0,
    )


def _compare(
    store: Store, new: duckdb.DuckDBPyConnection
) -> tuple[str | None, Sequence[str], Sequence[Change]]:
    """What differs from the tables in use, or why that cannot be said."""
    try:
        with database.connect(store.projections_path, read_only=True, wait_s=1.0) as old:
            return None, table_changes(old, new), result_changes(old, new)
    except (database.UnusableError, StoreError) as error:
        return str(error), (), ()
    except database.BusyError:
        return "another llem is using the tables before", (), ()


@contextmanager
def scratch_folder(store: Store) -> Iterator[Path]:
    """A folder of one's own within the store, removed afterwards. The caller holds the writer lock."""
    for leftover in store.path.glob(f"{SCRATCH_PREFIX}*.tmp"):
        shutil.rmtree(leftover)  # of a crash: nobody else builds while the lock is held
    scratch = Path(tempfile.mkdtemp(dir=store.path, prefix=SCRATCH_PREFIX, suffix=".tmp"))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def swap(store: Store, fresh: Path) -> None:
    """Put a finished file in the place of the old one, durably."""
    _sync(fresh)
    database.wal_path(store).unlink(missing_ok=True)  # of a crash; it belongs to the old file
    fresh.replace(store.projections_path)
    _sync(store.path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_whole(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether every applied segment has its samples and requests, and every derived experiment its results."""
    return not any(connection.execute(query).fetchall()[0][0] for query in (_MISSING, _UNDERIVED))


def _apply_pending(store: Store, wanted: Collection[str], *, salvage: bool) -> CatchUpReport | None:
    """Catch up under the writer lock; None where a reader holds the file. Tables that cannot be trusted are built anew."""
    crashed = database.has_wal(store)
    try:
        with database.connect(store.projections_path, read_only=False, wait_s=READERS_WAIT_S) as connection:
            if not crashed or is_whole(connection):
                applied = apply_experiments(store, connection, salvage=salvage, only=wanted)
                return _catch_up_report(applied)
            reason = LOST
    except database.BusyError:
        return None
    except (database.UnusableError, duckdb.Error) as error:
        reason = database.first_line(error)
    return _catch_up_report(build_and_swap(store, salvage=salvage), rebuilt=reason)


def _catch_up_report(applied: Applied, *, rebuilt: str | None = None) -> CatchUpReport:
    return CatchUpReport(
        rebuilt=rebuilt,
        blocks=applied.blocks,
        events=applied.events,
        derived=applied.derived,
        waiting=applied.waiting,
        refused=applied.refused,
    )
