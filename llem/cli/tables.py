"""The tables for a command: opened with everything in them that the log holds, with a line about work that takes a while."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import duckdb

from llem.cli.progress import WorkLine
from llem.projections.current import open_caught_up
from llem.projections.progress import watched_by
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
    """A read-only connection; what stands in the way is told on stderr. Raises StoreError where there is no store."""
    with work_line() as line:
        return open_caught_up(store, line.note, salvage=salvage, only=only)
