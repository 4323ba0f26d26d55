"""Tables that are exactly as the log: found and opened without loading anything that builds them."""

import importlib
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

import duckdb

from llem.errors import StoreError
from llem.store import Store
from llem.versions import tables_version

Seen = dict[str, dict[str, tuple[int, int]]]  # experiment -> file -> size and time of the last change


def open_caught_up(
    store: Store,
    notify: Callable[[str], object],
    *,
    salvage: bool = False,
    only: Collection[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """The tables as they are where they are current, else as llem.projections.opening opens them."""
    current = open_current(store)
    if current is not None:
        return current
    opening = importlib.import_module("llem.projections.opening")
    caught_up: duckdb.DuckDBPyConnection = opening.open_tables(store, notify, salvage=salvage, only=only)
    return caught_up


def open_current(store: Store) -> duckdb.DuckDBPyConnection | None:
    """The tables, read-only; None where they are missing, busy, foreign, of another version or not up to date."""
    try:
        if stranger(store.projections_path) is not None:
            return None
        connection = duckdb.connect(store.projections_path, read_only=True)
    except (OSError, duckdb.Error):
        return None
    try:
        if _version(connection) == [tables_version()] and _applied(connection) == _files(store):
            connection.execute("SET TimeZone = 'UTC'")  # as the times in the tables
            return connection
    except (duckdb.Error, OSError, StoreError):
        pass  # tables of another shape, or a log that cannot be looked through
    connection.close()
    return None


def stranger(path: Path) -> str | None:
    """What is there in the place of a file of one's own: a database file can run code in whoever opens it. Raises OSError."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "a link"
    return None if found.st_uid == os.geteuid() else f"a file of user {found.st_uid}"


def applied_files(connection: duckdb.DuckDBPyConnection) -> tuple[Seen, set[str]]:
    """The files that were read, by experiment, and the experiments with one that is damaged, growing or not yet derived."""
    rows = connection.execute(
        "SELECT experiment_id, file, file_bytes, modified_ns, verdict IN ('clean', 'unclosed', 'torn') AND NOT being_written "
        "AND derived_blocks IS NOT DISTINCT FROM blocks FROM segments"
    ).fetchall()
    seen: Seen = {}
    unsettled: set[str] = set()
    for experiment_id, file, file_bytes, modified_ns, settled in rows:
        seen.setdefault(experiment_id, {})[file] = (file_bytes, modified_ns)
        if not settled:
            unsettled.add(experiment_id)
    return seen, unsettled


def _version(connection: duckdb.DuckDBPyConnection) -> list[object]:
    return list(connection.execute("SELECT log_digest, derived_digest FROM projection").fetchall())


def _applied(connection: duckdb.DuckDBPyConnection) -> Seen | None:
    """The files that are wholly in the tables; None where one is damaged, growing or not yet derived."""
    seen, unsettled = applied_files(connection)
    return None if unsettled else seen


def _files(store: Store) -> Seen:
    """Those of every experiment that has any. Raises OSError."""
    found = ((experiment_id, store.segment_stats(experiment_id)) for experiment_id in store.experiment_ids())
    return {experiment_id: files for experiment_id, files in found if files}
