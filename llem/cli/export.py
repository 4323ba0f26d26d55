"""llem export."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from llem.cli import console
from llem.cli.chosen_runs import Choice, choice
from llem.cli.console import text_output
from llem.cli.options import (
    LabelOption,
    Methodology,
    MethodologyOption,
    NameOption,
    SinceOption,
    StoreOption,
    WindowOption,
    chosen_part,
)
from llem.cli.tables import tables_of
from llem.errors import ExportError
from llem.export import target
from llem.export.files import ENDINGS, Destination, Preset, Wanted, What, check_kind, format_of, write_export
from llem.export.formats import Format
from llem.export.manifest import manifest_path, write_manifest
from llem.seal.bundle import check_bundle, write_bundle
from llem.store import Store

STDOUT = Path("-")
LEAST_STEP_S, MOST_STEP_S = 1e-6, 1e6
_STUDIES = "SELECT DISTINCT study_id FROM study_runs WHERE list_contains($ids, experiment_id) ORDER BY ALL"


def export(
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help=f"OUT{ENDINGS}; - for stdout.", show_default=False),
    ] = None,
    what: Annotated[What, typer.Option(help="What to write.")] = What.RESULTS,
    output_format: Annotated[
        Format | None,
        typer.Option("-f", "--format", help="By default what OUT's name says.", show_default=False),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN[,RUN]", help="Only these: ids, prefixes, names, @last, studies, KEY=VALUE."
        ),
    ] = None,
    label: LabelOption = None,
    name: NameOption = None,
    since: SinceOption = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE", help="Instead of --what any table or view of runs.", show_default=False
        ),
    ] = None,
    manifest: Annotated[
        bool,
        typer.Option("--manifest", help="Write OUT.manifest.json too: digest, runs and columns of OUT."),
    ] = False,
    methodology: MethodologyOption = None,
    window: WindowOption = None,
    preset: Annotated[
        Preset, typer.Option(help="Columns of results: ours, or LLenergyMeasure's 42 and then ours.")
    ] = Preset.LLEM,
    resolution: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Steps of a timeline's counters; 0 for every sample. By default all of few samples, means of many.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead of OUT a folder with the log, all tables, plans and environments of the runs.",
            show_default=False,
        ),
    ] = None,
    process_breakdown: Annotated[
        bool, typer.Option("--process-breakdown", help="Four more columns for each process.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    raw_csv: Annotated[
        bool, typer.Option("--raw-csv", help="Leave text that a spreadsheet would run as it is.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write results, processes, samples, requests or a timeline for Perfetto to a file; the columns never depend on the data."""
    if (out is None) == (bundle is None):
        raise ExportError("llem export", found="both" if out else "neither", expected="OUT, or --bundle DIR")
    place, chosen = Store.locate(store), choice(runs, label, name, since)
    if bundle is not None:
        _write_bundle(bundle, place, chosen)
        return
    assert out is not None
    out = STDOUT if target.is_stdout(out) else out
    kind = _format(output_format, out, what)
    _check_target(out, force=force, manifest=manifest)
    part, seconds = chosen_part(methodology, window)
    check_kind(what, part.value, kind)
    _check_resolution(what, resolution)
    _check_table(table, what, part)
    wanted = Wanted(
        what=what,
        table=table,
        methodology=part.value,
        window=seconds,
        preset=preset,
        process_breakdown=process_breakdown,
        neutralise=not raw_csv,
        resolution_s=resolution,
    )
    to = Destination(path=out, kind=kind, force=force, text=text_output if out == STDOUT else None)
    _write(place, chosen, wanted, to, manifest=manifest)


def _write(place: Store, chosen: Choice, wanted: Wanted, to: Destination, *, manifest: bool) -> None:
    known = chosen.known_ids(place)
    with tables_of(place, only=known) as connection:
        if not chosen.is_of_all:
            ids = known or chosen.ids(connection, place)
            wanted = msgspec.structs.replace(wanted, experiment_ids=ids)
        write_export(connection, wanted, to, tell=lambda text: console.note(f"llem: {text}"))
        if manifest:
            write_manifest(connection, wanted, to)


def _write_bundle(folder: Path, store: Store, chosen: Choice) -> None:
    """The runs that are chosen, and a line about what was written. Raises LlemError."""
    check_bundle(folder)
    with tables_of(store) as connection:
        ids = chosen.ids(connection, store)
        studies = [study for (study,) in connection.execute(_STUDIES, {"ids": ids}).fetchall()]
        manifest = write_bundle(connection, store, folder, ids, studies)
    kept = sum(file.bytes for file in manifest.files.values())
    console.note(
        f"llem: {console.counted(len(ids), 'run')} in {console.counted(len(manifest.files), 'file')}, {kept:,} bytes"
    )


def _check_target(out: Path, *, force: bool, manifest: bool) -> None:
    """Raises ExportError."""
    if out != STDOUT:
        target.check(out.resolve(), force=force)
    elif manifest:
        raise ExportError("--manifest", found="standard output", expected="a file's name")
    if manifest:
        target.check(manifest_path(out), force=force)


def _check_table(table: str | None, what: What, part: Methodology) -> None:
    """Raises ExportError."""
    if table is not None and what is not What.RESULTS:
        raise ExportError("--table", found=f"--what {what}", expected="one of the two")
    if table is not None and part is not Methodology.TOTAL:
        raise ExportError(
            "--table", found=f"--methodology {part}", hint="a table is written as it is: leave that out"
        )


def _check_resolution(what: What, resolution: float | None) -> None:
    """Raises ExportError."""
    if what is not What.TIMELINE and resolution is not None:
        raise ExportError("--resolution", found=f"--what {what}", expected="--what timeline")
    if resolution is not None and not (resolution == 0 or LEAST_STEP_S <= resolution < MOST_STEP_S):
        raise ExportError(
            "--resolution", found=f"{resolution:g} s", expected=f"0, or {LEAST_STEP_S:g} to {MOST_STEP_S:g} s"
        )


def _format(given: Format | None, output: Path, what: What) -> Format:
    usual = Format("json") if what is What.TIMELINE else Format.CSV
    chosen = given or (usual if output == STDOUT else format_of(output))
    if chosen is Format.PARQUET and output == STDOUT:
        raise ExportError("a Parquet file is not for a screen or a pipe", hint="name a file")
    return chosen
