"""What a page is made of: the runs that are meant, what was found in them, and the commands that make it anew."""

import json
import shlex
from collections.abc import Sequence
from typing import NamedTuple

import duckdb

from llem.comparing import Findings, compare_groups, named_groups
from llem.errors import QueryError, StoreError
from llem.report.facts import distribution, traces
from llem.report.page import REPORTED, Report, page
from llem.results.comparison import LEVEL, MARGIN
from llem.store import LAST, Store
from llem.study.history import StudyHistory, find_study, study_ids
from llem_events.secrets import scrub, scrub_value

DRAWN_RUNS = 30  # whose power is drawn: one of each group
SERIES = ("ttft_ms", "e2e_ms")
CHECKED_RUNS = 3  # of which the page writes the command that checks the log


class Page(NamedTuple):
    """A page, and how many runs it is of."""

    html: str
    runs: int


def make_page(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    study: StudyHistory | None,
    named: Sequence[str],
    *,
    file_name: str,
    title: str | None = None,
    margin: float = MARGIN,
    level: float = LEVEL,
    valid_only: bool = False,
) -> Page:
    """The page of a study, else of groups of runs, without secrets; `file_name` stands in the command that makes it anew. Raises QueryError."""
    members = _cells(study) if study else _groups(connection, store, named or [LAST])
    findings = compare_groups(
        connection, members, usual=REPORTED, valid_only=valid_only, level=level, margin=margin
    )
    written = Report(
        title=title or (study.started.name or study.study_id if study else _title(findings)),
        findings=findings,
        traces={run: traces(connection, run) for run in _drawn(findings)},
        distributions=_distributions(connection, findings),
        margin=margin,
        level=level,
        again=_again([study.study_id] if study else [*members], findings, file_name),
        plan=json.dumps(scrub_value(study.started.plan), indent=1) if study else None,
    )
    return Page(scrub(page(written)), sum(len(group.runs) for group in findings.groups))


def chosen_study(store: Store, named: Sequence[str]) -> StudyHistory | None:
    """The study that is meant; None where runs are."""
    if not named:
        return find_study(store, LAST) if study_ids(store) else None
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
        raise QueryError(f"study {history.study_id}", found="no run that was measured to its end")
    return members


def _groups(
    connection: duckdb.DuckDBPyConnection, store: Store, named: Sequence[str]
) -> dict[str, list[str]]:
    """Groups of runs; one that is named as a run goes by its id."""
    members = named_groups(connection, store, named)
    return {runs[0] if len(runs) == 1 and "=" not in name else name: runs for name, runs in members.items()}


def _drawn(findings: Findings) -> list[str]:
    """Runs whose power is drawn: the first of each group, which others of it resemble."""
    return [group.runs[0]["experiment_id"] for group in findings.groups[:DRAWN_RUNS]]


def _distributions(
    connection: duckdb.DuckDBPyConnection, findings: Findings
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    return {
        series: {
            group.name: distribution(connection, group.values("experiment_id"), series)
            for group in findings.groups
        }
        for series in SERIES
    }


def _title(findings: Findings) -> str:
    """The model of the only run, or the names of the groups."""
    runs = [run for group in findings.groups for run in group.runs]
    if len(runs) == 1 and runs[0]["model_name"]:
        return str(runs[0]["model_name"])
    return " and ".join(group.name for group in findings.groups)


def _again(words: Sequence[str], findings: Findings, file_name: str) -> list[str]:
    """The commands that check and make the page anew."""
    runs = [run["experiment_id"] for group in findings.groups for run in group.runs]
    return [
        *(f"llem log verify {run}" for run in runs[:CHECKED_RUNS]),
        "llem rebuild --check",
        shlex.join(["llem", "report", *words, "-o", file_name]),
    ]
