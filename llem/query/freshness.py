"""Whether the tables are exactly as the log: looked up without loading anything that builds them."""

import os
from pathlib import Path

import duckdb

from llem.errors import StoreError
from llem.store import Store
from llem.versions import tables_version

Seen = dict[tuple[str, str], tuple[int, int]]  # experiment and file -> size and time of the last change


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
    rows = connection.execute(
        "SELECT experiment_id, file, file_bytes, modified_ns, verdict IN ('clean', 'unclosed', 'torn') AND NOT being_written "
        "AND derived_blocks = blocks FROM segments"
    ).fetchall()
    if not all(settled for *_, settled in rows):
        return None
    return {(experiment_id, file): (size, modified_ns) for experiment_id, file, size, modified_ns, _ in rows}


def _files(store: Store) -> Seen:
    found: Seen = {}
    for experiment_id in store.experiment_ids():
        for path in store.segments(experiment_id):
            status = path.stat()
            found[experiment_id, path.name] = (status.st_size, status.st_mtime_ns)
    return found
