"""Rows of a query of our own in every format, a few thousand in memory at a time."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TextIO

import duckdb

from llem.export import as_csv, as_json, as_jsonl
from llem.export.records import Format

FETCHED_ROWS = 10_000


def write_rows(
    out: TextIO, connection: duckdb.DuckDBPyConnection, sql: str, *, kind: Format, neutralise: bool = True
) -> None:
    """The rows as text."""
    writers: dict[Format, Callable[[TextIO, Sequence[str], Iterator[Any]], None]] = {
        Format.CSV: partial(as_csv.write, neutralise=neutralise),
        Format.JSON: as_json.write,
        Format.JSONL: as_jsonl.write,
    }
    cursor = connection.execute(sql)
    columns = [column[0] for column in cursor.description or ()]
    writers[kind](out, columns, _fetched(cursor))


def _fetched(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(FETCHED_ROWS):
        yield from rows
