"""What a page is made of: the runs that are meant, what was found in them, and the commands that make it anew."""

import json
import shlex
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import duckdb

from llem.comparing.findings import Findings, compare_groups
from llem.comparing.groups import Run
from llem.comparing.named import named_groups
from llem.errors import QueryError, StoreError
from llem.factors import Factors, factors_for
from llem.projections import footprint
from llem.reporting.charts import Curves
from llem.reporting.facts import (
    FEW_STEPS,
    STEPS,
    Site,
    all_samples,
    distribution,
    roofline,
    root_digests,
    sensors,
    site_of,
    token_gaps,
    traces,
    while_measured,
)
from llem.reporting.markup import BOUNDS
from llem.reporting.page import page, parts_of
from llem.reporting.report import Drawing, Report
from llem.reporting.svg import alone
from llem.reporting.tables import REPORTED
from llem.reporting.zoom import packed
from llem.results.comparison import LEVEL, MARGIN
from llem.store import LAST, Store
from llem.study.history import StudyHistory, find_study, neither_run_nor_study, read_history, study_ids
from llem_events.secrets import scrub_value

DRAWN_RUNS = 30  # whose power is drawn: one of each group
FEW = 6
NAMED_GROUPS = 4  # in a heading
USUAL_OPTIONS = {"level": LEVEL, "margin": MARGIN}
CHECKED_RUNS = 3  # of which the page writes the command that checks the log


class Page(NamedTuple):
    """A page, and the runs that it is of; its charts by name, each a file of its own; the factors of its footprint."""

    html: str
    experiment_ids: list[str]
    charts: dict[str, str]
    factors: Factors | None

    @property
    def runs(self) -> int:
        return len(self.experiment_ids)


def make_page(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    study: StudyHistory | None,
    named: Sequence[str],
    *,
    file_name: str,
    title: str | None = None,
    within: str | None = None,
    everywhere: bool = False,
    margin: float = MARGIN,
    level: float = LEVEL,
    valid_only: bool = False,
    with_samples: bool = False,
    factors: Path | None = None,
) -> Page:
    """The page of a study, else of groups of runs, without secrets; `file_name` stands in the command that makes it anew.

    `within` and `everywhere` say where a group KEY=VALUE is looked for, as `named_groups` has it. `with_samples` puts every sample of
    power into it; `factors` is a file, by default one beside the store. Raises QueryError.
    """
    members = (
        _cells(study)
        if study
        else _groups(connection, store, named or [LAST], within=within, everywhere=everywhere)
    )
    bounds = [bound for pair in BOUNDS.values() for bound in pair] if len(members) == 1 else []
    findings = compare_groups(
        connection, members, usual=(*REPORTED, *bounds), valid_only=valid_only, level=level, margin=margin
    )
    of_groups = [[*group.values("experiment_id")] for group in findings.groups]
    every_run = list(chain.from_iterable(of_groups))
    chosen = [
        *_chosen(factors=factors.name if factors else None, title=title, level=level, margin=margin),
        *(["--in", within] if within is not None else []),
        *(["--all"] if everywhere else []),
        *(["--valid"] if valid_only else []),
        *(["--samples"] if with_samples else []),
    ]
    site, stated = _site(connection, factors_for(store.path, factors), of_groups)
    runs = _drawn(findings)
    steps = STEPS if len(runs) <= FEW else FEW_STEPS
    drawn = traces(connection, runs, steps=steps)
    report = Report(
        title=title or (study.started.name or study.study_id if study else _title(findings)),
        findings=findings,
        traces=drawn,
        distributions=_distributions(connection, findings),
        margin=margin,
        level=level,
        again=_again([*([study.study_id] if study else members), *chosen, "-o", file_name], findings),
        plan=_plan(study, findings),
        sensors=sensors(connection, every_run),
        site=site,
        roofline=roofline(connection, every_run),
        digests=root_digests(connection, every_run),
        samples=[packed(*all_samples(connection, trace)) for trace in drawn] if with_samples else (),
    )
    parts = list(parts_of(report))
    charts = {part.name: alone(part.svg) for part in parts if isinstance(part, Drawing)}
    return Page(page(report, parts), every_run, charts, stated)


def _plan(study: StudyHistory | None, findings: Findings) -> str | None:
    """That of the study, or of the only run."""
    if study is not None:
        return json.dumps(scrub_value(study.started.plan), indent=1)
    runs = [run for group in findings.groups for run in group.runs]
    if len(runs) > 1 or not runs[0]["plan"]:
        return None
    return json.dumps(scrub_value(json.loads(runs[0]["plan"])), indent=1)


def chosen_study(store: Store, named: Sequence[str]) -> StudyHistory | None:
    """The study that is meant, without any the newest in which anything was measured; None where runs are."""
    if not named or list(named) == [LAST]:
        histories = (read_history(store, study_id) for study_id in reversed(study_ids(store)))
        return next((history for history in histories if history.cells()), None)
    if len(named) > 1 or "=" in named[0] or "," in named[0]:
        return None
    try:
        return find_study(store, named[0])
    except StoreError:
        return None


def _cells(history: StudyHistory) -> dict[str, list[str]]:
    """Name of each cell -> its runs. Raises QueryError where nothing was measured."""
    members = history.cells()
    if not members:
        raise QueryError(
            f"study {history.study_id}",
            found="no run that was measured to its end",
            hint=f"`llem study --resume {history.study_id}` goes on; `llem studies` lists the others",
        )
    return members


def _groups(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    named: Sequence[str],
    *,
    within: str | None,
    everywhere: bool,
) -> dict[str, list[str]]:
    """Groups of runs; one that is named as a run goes by its id. One name alone might have been a study's. Raises QueryError and StoreError."""
    try:
        members = named_groups(connection, store, named, within=within, everywhere=everywhere)
    except StoreError as error:
        if len(named) > 1:
            raise
        raise neither_run_nor_study(store, named[0], error) from None
    return {runs[0] if len(runs) == 1 and "=" not in name else name: runs for name, runs in members.items()}


def _drawn(findings: Findings) -> list[str]:
    """Runs whose power is drawn: the first of each group, which others of it resemble."""
    return [group.runs[0]["experiment_id"] for group in findings.groups[:DRAWN_RUNS]]


def _distributions(connection: duckdb.DuckDBPyConnection, findings: Findings) -> dict[str, dict[str, Curves]]:
    """Series -> group -> its curves, where it was measured."""
    curves: dict[str, dict[str, Curves]] = {series: {} for series in ("ttft_ms", "itl_ms", "e2e_ms")}
    for group in findings.groups:
        runs = group.values("experiment_id")
        for series in curves:
            measured = (
                token_gaps(connection, runs) if series == "itl_ms" else distribution(connection, runs, series)
            )
            if measured is not None:
                curves[series][group.name] = measured
    return curves


def _title(findings: Findings) -> str:
    """The name or the model of the only run, or the names of the groups."""
    runs = [run for group in findings.groups for run in group.runs]
    if len(runs) == 1 and (name := _name(runs[0])):
        return name
    names = [group.name for group in findings.groups]
    more = [f"{len(names) - NAMED_GROUPS + 1} more"] if len(names) > NAMED_GROUPS else []
    *others, last = [*names[: NAMED_GROUPS - len(more)], *more]
    return " and ".join(filter(None, (", ".join(others), last)))


def _name(run: Run) -> str | None:
    named = json.loads(run["plan"]).get("name") if run["plan"] else None
    name = named or run["model_name"]
    return None if name is None else str(name)


def _site(
    connection: duckdb.DuckDBPyConnection, stated: Factors | None, groups: Sequence[Sequence[str]]
) -> tuple[Site | None, Factors | None]:
    """The footprint of each group, and the factors that it is reckoned with; nothing where none were stated."""
    if stated is None:
        return None, None
    footprint.state(connection, stated)
    return site_of(connection, stated, groups), while_measured(connection, stated, [*chain(*groups)])


def _chosen(**options: str | float | None) -> Iterator[str]:
    """Options of the command that are not as they are without it."""
    for name, value in options.items():
        if value is not None and value != USUAL_OPTIONS.get(name):
            yield from (f"--{name}", f"{value:g}" if isinstance(value, float) else value)


def _again(asked: Sequence[str], findings: Findings) -> list[str]:
    """The commands that check and make the page anew."""
    runs = [run["experiment_id"] for group in findings.groups for run in group.runs]
    return [
        *(f"llem log {check} {run}" for run in runs[:CHECKED_RUNS] for check in ("verify", "digest")),
        "llem rebuild --check",
        shlex.join(["llem", "report", *asked]),
    ]
