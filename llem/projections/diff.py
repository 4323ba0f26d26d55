"""Two projections side by side: which tables differ, and which figures of which results."""

from collections.abc import Iterator
from typing import Any

import duckdb
import msgspec

from llem.projections.containment import INTERNAL_TABLES, NEW
from llem.sql import rows_by_name

OF_THE_FILES = "('modified_ns')"  # a copy of a store has other times, and says the same


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a result that is not what it was; None where there is none."""

    experiment_id: str
    column: str
    before: Any
    after: Any


def tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of all tables that the log alone decides about, in the order of the alphabet."""
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() AND NOT internal "
        f"AND table_name NOT IN {INTERNAL_TABLES} AND NOT starts_with(table_name, '{NEW}') ORDER BY ALL"
    )
    return [name for (name,) in found.fetchall()]


def count_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Table -> rows."""
    counts = (
        (name, connection.execute(f"SELECT count(*) FROM {name}").fetchall()) for name in tables(connection)
    )
    return {name: int(rows[0][0]) for name, rows in counts}


def fingerprint(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[int, str]:
    """Rows of a table, and a sum of their hashes that does not depend on their order."""
    rows = connection.execute(
        "SELECT count(*), coalesce(sum(hash(row_)::HUGEINT), 0)::VARCHAR "
        f"FROM (SELECT COLUMNS(lambda name: name NOT IN {OF_THE_FILES}) FROM {table}) AS row_"
    ).fetchall()
    return int(rows[0][0]), str(rows[0][1])


def table_changes(old: duckdb.DuckDBPyConnection, new: duckdb.DuckDBPyConnection) -> list[str]:
    """Tables whose rows differ."""
    return [name for name in tables(new) if fingerprint(old, name) != fingerprint(new, name)]


def result_changes(old: duckdb.DuckDBPyConnection, new: duckdb.DuckDBPyConnection) -> list[Change]:
    """Every figure of every result that differs, the whole result as JSON left out."""
    before, after = _results(old), _results(new)
    return [
        change
        for experiment_id in sorted(before.keys() | after.keys())
        for change in _changes(experiment_id, before.get(experiment_id), after.get(experiment_id))
    ]


def _results(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Any]]:
    found = connection.execute("SELECT * EXCLUDE (result) FROM experiment_results")
    return {row["experiment_id"]: row for row in rows_by_name(found)}


def _changes(
    experiment_id: str, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> Iterator[Change]:
    if before is None or after is None:
        was, is_now = (None, "present") if before is None else ("present", None)
        yield Change(experiment_id=experiment_id, column="experiment_id", before=was, after=is_now)
        return
    for column, value in after.items():
        if before[column] != value:
            yield Change(experiment_id=experiment_id, column=column, before=before[column], after=value)
