"""What is exported as rows: results and processes as objects, samples and requests as SQL, a few thousand in memory at a time."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import duckdb
import msgspec

from llem.errors import ExportError
from llem.export import formats
from llem.export.formats import Format
from llem.projections.containment import INTERNAL_TABLES
from llem.results.experiment import ExperimentResult
from llem.sql import identifier, literal

Window = tuple[float, float]
_ORDER = {
    "samples": "experiment_id, process_index, host, device_uuid, at_ns",
    "requests": "experiment_id, process_index, start_ns, request_id",
}
_START = {"samples": "at_sec", "requests": "arrival_sec"}
FETCHED_ROWS = 2_000
SORT_MEMORY = "96MB"
SPILLED_PREFIX = "llem-export-"


def stored_results(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str] | None = None
) -> Iterator[ExperimentResult]:
    """Results as the tables hold them, by id; experiments that measured nothing have none. None takes all."""
    decoder = msgspec.json.Decoder(ExperimentResult)
    found = connection.execute(
        f"SELECT result FROM experiment_results WHERE result IS NOT NULL AND {_chosen(experiment_ids)} "
        "ORDER BY experiment_id"
    )
    while rows := found.fetchmany(100):
        for (result,) in rows:
            yield decoder.decode(result)


def rows_of(
    table: Literal["samples", "requests"],
    experiment_ids: Sequence[str] | None = None,
    *,
    window: Window | None = None,
) -> str:
    """SQL of the samples or requests, with wall clock and seconds from their experiment's start."""
    conditions = [_chosen(experiment_ids)]
    if window is not None:
        conditions.append(f"{_START[table]} BETWEEN {float(window[0])!r} AND {float(window[1])!r}")
    return f"SELECT * FROM timed_{table} WHERE {' AND '.join(conditions)} ORDER BY {_ORDER[table]}"


def rows_of_table(
    connection: duckdb.DuckDBPyConnection, table: str, experiment_ids: Sequence[str] | None
) -> str:
    """SQL of the rows that any table or view has of the experiments. Raises ExportError where there is no such table."""
    known = [
        name
        for (name,) in connection.execute(
            "SELECT table_name FROM duckdb_columns() WHERE NOT internal AND column_name = 'experiment_id' "
            f"AND table_name NOT IN {INTERNAL_TABLES} ORDER BY ALL"
        ).fetchall()
    ]
    if table not in known:
        raise ExportError(
            f"no table {table} of runs", expected=f"one of {', '.join(known)}", hint="`llem query` lists them"
        )
    return f"SELECT * FROM {identifier(table)} WHERE {_chosen(experiment_ids)} ORDER BY ALL"


@contextmanager
def sorted_on_disk(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Rows of any number are put in order in little memory: what is too much for it goes to the folder of temporary files."""
    with tempfile.TemporaryDirectory(prefix=SPILLED_PREFIX, ignore_cleanup_errors=True) as folder:
        connection.execute(f"SET temp_directory = {literal(folder)}")
        connection.execute(f"SET memory_limit = '{SORT_MEMORY}'")
        yield


def _chosen(experiment_ids: Sequence[str] | None) -> str:
    """A condition without parameters, which COPY does not take; the grammar of ids has no quotes."""
    if experiment_ids is None:
        return "true"
    return f"experiment_id IN ({', '.join(map(literal, experiment_ids))})" if experiment_ids else "false"


def write_rows(
    out: TextIO, connection: duckdb.DuckDBPyConnection, sql: str, *, kind: Format, neutralise: bool = True
) -> None:
    """The rows as text."""
    cursor = connection.execute(sql)
    columns = [column[0] for column in cursor.description or ()]
    formats.TEXT_FORMATS[kind].writer(neutralise=neutralise)(out, columns, _fetched(cursor))


def _fetched(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(FETCHED_ROWS):
        yield from rows
