"""The tables for a command: opened with everything in them that the log holds, with a line about work that takes a while."""

import importlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import duckdb

from llem.cli.progress import WorkLine
from llem.projections.progress import watched_by
from llem.query.freshness import open_current
from llem.store import Store


@contextmanager
def work_line() -> Iterator[WorkLine]:
    """A line about work on the tables in the body; quick work shows none."""
    line = WorkLine()
    try:
        with watched_by(line.update):
            yield line
    finally:
        line.erase()


def tables_of(
    store: Store, *, salvage: bool = False, only: Collection[str] | None = None
) -> duckdb.DuckDBPyConnection:
    """A read-only connection; what stands in the way is told on stderr. Raises StoreError where there is no store.

    What builds tables is loaded only where they are not up to date.
    """
    current = open_current(store)
    if current is not None:
        return current
    opening = importlib.import_module("llem.projections.opening")
    with work_line() as line:
        connection: duckdb.DuckDBPyConnection = opening.open_tables(
            store, line.note, salvage=salvage, only=only
        )
        return connection
