"""What an export holds, and its writing: results, processes, samples, requests or the timeline of some experiments as one file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import duckdb
import msgspec

from llem.errors import ExportError, QueryError
from llem.export import parquet, target
from llem.export.columns import Column, aggregated_columns
from llem.export.formats import Format
from llem.export.results import RAW, write_parquet, write_records
from llem.export.rows import Window, rows_of, rows_of_table, sorted_on_disk, stored_results, write_rows
from llem.export.timeline import write_timeline
from llem.projections.derive.late_window import results_for
from llem.registry import one_of
from llem.results.experiment import ExperimentResult, Methodology

ENDINGS = one_of(*(f".{name}" for name in Format))


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
