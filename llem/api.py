"""The store from Python: results as objects, tables of a notebook, comparisons, pages and files, and read-only SQL."""

import html
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import duckdb

from llem.comparing.compared import TYPES, record
from llem.comparing.findings import compare_groups, remarks, state_factors
from llem.comparing.named import named_groups
from llem.errors import ExportError, QueryError
from llem.export import target
from llem.export.files import (
    Destination,
    Preset,
    Wanted,
    What,
    Window,
    format_of,
    stored_results,
    write_export,
)
from llem.export.formats import Format
from llem.projections.current import open_caught_up
from llem.query.process import Limits, Parameter, running
from llem.query.result import QueryResult, html_table, printable
from llem.query.runs import select_runs, started_since_ns
from llem.query.statements import CATALOG
from llem.reporting.making import Page, chosen_study, make_page
from llem.results import ExperimentResult
from llem.results.comparison import LEVEL, MARGIN
from llem.results.experiment import Methodology
from llem.results.figures import EXPERIMENT_FIGURES
from llem.store import Store
from llem.study.history import find_study_id

_log = logging.getLogger("llem")
Runs = str | Sequence[str] | None
FRAME_HEIGHT = 720  # pixels of a report within a notebook


class Results(list[ExperimentResult]):
    """Results, which a notebook draws as a table of the figures that `llem show` shows."""

    def __repr__(self) -> str:
        """Which they are, not all that is in them."""
        return f"<Results: {', '.join(printable(result.experiment_id) for result in self)}>"

    def table(self) -> QueryResult:
        """A row for each result."""
        shown = [figure for figure in EXPERIMENT_FIGURES if figure.shown is not None]
        names = ["experiment_id", "model_name", "valid", *(figure.name for figure in shown)]
        rows = [
            (
                result.experiment_id,
                result.model_name,
                result.valid,
                *(figure.value_of(result) for figure in shown),
            )
            for result in self
        ]
        types = ["VARCHAR", "VARCHAR", "BOOLEAN", *(figure.type for figure in shown)]
        return QueryResult(columns=names, types=types, rows=rows)

    def _repr_html_(self) -> str:
        """Figures below each other and results beside each other, as there are more of the former."""
        table = self.table()
        rows = [(name, *values) for name, *values in zip(table.columns, *table.rows, strict=True)]
        return html_table(["", *map(str, range(len(self)))], rows)


class ReportPage:
    """A page that can be handed out; a notebook shows it in a frame of its own, in which nothing runs."""

    def __init__(self, page: Page) -> None:
        self.html = page.html
        self.runs = page.runs

    def __repr__(self) -> str:
        """How much there is."""
        return f"<ReportPage: {self.runs} runs, {len(self.html):,} characters>"

    def save(self, output: Path | str, *, force: bool = False) -> Path:
        """Write the page to a .html. Raises ExportError."""
        path = _page_path(output, force=force)
        with target.text_file(path, force=force) as file:
            file.write(self.html)
        return path

    def _repr_html_(self) -> str:
        page = html.escape(self.html, quote=True)
        return f'<iframe sandbox srcdoc="{page}" style="width: 100%; height: {FRAME_HEIGHT}px; border: 0"></iframe>'


class OpenStore:
    """A store to read from; nothing stays open between two calls. Every error is an LlemError, whose text is that of the command line."""

    def __init__(self, store: Store) -> None:
        self.path = store.path
        self._store = store

    def __repr__(self) -> str:
        return f"<OpenStore: {self.path}>"

    def query(
        self,
        sql: str,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        limit: int | None = None,
        limits: Limits | None = None,
        unsafe: bool = False,
        factors: Path | str | None = None,
    ) -> QueryResult:
        """Run one reading statement in a child process; `$name` stands for a parameter, `factors` is a file for footprint(). Raises QueryError."""
        with running(
            sql,
            store=self._store,
            parameters=parameters,
            limit=limit,
            limits=limits,
            unsafe=unsafe,
            factors=None if factors is None else Path(factors),
        ) as result:
            rows = list(result.rows())
        return QueryResult(
            columns=[column.name for column in result.columns],
            types=[column.type for column in result.columns],
            rows=rows,
            truncated=result.truncated,
        )

    def tables(self) -> QueryResult:
        """Every table and column that can be asked, with its unit and meaning. Raises QueryError."""
        return self.query(CATALOG)

    def runs(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        since: str | None = None,
        limit: int | None = None,
    ) -> QueryResult:
        """The experiments, the newest first: with all of these labels, of this name (`*` stands for anything), since a time such as 2026-01-31T12:00 (UTC) or 3d. Raises QueryError, StoreError."""
        since_ns = None if since is None else started_since_ns(since, now=datetime.now(UTC))
        pairs = [f"{key}={value}" for key, value in (labels or {}).items()]
        with self._tables() as connection:
            return select_runs(connection, labels=pairs, name=name, since_ns=since_ns, limit=limit)

    def results(self, runs: Runs = None) -> Results:
        """Results of the experiment or experiments named by id, prefix, name or @last, or of all, by id. Raises StoreError."""
        experiment_ids = self._ids(runs)
        with self._tables(experiment_ids) as connection:
            return Results(stored_results(connection, experiment_ids))

    def compare(
        self,
        *groups: str,
        figures: Sequence[str] | str = (),
        within: str | None = None,
        everywhere: bool = False,
        valid_only: bool = False,
        level: float = LEVEL,
        margin: float = MARGIN,
        factors: Path | str | None = None,
    ) -> QueryResult:
        """Each group of runs with the first, as `llem compare` does: RUN, RUN,RUN or KEY=VALUE; `notes` hold what a reader has to know. Raises QueryError, StoreError."""
        if len(groups) < 2:
            raise QueryError("groups to compare", found=len(groups), expected="two or more")
        study_id = None if within is None else find_study_id(self._store, within)
        chosen = [figures] if isinstance(figures, str) else figures
        with self._tables() as connection:
            state_factors(connection, self._store, chosen, None if factors is None else Path(factors))
            members = named_groups(connection, self._store, groups, within=study_id, everywhere=everywhere)
            findings = compare_groups(
                connection, members, figures=chosen, valid_only=valid_only, level=level, margin=margin
            )
        rows = [tuple(record(each)) for each in findings.compared]
        return QueryResult(
            columns=list(TYPES), types=list(TYPES.values()), rows=rows, notes=list(remarks(findings))
        )

    def report(
        self,
        *named: str,
        output: Path | str | None = None,
        title: str | None = None,
        within: str | None = None,
        everywhere: bool = False,
        valid_only: bool = False,
        level: float = LEVEL,
        margin: float = MARGIN,
        factors: Path | str | None = None,
        force: bool = False,
    ) -> ReportPage:
        """The page of a study, or of groups of runs, or of the newest of them, as `llem report` writes it; `output` also saves it. Raises ExportError, QueryError, StoreError."""
        path = None if output is None else _page_path(output, force=force)
        study = chosen_study(self._store, named)
        study_id = None if within is None else find_study_id(self._store, within)
        with self._tables() as connection:
            made = make_page(
                connection,
                self._store,
                study,
                named,
                file_name="report.html" if path is None else path.name,
                title=title,
                within=study_id,
                everywhere=everywhere,
                margin=margin,
                level=level,
                valid_only=valid_only,
                factors=None if factors is None else Path(factors),
            )
        page = ReportPage(made)
        if path is not None:
            page.save(path, force=force)
        return page

    def export(
        self,
        output: Path | str,
        *,
        what: str = "results",
        runs: Runs = None,
        output_format: str | None = None,
        methodology: Methodology | None = None,
        window: Window | None = None,
        preset: str = "llem",
        process_breakdown: bool = False,
        force: bool = False,
    ) -> Path:
        """Write results, raw (processes), samples, requests or a timeline to a file, as `llem export` does. Raises ExportError, QueryError, StoreError."""
        path = Path(output)
        kind = format_of(path) if output_format is None else _one_of(Format, output_format, "format")
        target.check(path.resolve(), force=force)
        part = methodology or ("total" if window is None else "windowed")
        wanted = Wanted(
            what=_one_of(What, what, "what"),
            experiment_ids=self._ids(runs),
            methodology=_one_of(get_args(Methodology), part, "methodology"),
            window=window,
            preset=_one_of(Preset, preset, "preset"),
            process_breakdown=process_breakdown,
        )
        with self._tables(wanted.experiment_ids) as connection:
            write_export(
                connection, wanted, Destination(path=path, kind=kind, force=force), tell=_log.warning
            )
        return path

    def _tables(self, only: Sequence[str] | None = None) -> duckdb.DuckDBPyConnection:
        return open_caught_up(self._store, _log.info, only=only)

    def _ids(self, runs: Runs) -> list[str] | None:
        """Of the experiments that are named; None for all."""
        if runs is None:
            return None
        named = [runs] if isinstance(runs, str) else runs
        return [experiment_id for run in named for experiment_id in self._store.resolve_all(run)]


def _page_path(output: Path | str, *, force: bool) -> Path:
    path = Path(output)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ExportError(f"no page can be written to {path}", expected="a name ending in .html")
    target.check(path.resolve(), force=force)
    return path


def _one_of(kinds: Any, written: str, what: str) -> Any:
    """A member of an enumeration, or one of some words. Raises ExportError."""
    if written not in set(kinds):
        raise ExportError(what, found=repr(written), expected=", ".join(kinds))
    return written if isinstance(kinds, tuple) else kinds(written)


def open_store(path: Path | str | None = None) -> OpenStore:
    """The store at `path`, or that of LLEM_DIR, or ./llem-data. Raises StoreError where there is none."""
    return OpenStore(Store.locate(None if path is None else Path(path)).require())
