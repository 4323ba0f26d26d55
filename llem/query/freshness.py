"""Whether the tables are exactly as the log: looked up without loading anything that builds them."""

import os
from pathlib import Path

import duckdb

from llem.errors import StoreError
from llem.projections.settled import Seen, applied_files
from llem.store import Store
from llem.versions import tables_version


def open_current(store: Store) -> duckdb.DuckDBPyConnection | None:
    """The tables, read-only; None where they are missing, busy, foreign, of another version or not up to date."""
    if not _is_own(store.projections_path):
        return None
    try:
        connection = duckdb.connect(store.projections_path, read_only=True)
    except duckdb.Error:
        return None
    try:
        if _version(connection) == [tables_version()] and _applied(connection) == _files(store):
            connection.execute("SET TimeZone = 'UTC'")  # as the times in the tables
            return connection
    except (duckdb.Error, OSError, StoreError):
        pass  # tables of another shape, or a log that cannot be looked through
    connection.close()
    return None


def _is_own(path: Path) -> bool:
    """A database file can run code in whoever opens it."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return not path.is_symlink() and found.st_uid == os.geteuid()


def _version(connection: duckdb.DuckDBPyConnection) -> list[object]:
    return list(connection.execute("SELECT * FROM projection").fetchall())


def _applied(connection: duckdb.DuckDBPyConnection) -> Seen | None:
    """The files that are wholly in the tables; None where one is damaged, growing or not yet derived."""
    seen, unsettled = applied_files(connection)
    return None if unsettled else seen


def _files(store: Store) -> Seen:
    """Those of every experiment that has any. Raises OSError."""
    found = ((experiment_id, store.segment_stats(experiment_id)) for experiment_id in store.experiment_ids())
    return {experiment_id: files for experiment_id, files in found if files}
