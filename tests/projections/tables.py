"""What tests look at: rows as dictionaries, and a hash of every table that depends on nothing but its rows."""

import hashlib
from typing import Any

import duckdb

from llem.projections import diff, open_readonly
from llem.store import Store


def rows(store: Store, sql: str, *values: Any) -> list[dict[str, Any]]:
    """The answer to a query on the tables as they are."""
    with open_readonly(store) as connection:
        found = connection.execute(sql, list(values))
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def one(store: Store, sql: str, *values: Any) -> dict[str, Any]:
    """The only row of the answer."""
    (row,) = rows(store, sql, *values)
    return row


def result(store: Store, experiment_id: str = "run-1") -> dict[str, Any]:
    """The row of an experiment in experiment_results."""
    return one(store, "FROM experiment_results WHERE experiment_id = ?", experiment_id)


def hashes(store: Store) -> dict[str, str]:
    """Table -> SHA-256 over its ordered rows."""
    with open_readonly(store) as connection:
        return hashes_of(connection)


def hashes_of(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The same of open tables."""
    return {table: _hash(connection, table) for table in diff.tables(connection)}


def _hash(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    found = connection.execute(f"FROM {table} ORDER BY ALL").fetchall()
    return hashlib.sha256("\n".join(map(repr, found)).encode()).hexdigest()
