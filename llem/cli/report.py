"""llem report."""

from pathlib import Path
from typing import Annotated

import typer

from llem.cli import completing, console
from llem.cli.chosen_runs import study_to_look_in
from llem.cli.options import (
    EverywhereOption,
    FactorsOption,
    InStudyOption,
    LevelOption,
    MarginOption,
    StoreOption,
    ValidOption,
)
from llem.cli.tables import tables_of
from llem.errors import ExportError, QueryError
from llem.export import target
from llem.factors import record as keep_factors
from llem.reporting.making import chosen_study, make_page
from llem.results.comparison import LEVEL, MARGIN
from llem.store import Store


def report(
    named: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STUDY|GROUP...",
            autocompletion=completing.run_or_study,
            help="A study, or groups of runs as in llem compare; the newest study, else the newest run.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The page, a .html.")] = Path(
        "report.html"
    ),
    title: Annotated[str | None, typer.Option(help="Its heading.", show_default=False)] = None,
    margin: MarginOption = MARGIN,
    level: LevelOption = LEVEL,
    within: InStudyOption = None,
    everywhere: EverywhereOption = False,
    valid: ValidOption = False,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each chart into a folder too, as a file for papers."),
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples", help="Put every sample of power into the page, to look closer.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE, and charts in DIR.")] = False,
    factors: FactorsOption = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Keep the factors in the log of every run, so that --factors @RUN answers again."
        ),
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write a page that can be handed out: one file, complete without JavaScript and without a network."""
    if output.suffix.lower() not in (".html", ".htm"):
        raise ExportError(f"no page can be written to {output}", expected="a name ending in .html")
    target.check(output.resolve(), force=force)
    if svg is not None:
        _check_folder(svg)
    place = Store.locate(store).require()
    study_id = study_to_look_in(place, named or [], within=within, everywhere=everywhere)
    study = chosen_study(place, named or [])
    with tables_of(place) as connection:
        made = make_page(
            connection,
            place,
            study,
            named or [],
            file_name=output.name,
            title=title,
            within=study_id,
            everywhere=everywhere,
            margin=margin,
            level=level,
            valid_only=valid,
            with_samples=samples,
            factors=factors,
        )
    if record and made.factors is None:
        raise QueryError(
            "report --record", found="no factors", expected="--factors FILE, or factors.toml beside the store"
        )
    if svg is not None:
        _check_charts(svg, made.charts, force=force)
    with target.text_file(output, force=force) as file:
        file.write(made.html)
    if svg is not None:
        _write_charts(svg, made.charts, force=force)
    console.note(f"llem: {output}: {console.counted(made.runs, 'run')}")
    if record and made.factors is not None:
        keep_factors(place, made.experiment_ids, made.factors, report=output.name, content=made.html)
        console.note("llem: the log of each has its factors")


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is not a folder", expected="a folder, or a name for one")
    if not folder.resolve().parent.is_dir():
        raise ExportError(f"{folder} cannot be made", found=f"no folder {folder.resolve().parent}")


def _check_charts(folder: Path, charts: dict[str, str], *, force: bool) -> None:
    """Raises ExportError where a chart could not be written, so that no page is left without its charts."""
    if folder.is_dir():
        for name in charts:
            target.check(folder / f"{name}.svg", force=force)


def _write_charts(folder: Path, charts: dict[str, str], *, force: bool) -> None:
    """A file for each chart."""
    folder.mkdir(exist_ok=True)
    for name, chart in charts.items():
        with target.text_file(folder / f"{name}.svg", force=force) as file:
            file.write(chart)
    console.note(f"llem: {folder}: {console.counted(len(charts), 'chart')}")
