"""Tables to read from: the store's, caught up; where those cannot be had, others from the same log, made for one reader and thrown away."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import duckdb

from llem.errors import StoreError
from llem.projections import database
from llem.projections.projector import Applied, CatchUpReport, build, catch_up, fill
from llem.store import Store

Notify = Callable[[str], None]
TEMPORARY_PREFIX = "llem-tables-"
_UNAVAILABLE = (StoreError, OSError, duckdb.Error)


def open_tables(
    store: Store,
    notify: Notify,
    *,
    salvage: bool = False,
    only: Collection[str] | None = None,
    doubted: Collection[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """A read-only connection to tables that hold what the log holds; what stands in the way is told a line at a time.

    Who wants `only` some experiments gets them even where the store's tables are behind; who has just looked which experiments may be
    behind names them as `doubted`. Raises StoreError where there is no store.
    """
    store.require()
    try:
        report = catch_up(store, salvage=salvage, doubted=doubted)
        connection = database.open_readonly(store)
    except _UNAVAILABLE as error:
        return _temporary(store, notify, _told(store, error), salvage=salvage, only=only)
    if not set(only or ()).isdisjoint(report.behind_experiments):
        connection.close()
        return _temporary(store, notify, report.behind_reason or "", salvage=salvage, only=only)
    _tell(store, report, notify)
    return connection


def snapshot(store: Store, path: Path, notify: Notify) -> None:
    """A copy of the tables, up to date, that any program may open and hold. Raises StoreError, FileExistsError."""
    with open_tables(store, notify) as connection:
        held = connection.execute("SELECT path FROM duckdb_databases() WHERE NOT internal").fetchall()
        if held == [(str(store.projections_path),)] and not database.has_wal(store):
            shutil.copyfile(store.projections_path, path)  # nobody writes while it is open for reading
            path.chmod(0o600)
            return
    with database.writing(f"snapshot {path}"):
        build(store, path, salvage=False)


def _told(store: Store, error: Exception) -> str:
    return f"{store.path}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _tell(store: Store, report: CatchUpReport, notify: Notify) -> None:
    if report.rebuilt and report.rebuilt != database.NOT_BUILT:
        notify(f"llem: tables built from the log: {report.rebuilt}")
    if report.derived_again:
        notify(f"llem: figures derived again from the tables: {report.derived_again}")
    if report.behind_reason:
        behind = f"{len(report.behind_experiments)} experiments, {report.behind_bytes} bytes of log"
        notify(f"llem: answering from tables that are behind by {behind}: {report.behind_reason}")
    for experiment in report.waiting:
        notify(f"llem: {experiment}")
    _tell_of_the_log(store, [str(refusal) for refusal in report.refused], notify)


def _tell_of_the_log(store: Store, refusals: Collection[str], notify: Notify) -> None:
    for refusal in refusals:
        notify("llem: " + " ".join(refusal.split()))
    for folder in store.strange_folders():
        notify(f"llem: folder {folder!r} in the log is no experiment: its name is no id")


def _temporary(
    store: Store, notify: Notify, reason: str, *, salvage: bool, only: Collection[str] | None
) -> duckdb.DuckDBPyConnection:
    """The same tables in memory for a few experiments, else in a file that nobody else sees and that goes with its reader."""
    notify(f"llem: answering from temporary tables: {reason}")
    if only is not None:
        connection = database.in_memory()
        applied = fill(store, connection, salvage=salvage, only=only)
    else:
        with database.writing("the temporary tables"):
            applied, connection = _in_a_file(store, salvage=salvage)
    _tell_of_the_log(store, [str(refusal) for refusal in applied.refused], notify)
    return connection


def _in_a_file(store: Store, *, salvage: bool) -> tuple[Applied, duckdb.DuckDBPyConnection]:
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{os.getpid()}-"))
    try:
        applied = build(store, folder / "tables.duckdb", salvage=salvage)
        return applied, database.connect(folder / "tables.duckdb", read_only=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # an open file stays until it is closed


def _remove_leftovers() -> None:
    """Of readers that were killed while they built."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"):
        pid = re.match(rf"{TEMPORARY_PREFIX}(\d+)-", folder.name)
        if pid and folder.lstat().st_uid == os.geteuid() and not Path(f"/proc/{pid[1]}").exists():
            shutil.rmtree(folder, ignore_errors=True)
