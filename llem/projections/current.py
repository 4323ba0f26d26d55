"""Tables that are exactly as the log: found and opened without loading anything that builds them."""

import importlib
import os
import stat
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import duckdb

from llem.errors import StoreError
from llem.projections.tables_version import tables_version
from llem.store import Store
from llem.units import NS_PER_S

Seen = dict[str, dict[str, tuple[int, int]]]  # experiment -> file -> size and time of the last change
# A folder that had changed so shortly before it was listed may change again without another time.
TICK_NS = 2 * NS_PER_S
_SETTLED = "NOT being_written AND derived_blocks IS NOT DISTINCT FROM blocks"
_SEALED = f"SELECT experiment_id FROM segments GROUP BY experiment_id HAVING bool_and(verdict = 'clean' AND {_SETTLED})"
_CLOSED = f"SELECT experiment_id, changed_ns FROM folders WHERE experiment_id IN ({_SEALED})"
_OTHERS = f"""
SELECT experiment_id, file, file_bytes, modified_ns, verdict IN ('clean', 'unclosed', 'torn') AND {_SETTLED}
FROM segments WHERE experiment_id NOT IN (SELECT experiment_id FROM ({_CLOSED})) OR experiment_id IN (SELECT unnest(?::VARCHAR[]))
"""


def open_caught_up(
    store: Store,
    notify: Callable[[str], object],
    *,
    salvage: bool = False,
    only: Collection[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """The tables as they are where they are current, else as llem.projections.opening opens them."""
    current, doubted = open_current(store)
    if current is not None:
        return current
    opening = importlib.import_module("llem.projections.opening")
    caught_up: duckdb.DuckDBPyConnection = opening.open_tables(
        store, notify, salvage=salvage, only=only, doubted=doubted
    )
    return caught_up


def open_current(store: Store) -> tuple[duckdb.DuckDBPyConnection | None, set[str] | None]:
    """The tables, read-only; None where they are missing, busy, foreign, of another version or not up to date.

    Beside them the experiments that may be behind, None where nobody could look.
    """
    doubted: set[str] | None = None
    try:
        if stranger(store.projections_path) is not None:
            return None, None
        connection = duckdb.connect(store.projections_path, read_only=True)
    except (OSError, duckdb.Error):
        return None, None
    try:
        if _version(connection) == [tables_version()]:
            doubted = doubtful(store, connection)
        if doubted == set():
            connection.execute("SET TimeZone = 'UTC'")  # as the times in the tables
            return connection, doubted
    except (duckdb.Error, OSError, StoreError):
        pass  # tables of another shape, or a log that cannot be looked through
    connection.close()
    return None, doubted


def stranger(path: Path) -> str | None:
    """What is there in the place of a file of one's own: a database file can run code in whoever opens it. Raises OSError."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return "a link"
    return None if found.st_uid == os.geteuid() else f"a file of user {found.st_uid}"


def doubtful(store: Store, connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The experiments that may be behind: all but those whose files are as they were when they were wholly taken.

    Where all segments are sealed, nothing but the folder is looked at until a file comes or goes. Raises StoreError.
    """
    found, closed = store.folder_times(), dict(connection.execute(_CLOSED).fetchall())
    unchanged = {each for each, changed_ns in found.items() if closed.get(each) == changed_ns}
    applied, unsettled = _applied_files(connection, closed.keys() - unchanged)
    changed = {each for each in found.keys() - unchanged if applied.get(each, {}) != _stats(store, each)}
    return changed | unsettled | (applied.keys() - found.keys())


def remember_folders(connection: duckdb.DuckDBPyConnection, changed_ns: Mapping[str, int]) -> None:
    """Say when the folders of experiments had last changed before they were listed and their files taken."""
    now_ns = time.time_ns()
    old = [(each, at_ns) for each, at_ns in changed_ns.items() if now_ns - at_ns > TICK_NS]
    connection.execute(
        "DELETE FROM folders WHERE experiment_id IN (SELECT unnest(?::VARCHAR[]))", [list(changed_ns)]
    )
    connection.execute(
        "INSERT INTO folders SELECT unnest(?::VARCHAR[]), unnest(?::BIGINT[])",
        [[each for each, _ in old], [at_ns for _, at_ns in old]],
    )


def _applied_files(connection: duckdb.DuckDBPyConnection, changed: Collection[str]) -> tuple[Seen, set[str]]:
    """The files that were read, by experiment, and the experiments with one that is damaged, growing or not yet derived.

    Of the experiments that are closed only those whose folder has changed.
    """
    rows = connection.execute(_OTHERS, [list(changed)]).fetchall()
    seen: Seen = {}
    unsettled: set[str] = set()
    for experiment_id, file, file_bytes, modified_ns, settled in rows:
        seen.setdefault(experiment_id, {})[file] = (file_bytes, modified_ns)
        if not settled:
            unsettled.add(experiment_id)
    return seen, unsettled


def _stats(store: Store, experiment_id: str) -> Mapping[str, tuple[int, int]] | None:
    """None where they cannot be listed."""
    try:
        return store.segment_stats(experiment_id)
    except OSError:
        return None


def _version(connection: duckdb.DuckDBPyConnection) -> list[object]:
    return list(connection.execute("SELECT log_digest, derived_digest FROM projection").fetchall())
