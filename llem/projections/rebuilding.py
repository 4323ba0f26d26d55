"""Building the projection anew: a fresh file beside the old one, then swapped in, so that open readers keep theirs."""

import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import msgspec

from llem.errors import LlemError, StoreError
from llem.projections import database
from llem.projections.apply import Applied, apply_experiments
from llem.projections.diff import Change, count_rows, result_changes, table_changes
from llem.projections.locking import writer_lock
from llem.projections.schema import create_tables
from llem.store import Store

SCRATCH_PREFIX = "projections-"
LOCK_WAIT_S = 30.0


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
            return _report(store, fresh, build(store, fresh, salvage=salvage))
    with writer_lock(store, wait_s=LOCK_WAIT_S) as locked:
        if not locked:
            raise StoreError(
                f"projections {store.projections_path}",
                found="another llem is writing them",
                hint="try again in a moment",
            )
        with scratch_folder(store) as scratch:
            fresh = scratch / store.projections_path.name
            applied = build(store, fresh, salvage=salvage)
            report = _report(store, fresh, applied)
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
    """All tables from the log into a new file."""
    with database.create(path) as connection:
        return fill(store, connection, salvage=salvage)


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


def _report(store: Store, fresh: Path, applied: Applied) -> RebuildReport:
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
