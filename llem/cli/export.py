"""llem export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.console import text_output
from llem.cli.options import MethodologyOption, StoreOption, WindowOption, chosen_part
from llem.cli.tables import tables_of
from llem.errors import ExportError
from llem.export import target
from llem.export.files import ENDINGS, Destination, Preset, Wanted, What, format_of, write_export
from llem.export.formats import Format
from llem.store import Store

STDOUT = Path("-")


def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help=f"OUT{ENDINGS}; - for stdout.")],
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
    wanted = Wanted(
        what=what,
        experiment_ids=experiment_ids,
        methodology=part.value,
        window=seconds,
        preset=preset,
        process_breakdown=process_breakdown,
        neutralise=not raw_csv,
    )
    to = Destination(path=out, kind=chosen, force=force, text=text_output if out == STDOUT else None)
    with tables_of(place, only=experiment_ids) as connection:
        write_export(connection, wanted, to, tell=lambda text: console.note(f"llem: {text}"))


def _named(runs: Sequence[str], store: Store) -> list[str] | None:
    """Ids of all that the runs name; None where none is named. Raises StoreError."""
    return [
        experiment_id
        for written in runs
        for run in written.split(",")
        for experiment_id in store.resolve_all(run)
    ] or None


def _format(given: Format | None, output: Path) -> Format:
    chosen = given or (Format.CSV if output == STDOUT else format_of(output))
    if chosen is Format.PARQUET and output == STDOUT:
        raise ExportError("a Parquet file is not for a screen or a pipe", hint="name a file")
    return chosen
