"""llem export."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import duckdb
import typer

from llem.cli import console
from llem.cli.console import text_output
from llem.cli.options import MethodologyOption, StoreOption, WindowOption, chosen_part
from llem.cli.tables import tables_of
from llem.errors import ExportError, QueryError
from llem.export import parquet, target
from llem.export.columns import Column, aggregated_columns
from llem.export.formats import Format
from llem.export.results import RAW, write_parquet, write_records
from llem.export.rows import Window, rows_of, sorted_on_disk, stored_results, write_rows
from llem.projections.derive.late_window import results_for
from llem.registry import one_of
from llem.results.experiment import ExperimentResult, Methodology
from llem.store import Store

STDOUT = Path("-")
_ENDINGS = one_of(*(f".{name}" for name in Format))


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


def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help=f"OUT{_ENDINGS}; - for stdout.")],
    what: Annotated[What, typer.Option(help="What to write.")] = What.RESULTS,
    output_format: Annotated[
        Format | None,
        typer.Option("-f", "--format", help="By default what OUT's name says.", show_default=False),
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option(metavar="RUN[,RUN]", help="Only these: ids, prefixes, names, @last.")
    ] = None,
    methodology: MethodologyOption = None,
    window: WindowOption = None,
    preset: Annotated[
        Preset, typer.Option(help="Columns of results: ours, or LLenergyMeasure's 42 and then ours.")
    ] = Preset.LLEM,
    process_breakdown: Annotated[
        bool, typer.Option("--process-breakdown", help="Four more columns for each process.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    raw_csv: Annotated[
        bool, typer.Option("--raw-csv", help="Leave text that a spreadsheet would run as it is.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write results, processes, samples or requests to a file; the columns never depend on the data."""
    out = STDOUT if target.is_stdout(out) else out
    chosen = _format(output_format, out)
    if out != STDOUT:
        target.check(out.resolve(), force=force)
    part, seconds = chosen_part(methodology, window)
    place = Store.locate(store)
    experiment_ids = _named(runs or (), place)
    with tables_of(place, only=experiment_ids) as connection:
        if what in (What.SAMPLES, What.REQUESTS):
            sql = rows_of(what.value, experiment_ids, window=seconds)  # type: ignore[arg-type]  # narrowed to two of four
            _write_sql(connection, sql, out, chosen, force=force, neutralise=not raw_csv)
            return
        results = list(_results(connection, experiment_ids, part.value, seconds))
    records: Sequence[Any] = results
    columns: Sequence[Column[Any]] = RAW
    if what is What.RESULTS:
        columns = aggregated_columns(results, preset=preset.value, process_breakdown=process_breakdown)
    else:
        records = [process for result in results for process in result.process_results]
    _write_records(records, columns, out, chosen, force=force, neutralise=not raw_csv)


def _named(runs: Sequence[str], store: Store) -> list[str] | None:
    """Ids of all that the runs name; None where none is named. Raises StoreError."""
    return [
        experiment_id
        for written in runs
        for run in written.split(",")
        for experiment_id in store.resolve_all(run)
    ] or None


def _format(given: Format | None, out: Path) -> Format:
    suffix = out.suffix.removeprefix(".").lower()
    if given is None and suffix not in set(Format) and out != STDOUT:
        raise ExportError(f"no format for {out}", expected=f"a name ending in {_ENDINGS}")
    chosen = given or (Format.CSV if out == STDOUT else Format(suffix))
    if chosen is Format.PARQUET and out == STDOUT:
        raise ExportError("a Parquet file is not for a screen or a pipe", hint="name a file")
    return chosen


def _results(
    connection: duckdb.DuckDBPyConnection,
    experiment_ids: Sequence[str] | None,
    methodology: Methodology,
    window: Window | None,
) -> Iterator[ExperimentResult]:
    """Results by id; an experiment without the part that was asked for is told on stderr and left out."""
    for result in stored_results(connection, experiment_ids):
        if methodology == "total":
            yield result
            continue
        try:
            yield results_for(connection, result.experiment_id, methodology=methodology, window_s=window)
        except QueryError as error:
            console.note(f"llem: left out: {error}")


def _write_sql(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    out: Path,
    chosen: Format,
    *,
    force: bool,
    neutralise: bool,
) -> None:
    if chosen is Format.PARQUET:
        with target.replacing(out, force=force) as temporary, sorted_on_disk(connection):
            parquet.copy_to_parquet(connection, sql, temporary)
        return
    with _text(out, force=force) as stream, sorted_on_disk(connection):
        write_rows(stream, connection, sql, kind=chosen, neutralise=neutralise)


def _write_records(
    records: Sequence[Any],
    columns: Sequence[Column[Any]],
    out: Path,
    chosen: Format,
    *,
    force: bool,
    neutralise: bool,
) -> None:
    if chosen is Format.PARQUET:
        with target.replacing(out, force=force) as temporary:
            write_parquet(temporary, records, columns)
        return
    with _text(out, force=force) as stream:
        write_records(stream, records, columns, kind=chosen, neutralise=neutralise)


def _text(out: Path, *, force: bool) -> AbstractContextManager[TextIO]:
    return text_output() if out == STDOUT else target.text_file(out, force=force)
