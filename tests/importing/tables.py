"""The tables of a store, asked without a process for each question."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from llem.projections import catch_up, database
from llem.store import Store

Row = dict[str, Any]


@contextmanager
def tables(store: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """All of the store's log, whose experiments are all understood."""
    report = catch_up(store)
    assert not report.refused, report.refused
    with database.connect(store.projections_path, read_only=True) as connection:
        yield connection


def rows(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Of a statement, by the names of its columns."""
    found = connection.execute(sql, list(parameters))
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
