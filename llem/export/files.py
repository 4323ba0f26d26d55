"""What an export holds, and its writing: results, processes, samples, requests or the timeline of some experiments as one file."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

import duckdb
import msgspec

from llem.errors import ExportError, QueryError
from llem.export import formats, parquet, target
from llem.export.columns import Column, aggregated_columns
from llem.export.formats import Format
from llem.export.results import RAW, write_parquet, write_records
from llem.export.timeline import write_timeline
from llem.projections.containment import INTERNAL_TABLES
from llem.projections.derive.late_window import results_for
from llem.registry import one_of
from llem.results.experiment import ExperimentResult, Methodology
from llem.sql import identifier, literal

ENDINGS = one_of(*(f".{name}" for name in Format))
Window = tuple[float, float]
_ORDER = {
    "samples": "experiment_id, process_index, host, device_uuid, at_ns",
    "requests": "experiment_id, process_index, start_ns, request_id",
}
_START = {"samples": "at_sec", "requests": "arrival_sec"}
FETCHED_ROWS = 2_000
SORT_MEMORY = "96MB"
SPILLED_PREFIX = "llem-export-"


class Preset(StrEnum):
    """Whose names the columns of results have, and in what order."""

    LLEM = "llem"
    LLENERGYMEASURE = "llenergymeasure"


class What(StrEnum):
    """What can be exported."""

    RESULTS = "results"
    RAW = "raw"
    SAMPLES = "samples"
    REQUESTS = "requests"
    TIMELINE = "timeline"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written."""

    what: What = What.RESULTS
    table: str | None = None  # any table or view, instead
    experiment_ids: Sequence[str] | None = None  # None: all
    methodology: Methodology = "total"
    window: Window | None = None
    preset: Preset = Preset.LLEM
    process_breakdown: bool = False
    neutralise: bool = True  # text that a spreadsheet would run
    resolution_s: float | None = None  # of a timeline's counters; 0: every sample


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where to, and as what; `text` opens something else than a file."""

    path: Path
    kind: Format
    force: bool = False
    text: Callable[[], AbstractContextManager[TextIO]] | None = None

    def opened(self) -> AbstractContextManager[TextIO]:
        """For text."""
        return target.text_file(self.path, force=self.force) if self.text is None else self.text()

    def replacing(self) -> AbstractContextManager[Path]:
        """A name beside it, which takes its place."""
        return target.replacing(self.path, force=self.force)


def format_of(path: Path) -> Format:
    """What the name's ending says. Raises ExportError."""
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in set(Format):
        raise ExportError(f"no format for {path}", expected=f"a name ending in {ENDINGS}")
    return Format(suffix)


def check_kind(what: What, methodology: Methodology, kind: Format) -> None:
    """A timeline has one format, and is of whole runs. Raises ExportError."""
    if what is not What.TIMELINE:
        return
    if kind.value != "json":
        raise ExportError(
            "a timeline is JSON", found=kind.value, hint="give the file a name that ends in .json"
        )
    if methodology != "total":
        raise ExportError(
            "a timeline is of whole runs",
            found=f"methodology {methodology}",
            hint="leave methodology and window out",
        )


def write_export(
    connection: duckdb.DuckDBPyConnection, wanted: Wanted, to: Destination, *, tell: Callable[[str], object]
) -> None:
    """Write it; `tell` hears of experiments that are left out. Raises ExportError."""
    if wanted.table is not None:
        _write_sql(connection, rows_of_table(connection, wanted.table, wanted.experiment_ids), wanted, to)
        return
    check_kind(wanted.what, wanted.methodology, to.kind)
    if wanted.what is What.TIMELINE:
        _write_timeline(connection, wanted, to, tell)
        return
    if wanted.what in (What.SAMPLES, What.REQUESTS):
        sql = rows_of(wanted.what.value, wanted.experiment_ids, window=wanted.window)  # type: ignore[arg-type]  # narrowed to two of five
        _write_sql(connection, sql, wanted, to)
        return
    results = list(_results(connection, wanted, tell))
    records: Sequence[Any] = results
    columns: Sequence[Column[Any]] = RAW
    if wanted.what is What.RESULTS:
        columns = aggregated_columns(
            results, preset=wanted.preset.value, process_breakdown=wanted.process_breakdown
        )
    else:
        records = [process for result in results for process in result.process_results]
    _write_records(records, columns, wanted, to)


def _results(
    connection: duckdb.DuckDBPyConnection, wanted: Wanted, tell: Callable[[str], object]
) -> Iterator[ExperimentResult]:
    """Results by id; an experiment without the part that was asked for is told and left out."""
    part = partial(results_for, connection, methodology=wanted.methodology, window_s=wanted.window)
    for result in stored_results(connection, wanted.experiment_ids):
        if wanted.methodology == "total":
            yield result
            continue
        try:
            yield part(result.experiment_id)
        except QueryError as error:
            tell(f"left out: {error}")


def _write_timeline(
    connection: duckdb.DuckDBPyConnection, wanted: Wanted, to: Destination, tell: Callable[[str], object]
) -> None:
    ids = wanted.experiment_ids
    if ids is None:
        found = connection.execute("SELECT experiment_id FROM experiments ORDER BY experiment_id").fetchall()
        ids = [experiment_id for (experiment_id,) in found]
    with to.opened() as stream, sorted_on_disk(connection):
        write_timeline(stream, connection, ids, resolution_s=wanted.resolution_s, tell=tell)


def _write_sql(connection: duckdb.DuckDBPyConnection, sql: str, wanted: Wanted, to: Destination) -> None:
    if to.kind is Format.PARQUET:
        with to.replacing() as temporary, sorted_on_disk(connection):
            parquet.copy_to_parquet(connection, sql, temporary)
        return
    with to.opened() as stream, sorted_on_disk(connection):
        write_rows(stream, connection, sql, kind=to.kind, neutralise=wanted.neutralise)


def _write_records(
    records: Sequence[Any], columns: Sequence[Column[Any]], wanted: Wanted, to: Destination
) -> None:
    if to.kind is Format.PARQUET:
        with to.replacing() as temporary:
            write_parquet(temporary, records, columns)
        return
    with to.opened() as stream:
        write_records(stream, records, columns, kind=to.kind, neutralise=wanted.neutralise)


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
