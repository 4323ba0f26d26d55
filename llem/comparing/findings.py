"""Groups of runs compared with the first of them, in the figures that are asked for or were measured, and that in words."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec

from llem.comparing.compared import WITHIN_RUN, Compared, compared_with
from llem.comparing.doubts import (
    WHOLE_RUNS,
    differences_of,
    doubts_of,
    is_other_work,
    other_work,
    run_count,
    tells_of_tokens,
)
from llem.comparing.groups import OF_A_SITE, Group, Run, group_of, rows_of
from llem.errors import QueryError
from llem.factors import factors_for
from llem.projections import footprint
from llem.results.comparison import LEVEL, MARGIN, adjusted
from llem.results.figures import EXPERIMENT_FIGURES, Figure
from llem.results.token_costs import Cost, RunTotals, TokenCosts, token_costs
from llem.store import Store

USUAL = (
    *("energy_per_output_token_j", "total_energy_j", "output_tokens_per_second", "mean_power_w"),
    *("duration_sec", "ttft_median_ms", "itl_median_ms", "e2e_median_ms", "e2e_p95_ms"),
)
# What a program counts that does not tell input from output; nobody asks it where the other is known.
INSTEAD = {
    "avg_energy_per_token_j": "energy_per_output_token_j",
    "tokens_per_second": "output_tokens_per_second",
}
NUMBERS = ("BIGINT", "DOUBLE", "INTEGER")
FIGURES = {figure.name: figure for figure in EXPERIMENT_FIGURES if figure.type in NUMBERS} | OF_A_SITE
LENGTHS = ("workload.input_tokens.", "workload.output_tokens.", "workload.path")
AMOUNTS = ("workload.requests", "workload.min_duration_s", "workload.max_duration_s")


class Findings(NamedTuple):
    """The comparisons of all groups with the first, and what a reader has to know before."""

    groups: list[Group]
    compared: list[Compared]
    differences: dict[str, list[str]]  # plan key -> its values in each group
    doubts: list[str]
    costs: TokenCosts | None  # None: the groups differ in other things than in their lengths

    @property
    def study_id(self) -> str | None:
        """The study that all runs are of; None where there is none."""
        places = [run["study"] for group in self.groups for run in group.runs]
        studies = {json.loads(place)["study_id"] if place else None for place in places}
        return studies.pop() if len(studies) == 1 else None


def compare_groups(
    connection: duckdb.DuckDBPyConnection,
    members: Mapping[str, Sequence[str]],
    *,
    figures: Sequence[str] = (),
    usual: Sequence[str] = USUAL,
    valid_only: bool = False,
    level: float = LEVEL,
    margin: float = MARGIN,
) -> Findings:
    """Compare each group of experiments with the first: in `figures`, or in those of the usual ones that were measured.

    Those of a site need the factors that footprint.state() put there. Raises QueryError.
    """
    chosen = [_figure(name) for name in figures or dict.fromkeys((*usual, *INSTEAD, WITHIN_RUN))]
    groups = [
        group_of(name, rows_of(connection, ids, chosen), valid_only=valid_only)
        for name, ids in members.items()
    ]
    reference, *others = groups
    apart = [group for group in others if is_other_work(reference, group, margin)]
    is_left_out = not figures and bool(apart) and all(map(tells_of_tokens, groups))
    compared = [
        compared_with(reference, group, figure, level=level, margin=margin)
        for group in others
        for figure in chosen
        if figures or _is_usual(figure.name, usual, (*reference.runs, *group.runs))
        if not (is_left_out and figure.name in WHOLE_RUNS)
    ]
    comparisons = adjusted([each.comparison for each in compared], level=level)
    differences = differences_of(groups)
    return Findings(
        groups,
        [each._replace(comparison=judged) for each, judged in zip(compared, comparisons, strict=True)],
        differences,
        [*doubts_of(groups, compared), *other_work(reference, apart, compared, is_left_out=is_left_out)],
        _costs(groups, level) if _differ_in_length(differences) else None,
    )


def state_factors(
    connection: duckdb.DuckDBPyConnection, store: Store, figures: Iterable[str], given: Path | None
) -> None:
    """Put the factors of a file, or of one beside the store, where figures of a site are reckoned with them. Raises QueryError."""
    if given is None and OF_A_SITE.keys().isdisjoint(figures):
        return
    if (factors := factors_for(store.path, given)) is not None:
        footprint.state(connection, factors)


def _is_usual(name: str, usual: Sequence[str], runs: Sequence[Run]) -> bool:
    """Whether a figure was measured at all, and does not only say less well what another says."""

    def is_known(column: str) -> bool:
        return any(run[column] is not None for run in runs)

    if name not in usual and name == WITHIN_RUN:
        return len(runs) == 2 and all(run["batch_means_cv"] is not None for run in runs)
    return is_known(name) and (name in usual or not is_known(INSTEAD[name]))


def _figure(name: str) -> Figure[Any]:
    if name not in FIGURES:
        close = difflib.get_close_matches(name, FIGURES, n=1)
        hint = (
            f"did you mean {close[0]}?"
            if close
            else "docs/figures.md lists those of experiment_results, docs/footprint.md those of a site"
        )
        raise QueryError(f"figure {name}", found="no such number", hint=hint)
    return FIGURES[name]


def _differ_in_length(differences: Mapping[str, Sequence[str]]) -> bool:
    """Whether the groups are one configuration under prompts and answers of different lengths."""
    return any(key.startswith(LENGTHS) for key in differences) and all(
        key.startswith((*LENGTHS, *AMOUNTS)) for key in differences
    )


def _costs(groups: Sequence[Group], level: float) -> TokenCosts:
    totals = [msgspec.convert(run["totals"], RunTotals) for group in groups for run in group.runs]
    return token_costs(totals, level=level)


def remarks(findings: Findings) -> Iterator[str]:
    """What is compared, and what a reader has to know before."""
    runs = "; ".join(f"{group.name}: {run_count(len(group.runs))}" for group in findings.groups)
    yield f"{runs}; all of study {findings.study_id}" if findings.study_id else runs
    for key, values in findings.differences.items():
        yield f"{key}: {' | '.join(values)}"
    if findings.costs is not None:
        yield said_of_costs(findings.costs)
    for doubt in findings.doubts:
        yield f"warning: {doubt}"


def said_of_costs(costs: TokenCosts) -> str:
    """In a sentence."""
    if costs.reason is not None:
        return f"what a token costs cannot be told: {costs.reason}"
    r2 = "" if costs.r2 is None else f", R2 {costs.r2:.4f}"
    told = [
        f"{what} {_interval(cost)} J"
        for what, cost in (
            ("a prompt token", costs.input_token_j),
            ("an output token", costs.output_token_j),
            ("a second of idling", costs.idle_w),
        )
        if cost is not None
    ]
    return f"above idle {told[0]}, {told[1]}; {told[2]} (regression over {run_count(costs.runs)}{r2})"


def _interval(cost: Cost) -> str:
    return f"{cost.value:.3g} [{cost.low:.3g}, {cost.high:.3g}]"
