"""Bringing the tables up to the log: new blocks only, one transaction per segment together with its checkpoint."""

import os
import time
from collections.abc import Sequence

import duckdb
import msgspec

from llem.errors import LlemError, StoreError
from llem.projections import database
from llem.projections.apply import Applied, apply_experiments, refusals
from llem.projections.checkpoint import Files, Known, known_segments, pending, scan
from llem.projections.integrity import is_whole
from llem.projections.locking import writer_lock
from llem.projections.rebuilding import build_and_swap
from llem.store import Store

LOCK_WAIT_S = 5.0  # another catch-up is doing the same work
FIRST_BUILD_WAIT_S = 120.0
READERS_WAIT_S = 1.0


class CatchUpReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a catch-up did, what it refused, and how far behind the tables still are."""

    rebuilt: str | None = None  # why the tables were built anew
    blocks: int = 0
    events: int = 0
    derived: Sequence[str] = ()  # experiments whose results were derived again
    refused: Sequence[LlemError] = ()
    behind_experiments: Sequence[str] = ()  # experiments that could not be brought up to date
    behind_bytes: int = 0
    behind_reason: str | None = None
    duration_sec: float = 0.0


def catch_up(store: Store, *, salvage: bool = False) -> CatchUpReport:
    """Apply what is new in the log. Raises StoreError where there is no store; damage is in the report."""
    started = time.monotonic()
    store.require()
    try:
        report = _catch_up(store, salvage=salvage)
    except duckdb.Error as error:
        raise StoreError(
            f"projections {store.projections_path} cannot be built", found=database.first_line(error)
        ) from error
    return msgspec.structs.replace(report, duration_sec=time.monotonic() - started)


def _catch_up(store: Store, *, salvage: bool) -> CatchUpReport:
    try:
        with database.connect(store.projections_path, read_only=True, wait_s=READERS_WAIT_S) as connection:
            known = known_segments(connection)
    except database.UnusableError as error:
        return _build(store, reason=str(error), salvage=salvage)
    except database.BusyError:
        return _held(store) or _catch_up(store, salvage=salvage)
    files = scan(store)
    wanted = pending(files, known, salvage=salvage)
    if not wanted:
        return CatchUpReport(refused=refusals(store, known))
    if not os.access(store.path, os.W_OK):
        return _behind(files, known, wanted, "the store cannot be written")
    with writer_lock(store, wait_s=LOCK_WAIT_S) as locked:
        if not locked:
            return _behind(files, known, wanted, "another llem is writing the tables")
        return _apply(store, salvage=salvage) or _behind(files, known, wanted, "a query holds the tables")


def _held(store: Store) -> CatchUpReport | None:
    """Who keeps the tables from being read: another llem, None where it has just ended; a stranger, who may never end, raises StoreError."""
    with writer_lock(store, wait_s=LOCK_WAIT_S) as locked:
        if not locked:
            return CatchUpReport(behind_reason="another llem is writing the tables")
        if database.is_held(store.projections_path):
            raise StoreError(
                f"projections {store.projections_path}",
                found="another program holds them open for writing",
                hint="it should read a copy of its own: `llem query --snapshot FILE`",
            )
    return None


def _build(store: Store, *, reason: str, salvage: bool) -> CatchUpReport:
    """Build the tables anew, unless another process has just done so."""
    with writer_lock(store, wait_s=FIRST_BUILD_WAIT_S) as locked:
        if not locked:
            return CatchUpReport(behind_reason="another llem is building the tables")
        try:
            database.connect(store.projections_path, read_only=True).close()
        except database.UnusableError:
            return _report(build_and_swap(store, salvage=salvage), rebuilt=reason)
    return _catch_up(store, salvage=salvage)


def _apply(store: Store, *, salvage: bool) -> CatchUpReport | None:
    """Catch up under the writer lock; None where a reader holds the file. Tables that cannot be trusted are built anew."""
    crashed = database.has_wal(store)
    try:
        with database.connect(store.projections_path, read_only=False, wait_s=READERS_WAIT_S) as connection:
            if not crashed or is_whole(connection):
                return _report(apply_experiments(store, connection, salvage=salvage))
            reason = "rows were lost in a crash"
    except database.BusyError:
        return None
    except (database.UnusableError, duckdb.Error) as error:
        reason = database.first_line(error)
    return _report(build_and_swap(store, salvage=salvage), rebuilt=reason)


def _report(applied: Applied, *, rebuilt: str | None = None) -> CatchUpReport:
    return CatchUpReport(
        rebuilt=rebuilt,
        blocks=applied.blocks,
        events=applied.events,
        derived=applied.derived,
        refused=applied.refused,
    )


def _behind(files: Files, known: Known, wanted: set[str], reason: str) -> CatchUpReport:
    behind_bytes = 0
    for experiment_id in wanted:
        applied = known.get(experiment_id, {})
        for name, file in files.get(experiment_id, {}).items():
            done = applied[name].applied_bytes if name in applied else 0
            behind_bytes += max(0, file.file_bytes - done)
    return CatchUpReport(behind_experiments=sorted(wanted), behind_bytes=behind_bytes, behind_reason=reason)
