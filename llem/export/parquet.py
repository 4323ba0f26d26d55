"""Rows as a Parquet file, written by DuckDB: no pyarrow needed."""

import errno
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from llem.export import formats
from llem.sql import disk_reason, identifier, literal

BATCH_ROWS = 2_000


def write_parquet(path: Path, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]) -> None:
    """A file with columns of the given names and DuckDB types; lists and maps in text columns become JSON."""
    fields = ", ".join(f"{identifier(name)} {kind}" for name, kind in columns)
    texts = [kind == "VARCHAR" for _, kind in columns]
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE exported ({fields})")
        for objects in _batches([name for name, _ in columns], rows, texts):
            connection.execute(
                f"INSERT INTO exported SELECT unnest(?::JSON::STRUCT({fields})[], max_depth := 2)",
                [formats.as_json(objects).decode()],
            )
        copy_to_parquet(connection, "FROM exported", path)


def copy_to_parquet(connection: duckdb.DuckDBPyConnection, sql: str, path: Path) -> None:
    """The rows of a query of our own, types as they are. Raises OSError where the disk takes no more."""
    try:
        connection.execute(f"COPY ({sql}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")
    except duckdb.IOException as error:
        raise OSError(errno.EIO, disk_reason(error)) from error


def _batches(
    names: Sequence[str], rows: Iterable[Sequence[Any]], texts: Sequence[bool]
) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH_ROWS)):
        yield [dict(zip(names, map(_portable, row, texts), strict=True)) for row in batch]


def _portable(value: Any, is_text: bool) -> Any:
    return formats.text(value) if is_text and value is not None else value
