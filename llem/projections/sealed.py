"""Sealed Parquet: where each table's files lie, and the same tables, views and macros over them, of which nothing is copied in."""

import os
import shlex
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb

from llem.errors import StoreError
from llem.projections import database
from llem.projections.containment import INTERNAL_TABLES, LOG_TABLES
from llem.projections.derive.rows import DERIVED_TABLES
from llem.sql import identifier, literal

FOLDER = "sealed"
ROLLUP = "samples_1s"
# Made of one segment alone, and in a folder for each host; the others are of a whole experiment.
OF_SEGMENTS = ("samples", ROLLUP, "requests")
OF_EXPERIMENTS = (
    "segments",
    *(table for table in LOG_TABLES if table not in (*OF_SEGMENTS, *INTERNAL_TABLES)),
    *DERIVED_TABLES,
)
NO_HOST = "__HIVE_DEFAULT_PARTITION__"
# The smallest that was measured; a column of more distinct values gains nothing by a dictionary, and looking for one takes an eighth of the time.
COPY_OPTIONS = "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V1, DICTIONARY_SIZE_LIMIT 1000, WRITE_BLOOM_FILTER false, USE_TMP_FILE false"
_HIVE = "hive_partitioning = true, hive_types_autocast = false, hive_types = {'experiment_id': VARCHAR}"

_KIND = """
SELECT 'TABLE', comment FROM duckdb_tables() WHERE table_name = $table
UNION ALL SELECT 'VIEW', comment FROM duckdb_views() WHERE view_name = $table AND NOT internal
"""
_COLUMNS = "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal ORDER BY table_oid, column_index"


def table_folder(root: Path, table: str, experiment_id: str, host: str | None = None) -> Path:
    """Where files of a table lie; those of a segment's tables in a folder of its host."""
    folder = root / f"table={table}" / f"experiment_id={experiment_id}"
    return (
        folder if table not in OF_SEGMENTS else folder / f"host={quote(host, safe='') if host else NO_HOST}"
    )


def manifest_folder(root: Path, experiment_id: str) -> Path:
    """Where it is said what was sealed of an experiment."""
    return root / "manifests" / f"experiment_id={experiment_id}"


def sealed_folder(path: Path) -> Path:
    """The sealed folder that a path names: itself, or that of a store. Raises StoreError."""
    for folder in (path / FOLDER, path):
        if any(folder.glob("table=*")):
            return folder.resolve()
    raise StoreError(
        f"nothing is sealed at {path}",
        expected=f"a store with a folder {FOLDER!r}, or such a folder",
        hint="run `llem seal` first",
    )


def sealed_in_part(root: Path) -> list[str]:
    """Experiments with samples or requests but no result yet: sealing them was not finished."""
    begun = {_id(folder) for table in OF_SEGMENTS for folder in _folders(root, table)}
    return sorted(begun - {_id(folder) for folder in _folders(root, "experiments")})


def _folders(root: Path, table: str) -> list[Path]:
    return list((root / f"table={table}").glob("experiment_id=*"))


def _id(folder: Path) -> str:
    return folder.name.partition("=")[2]


def _check_readable(root: Path) -> None:
    """Folders that cannot be listed would be taken for empty ones, by Python and by DuckDB. Raises StoreError."""
    for folder in (*root.glob("table=*"), *_folders(root, "samples"), *_folders(root, "experiments")):
        if not os.access(folder, os.R_OK | os.X_OK):
            raise StoreError(
                f"sealed folder {folder} cannot be read",
                found="Permission denied",
                hint=f"its owner lets others read it by chmod -R a+rX {shlex.quote(str(root))}",
            )


def open_sealed(root: Path, *, described: bool = True) -> duckdb.DuckDBPyConnection:
    """A database in memory whose tables are views over the files; a table without files is empty. Raises StoreError.

    That tables and columns are `described` takes a third of a second, which only questions to DuckDB's catalog are worth.
    """
    _check_readable(root)
    connection = database.in_memory()
    connection.execute(database.SCHEMA_SQL)
    if described:
        database.add_comments(connection, database.SCHEMA_SQL)
    columns = connection.execute(_COLUMNS).fetchall()
    for table in (*OF_SEGMENTS, *OF_EXPERIMENTS):
        depth = "*/*" if table in OF_SEGMENTS else "*"
        files = _files(root, f"table={table}/{depth}/*.parquet")
        if files:
            _put_over(connection, table, files, [column for of, *column in columns if of == table])
    return connection


def _files(root: Path, pattern: str) -> str | list[str]:
    """For DuckDB, whose patterns know no escape within an allowed folder: one pattern, or each file where the folder's name would be one."""
    if next(root.glob(pattern), None) is None:
        return []
    if escape(str(root)) == str(root):
        return f"{root}/{pattern}"
    return sorted(map(str, root.glob(pattern)))


def _put_over(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    files: str | list[str],
    columns: Sequence[Sequence[Any]],
) -> None:
    """A view over files in the place of a table or view, with its columns and their comments. Raises StoreError where the files do not have these."""
    kind, meaning = connection.execute(_KIND, {"table": table}).fetchall()[0]
    chosen = ", ".join(f"{identifier(name)}::{type_} AS {identifier(name)}" for name, type_, _ in columns)
    connection.execute(f"DROP {kind} {table}")
    try:
        connection.execute(
            f"CREATE VIEW {table} AS SELECT {chosen} FROM read_parquet({literal(files)}, {_HIVE})"
        )
    except duckdb.Error as error:
        raise StoreError(
            f"sealed Parquet of table {table}",
            found=str(error).split("\n", 1)[0],
            expected="files of this llem",
            hint="run `llem seal` again; remove a damaged file first",
        ) from error
    if meaning is not None:
        connection.execute(f"COMMENT ON VIEW {table} IS {literal(meaning)}")
        for name, _, text in columns:
            connection.execute(f"COMMENT ON COLUMN {table}.{identifier(name)} IS {literal(text)}")
