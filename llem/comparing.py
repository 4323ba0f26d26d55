"""Groups of runs as people name them, the figures in which they are compared, and what else differs between them."""

import difflib
import functools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec

from llem.errors import QueryError, StoreError
from llem.factors_log import factors_for
from llem.projections import footprint
from llem.results.batch_means import PARTS
from llem.results.comparison import LEVEL, MARGIN, Comparison, adjusted, compare, outliers, within_runs
from llem.results.figures import EXPERIMENT_FIGURES, Figure
from llem.results.token_costs import Cost, RunTotals, TokenCosts, token_costs
from llem.sql import rows_by_name
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
OF_A_SITE = {figure.name: figure for figure in footprint.FIGURES}
FIGURES = {figure.name: figure for figure in EXPERIMENT_FIGURES if figure.type in NUMBERS} | OF_A_SITE
# What a sensor's error makes wrong by the same share.
ENERGIES = frozenset(
    ("total_energy_j", "avg_energy_per_token_j", "energy_per_output_token_j", "mean_power_w", *OF_A_SITE)
) - {"embodied_carbon_g"}
OF_ENERGY = frozenset(("J", "1/J", "W", "kWh", "1/kWh"))  # units of what comes from a sensor, or is estimated
SET_POWER = "power_limit_set_w"  # which nobody measured
WHOLE_RUNS = ("total_energy_j", "duration_sec")  # of which more work takes more
PER_TOKEN = ("energy_per_output_token_j", "avg_energy_per_token_j")  # what is compared instead
WITHIN_RUN = "e2e_mean_ms"  # the figure of which a run's own spread is known: llem.results.batch_means
ALIKE = 0.5  # correlation of neighbouring parts of a run from which on these are too short
BLOCK = "block"  # the label by which runs that are of no study are compared in pairs
NOT_COMPARED = frozenset(("name", "labels"))
SHOWN_VALUES = 4
SENSED = frozenset(("counter", "integrated"))
UNKNOWN = "unknown"  # source of an energy that another program measured and does not tell of
LENGTHS = ("workload.input_tokens.", "workload.output_tokens.", "workload.path")
AMOUNTS = ("workload.requests", "workload.min_duration_s", "workload.max_duration_s")

_RUNS = """
SELECT e.experiment_id, e.status, (SELECT any_value(body ->> 'failure') FROM events v
        WHERE v.experiment_id = e.experiment_id AND v.type = 'experiment_completed') AS failure, coalesce(e.labels, MAP {{}}) AS labels, e.plan, array_to_string(e.command, ' ') AS command,
       r.model_name, r.batch_means_cv, r.batch_means_lag1, r.valid, r.invalid_reasons, r.warnings, r.start_ns, r.energy_source, r.energy_uncertainty_j / r.total_energy_j AS energy_bound,
       e.llem_version, r.engine, r.engine_version, r.gpu_name, r.driver_version, r.cuda_version,
       (SELECT string_agg(DISTINCT host, ', ' ORDER BY host) FROM processes p WHERE p.experiment_id = e.experiment_id) AS host,
       (SELECT string_agg(DISTINCT prompt_set_sha256, ', ' ORDER BY prompt_set_sha256) FROM processes p WHERE p.experiment_id = e.experiment_id) AS prompts,
       (SELECT any_value(body -> 'study') FROM events v
        WHERE v.experiment_id = e.experiment_id AND v.type = 'experiment_started') AS study,
       {{'requests': r.requests, 'tokens': r.total_tokens, 'input_tokens': r.input_tokens, 'output_tokens': r.output_tokens, 'duration_sec': r.duration_sec, 'energy_j': r.total_energy_j,
         'idle_power_w': coalesce(r.server_idle_power_w, r.baseline_power_w)}} AS totals,
       {figures}
FROM experiments e LEFT JOIN experiment_results r USING (experiment_id) {joined}
WHERE list_contains($ids, e.experiment_id)
"""
ENVIRONMENT = (
    "host",
    "gpu_name",
    "driver_version",
    "cuda_version",
    "engine",
    "engine_version",
    "llem_version",
)

TYPES = {
    **dict.fromkeys(("group", "figure", "unit"), "VARCHAR"),
    **dict.fromkeys(("reference_runs", "runs"), "BIGINT"),
    **dict.fromkeys(("reference", "value", "ratio", "ratio_low", "ratio_high"), "DOUBLE"),
    **dict.fromkeys(("p", "p_adjusted"), "DOUBLE"),
    **dict.fromkeys(("method", "verdict"), "VARCHAR"),
    "within_margin": "BOOLEAN",
    "reason": "VARCHAR",
    "repeats_needed": "BIGINT",
    **dict.fromkeys(("energy_bound", "within_run_low", "within_run_high"), "DOUBLE"),
    "outliers": "VARCHAR[]",
    "energy_source": "VARCHAR",
}  # of a comparison in rows: column -> DuckDB's type, whatever is NULL in them
COLUMNS = tuple(TYPES)


Run = dict[str, Any]  # a row of the tables, by column


class Group(NamedTuple):
    """Runs that count as one."""

    name: str
    runs: list[Run]
    left_out: list[Run]  # failed, or not measured to their end

    def values(self, column: str) -> list[Any]:
        """Of every run."""
        return [run[column] for run in self.runs]


class Compared(NamedTuple):
    """One figure of one group beside that of the reference."""

    group: str
    figure: Figure[Any]
    comparison: Comparison
    energy_bound: float | None  # what the sensors may be off by, as a share; NULL where unknown, or no energy
    energy_source: str | None  # counter, integrated, estimated, simulated or unknown; NULL of no energy
    within_run: (
        tuple[float, float] | None
    )  # of one run each, the ratio's interval by the spread within them: not from run to run
    outliers: list[
        str
    ]  # runs of either group that are far from the others of theirs: marked, and never left out

    @property
    def is_worse(self) -> bool:
        """Whether the difference is one that nobody wants."""
        return self.comparison.verdict == {"lower": "higher", "higher": "lower"}.get(self.figure.better or "")


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


def named_groups(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    named: Sequence[str],
    *,
    within: str | None = None,
    everywhere: bool = False,
) -> dict[str, list[str]]:
    """Name -> experiments of groups as people write them: RUN, RUN,RUN or KEY=VALUE.

    A KEY is looked for in the runs that count of the study `within`; else in those of the newest study that varies it, unless
    `everywhere`; else in all runs. Raises QueryError and StoreError.
    """
    # runs that are named by their ids need no look at all others
    experiments = functools.cache(lambda: _experiments(connection))

    @functools.cache
    def plans(key: str) -> _Plans:
        return _Plans(_scope(experiments(), key, within=within, everywhere=everywhere))

    ids = [
        plans(name.partition("=")[0]).matching(name) if "=" in name else _of_runs(store, name)
        for name in named
    ]
    _check_apart(named, ids)
    return dict(zip(named, ids, strict=True))


def state_factors(
    connection: duckdb.DuckDBPyConnection, store: Store, figures: Iterable[str], given: Path | None
) -> None:
    """Put the factors of a file, or of one beside the store, where figures of a site are reckoned with them. Raises QueryError."""
    if given is None and OF_A_SITE.keys().isdisjoint(figures):
        return
    if (factors := factors_for(store.path, given)) is not None:
        footprint.state(connection, factors)


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
        _group(name, _rows(connection, ids, chosen), valid_only=valid_only) for name, ids in members.items()
    ]
    reference, *others = groups
    apart = [group for group in others if _is_other_work(reference, group, margin)]
    is_left_out = not figures and bool(apart) and all(map(_tells_of_tokens, groups))
    compared = [
        _compared(reference, group, figure, level=level, margin=margin)
        for group in others
        for figure in chosen
        if figures or _is_usual(figure.name, usual, (*reference.runs, *group.runs))
        if not (is_left_out and figure.name in WHOLE_RUNS)
    ]
    comparisons = adjusted([each.comparison for each in compared], level=level)
    differences = _differences(groups)
    return Findings(
        groups,
        [each._replace(comparison=judged) for each, judged in zip(compared, comparisons, strict=True)],
        differences,
        [*_doubts(groups, compared), *_other_work(reference, apart, compared, is_left_out=is_left_out)],
        _costs(groups, level) if _differ_in_length(differences) else None,
    )


def _is_usual(name: str, usual: Sequence[str], runs: Sequence[Run]) -> bool:
    """Whether a figure was measured at all, and does not only say less well what another says."""

    def is_known(column: str) -> bool:
        return any(run[column] is not None for run in runs)

    if name not in usual and name == WITHIN_RUN:
        return len(runs) == 2 and all(run["batch_means_cv"] is not None for run in runs)
    return is_known(name) and (name in usual or not is_known(INSTEAD[name]))


def _is_other_work(reference: Group, group: Group, margin: float) -> bool:
    """Whether one did more than the other by more than a difference that does not matter."""
    means = _work((reference, group))[1]
    return None not in means and abs(means[1] / means[0] - 1) > margin


def _work(groups: Sequence[Group]) -> tuple[str, list[Any]]:
    """Requests of a run of each group, else tokens where the first two do not tell requests; None where a run does not tell."""
    for column in ("requests", "tokens"):
        means = [_mean([run["totals"][column] for run in group.runs]) for group in groups]
        if None not in means[:2]:
            break
    return column, means


def _mean(counts: Sequence[int | None]) -> float | None:
    known = [count for count in counts if count]
    return sum(known) / len(known) if len(known) == len(counts) else None


def _tells_of_tokens(group: Group) -> bool:
    """Whether some figure says what a token took."""
    return any(run[per_token] is not None for per_token in PER_TOKEN for run in group.runs)


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


def _of_runs(store: Store, written: str) -> list[str]:
    runs = [run for run in written.split(",") if run]
    if not runs:
        raise QueryError("a group of runs", found=repr(written), expected="RUN, RUN,RUN or KEY=VALUE")
    return list(dict.fromkeys(found for run in runs for found in _resolved(store, run)))


def _resolved(store: Store, run: str) -> list[str]:
    try:
        return store.resolve_all(run)
    except StoreError as error:
        expected = "an id, a prefix of it, a name, @last, or KEY=VALUE of a label or the plan"
        raise StoreError(error.what, found=error.found, expected=expected, hint=error.hint) from None


def _check_apart(named: Sequence[str], ids: Sequence[Sequence[str]]) -> None:
    seen: dict[str, str] = {}
    for name, members in zip(named, ids, strict=True):
        for member in members:
            if member in seen:
                raise QueryError(
                    f"run {member}", found=f"in {seen[member]} and in {name}", expected="a run in one group"
                )
            seen[member] = name


class _Experiment(NamedTuple):
    """What tells an experiment from others."""

    labels: dict[str, str]
    plan: str | None
    study_id: str | None  # of which it is a run that counts
    cell: dict[str, Any]

    def varies(self, key: str) -> bool:
        """Whether its study measures several values of this key."""
        return any(key in (name, name.rpartition(".")[2]) for name in self.cell)


def _experiments(connection: duckdb.DuckDBPyConnection) -> dict[str, _Experiment]:
    """All of them, the oldest first."""
    rows = connection.execute(
        "SELECT experiment_id, coalesce(labels, MAP {}), plan, study_id, cell FROM experiments"
        " LEFT JOIN (FROM study_runs WHERE counted) USING (experiment_id) ORDER BY started_ns, experiment_id"
    ).fetchall()
    return {
        run: _Experiment(labels, plan, study_id, json.loads(cell) if cell else {})
        for run, labels, plan, study_id, cell in rows
    }


def _scope(
    experiments: Mapping[str, _Experiment], key: str, *, within: str | None, everywhere: bool
) -> dict[str, _Experiment]:
    """Those among which a value of the key is looked for. Raises QueryError for a study of which no run counts."""
    varying = (each.study_id for each in experiments.values() if each.study_id and each.varies(key))
    study_id = within or (None if everywhere else max(varying, default=None))
    if study_id is None:
        return dict(experiments)
    scope = {run: each for run, each in experiments.items() if each.study_id == study_id}
    if not scope:
        raise QueryError(f"study {study_id}", found="no run that counts")
    return scope


class _Plans:
    """Labels and plans of some experiments, to find those in which a key has a value."""

    def __init__(self, experiments: Mapping[str, _Experiment]) -> None:
        self._labels = {run: each.labels for run, each in experiments.items()}
        self._plans = {run: flat_plan(each.plan) for run, each in experiments.items()}

    def matching(self, written: str) -> list[str]:
        """Experiments with this label, or whose plan says this. Raises QueryError for an unknown key or value."""
        key, _, value = written.partition("=")
        values = self._values(key)
        found = [run for run, known in values.items() if _is_same(known, value)]
        if not found:
            others = ", ".join(list(dict.fromkeys(values.values()))[:SHOWN_VALUES])
            raise QueryError(f"runs with {written}", found="none", expected=f"a value of {key}: {others}")
        return found

    def _values(self, key: str) -> dict[str, str]:
        if any(key in labels for labels in self._labels.values()):
            return {run: labels[key] for run, labels in self._labels.items() if key in labels}
        name = self._whole_key(key)
        return {run: plan[name] for run, plan in self._plans.items() if name in plan}

    def _whole_key(self, key: str) -> str:
        """The key of the plan that is meant: itself, or the only one with this last part, or the only such one that varies."""
        values: dict[str, set[str]] = {}
        for plan in self._plans.values():
            for name, value in plan.items():
                if key in (name, name.rpartition(".")[2]):
                    values.setdefault(name, set()).add(value)
        varying = [name for name, seen in values.items() if len(seen) > 1]
        for candidates in ([key] if key in values else [], values, varying):
            if len(candidates) == 1:
                return next(iter(candidates))
        raise QueryError(
            f"key {key}",
            found=", ".join(sorted(values)) or "neither a label nor a key of any plan",
            expected="a label, a key of the plan such as engine.batch_size, or its last part where only one is meant",
        )


def _is_same(known: str, written: str) -> bool:
    """Whether two texts are one value: 4 is 4.0."""
    try:
        return known == written or float(known) == float(written)
    except ValueError:
        return False


def flat_plan(plan: str | None) -> dict[str, str]:
    """Dotted key -> value as one would write it; nothing for an experiment without a plan."""
    return dict(_flat(json.loads(plan))) if plan else {}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)


def _rows(
    connection: duckdb.DuckDBPyConnection, ids: Sequence[str], figures: Sequence[Figure[Any]]
) -> list[Run]:
    """The experiments in the order of `ids`."""
    columns = [
        f"{'f' if figure.name in OF_A_SITE else 'r'}.{figure.name} AS {figure.name}" for figure in figures
    ]
    joined = ""
    if any(figure.name in OF_A_SITE for figure in figures):
        columns.append("f.reason AS site_reason")
        joined = "LEFT JOIN footprint() f USING (experiment_id)"
    sql = _RUNS.format(figures=", ".join(columns), joined=joined)
    found = rows_by_name(connection.execute(sql, {"ids": list(ids)}))
    rows = {row["experiment_id"]: row for row in found}
    return [rows[run] for run in ids if run in rows]


def _group(name: str, runs: Sequence[Run], *, valid_only: bool) -> Group:
    """The runs that were measured to their end. Raises QueryError where there is none."""
    complete = [run for run in runs if run["status"] == "completed" and run["failure"] is None]
    kept = [run for run in complete if run["valid"] or not valid_only]
    if not kept:
        found = "no valid run" if complete else "no completed run"
        raise QueryError(f"group {name}", found=found, hint="`llem runs` lists them")
    return Group(name, kept, [run for run in runs if run not in complete])


def _pairs(reference: Group, group: Group) -> list[tuple[Run, Run]] | None:
    """Runs of the same block, where every run of both has one of its own; None where they cannot be paired."""
    varied = _varied(reference, group)
    blocks = [{_block(run, varied): run for run in each.runs} for each in (reference, group)]
    if any(
        None in each or len(each) < len(side.runs)
        for each, side in zip(blocks, (reference, group), strict=True)
    ):
        return None
    first, second = blocks
    return [(first[block], second[block]) for block in first if block in second] or None


def _varied(reference: Group, group: Group) -> set[str]:
    """The keys of a study's cells that do not have the same values in both groups."""
    cells = [[_cell(run) for run in each.runs] for each in (reference, group)]
    keys = {key for members in cells for cell in members for key in cell}
    first, second = (
        {key: {json.dumps(cell.get(key)) for cell in members} for key in keys} for members in cells
    )
    return {key for key in keys if first[key] != second[key]}


def _cell(run: Run) -> dict[str, Any]:
    return dict(json.loads(run["study"])["cell"]) if run["study"] else {}


def _block(run: Run, varied: Collection[str]) -> str | None:
    """The block of its study and what else of its cell is alike in both groups; of no study, its label."""
    if run["study"] is None:
        label: str | None = run["labels"].get(BLOCK)
        return label
    study = json.loads(run["study"])
    alike = {key: value for key, value in study["cell"].items() if key not in varied}
    return json.dumps([study["study_id"], study.get("block", 0), alike], sort_keys=True)


def _compared(
    reference: Group, group: Group, figure: Figure[Any], *, level: float, margin: float
) -> Compared:
    pairs = _pairs(reference, group)
    before = [run for run, _ in pairs] if pairs else reference.runs
    after = [run for _, run in pairs] if pairs else group.runs
    comparison = compare(
        [run[figure.name] for run in before],
        [run[figure.name] for run in after],
        paired=pairs is not None,
        level=level,
        margin=margin,
    )
    bounds = [run["energy_bound"] for run in (*before, *after)]
    bound = None if figure.name not in ENERGIES or None in bounds else max(bounds)
    source = energy_source(figure, [*before, *after])
    within = _within_run(figure, comparison, [*before, *after], level)
    far = [*_far_from_the_others(reference, figure.name), *_far_from_the_others(group, figure.name)]
    return Compared(group.name, figure, comparison, bound, source, within, far)


def energy_source(figure: Figure[Any], runs: Sequence[Run]) -> str | None:
    """Where the energy behind a figure comes from, in the words of the tables; None of a figure of no energy, or where none was measured."""
    if figure.name == SET_POWER or (figure.unit not in OF_ENERGY and figure.name not in ENERGIES):
        return None
    sources = {run["energy_source"] or UNKNOWN for run in runs if run[figure.name] is not None}
    return ", ".join(sorted(sources)) or None


def not_sensed(source: str | None) -> str:
    """What has to stand beside an energy that no sensor told; nothing beside another one."""
    return "" if source is None or set(source.split(", ")) <= SENSED else source


def _within_run(
    figure: Figure[Any], comparison: Comparison, runs: Sequence[Run], level: float
) -> tuple[float, float] | None:
    cvs = [run["batch_means_cv"] for run in runs]
    if figure.name != WITHIN_RUN or comparison.ratio is None or len(cvs) != 2 or None in cvs:
        return None
    return within_runs(comparison.ratio, (cvs[0], cvs[1]), parts=PARTS, level=level)


def _differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Keys of the plan, and the wrapped command, that do not have the same values in every group; of imported runs only that they have none."""
    has_plans = [any(flat_plan(run["plan"]) for run in group.runs) for group in groups]
    if not all(has_plans):
        return {"plan": ["llem's" if known else "none" for known in has_plans]} if any(has_plans) else {}
    plans = [
        [flat_plan(run["plan"]) | {"command": run["command"] or ""} for run in group.runs] for group in groups
    ]
    keys = sorted({key for members in plans for plan in members for key in plan})
    found = {}
    for key in keys:
        if key.partition(".")[0] in NOT_COMPARED:
            continue
        values = [list(dict.fromkeys(plan.get(key, "") for plan in members)) for members in plans]
        if any(set(each) != set(values[0]) for each in values):
            found[key] = [_listed(each) for each in values]
    return found


def _differ_in_length(differences: Mapping[str, Sequence[str]]) -> bool:
    """Whether the groups are one configuration under prompts and answers of different lengths."""
    return any(key.startswith(LENGTHS) for key in differences) and all(
        key.startswith((*LENGTHS, *AMOUNTS)) for key in differences
    )


def _costs(groups: Sequence[Group], level: float) -> TokenCosts:
    totals = [msgspec.convert(run["totals"], RunTotals) for group in groups for run in group.runs]
    return token_costs(totals, level=level)


def _doubts(groups: Sequence[Group], compared: Sequence[Compared]) -> Iterator[str]:
    """What makes a comparison say less than it seems to."""
    for group in groups:
        if group.left_out:
            ends = [f"{run['experiment_id']} ({run['failure'] or run['status']})" for run in group.left_out]
            yield f"{group.name}: left out, because it failed or was not measured to its end: {_listed(ends)}"
        if invalid := [run for run in group.runs if not run["valid"] and not is_unjudged(run)]:
            yield f"{group.name}: not valid: {_why(invalid, group)}"
        if unjudged := [run for run in group.runs if is_unjudged(run)]:
            yield f"{group.name}: not judged, as results of other programs are: {_runs(len(unjudged))}"
    yield from _mixed(groups, "energy_source", "energy comes from different sources", instead=UNKNOWN)
    if any(not _has_same_prompts(groups[0], group) for group in groups[1:]):
        yield "the prompts are not the same"
    for column in ENVIRONMENT:
        yield from _mixed(groups, column, f"{column} differs")
    methods = {each.comparison.method for each in compared}
    if "welch" in methods:
        yield f"not paired: a drift between the groups counts as a difference; runs with a label {BLOCK} are compared in pairs"
    yield from _without_factors(groups, compared)
    yield from _too_narrow(groups, compared)
    yield from _unpaired(groups)
    yield from _outliers(groups, compared)


def is_unjudged(run: Run) -> bool:
    """Whether nothing is said for or against it, because another program measured it."""
    return run["valid"] is None and run["start_ns"] is not None


def _other_work(
    reference: Group, apart: Sequence[Group], compared: Sequence[Compared], *, is_left_out: bool
) -> Iterator[str]:
    """That runs of a group did more than those of another, where figures of whole runs are compared or would have been."""
    if apart and (is_left_out or any(each.figure.name in WHOLE_RUNS for each in compared)):
        what, means = _work((reference, *apart))
        first, *others = (UNKNOWN if mean is None else f"{mean:,.5g}" for mean in means)
        beside = ", ".join(f"{mean} of {group.name}" for mean, group in zip(others, apart, strict=True))
        meaning = "are not compared" if is_left_out else "do not tell which takes less"
        yield (
            f"the work is not the same: {first} {what} a run of {reference.name}, {beside}: "
            f"energy and duration of whole runs {meaning}"
        )


def _why(invalid: Sequence[Run], group: Group) -> str:
    """The first reason against the first of them, and how many others there are."""
    reasons = invalid[0]["invalid_reasons"] or ["no result"]
    said = f"{reasons[0]}{f' and {len(reasons) - 1} more' if len(reasons) > 1 else ''}"
    if len(group.runs) == 1:
        return said
    others = f" and {len(invalid) - 1} more of {_runs(len(group.runs))}" if len(invalid) > 1 else ""
    return f"{invalid[0]['experiment_id']} ({said}){others}"


def _without_factors(groups: Sequence[Group], compared: Sequence[Compared]) -> Iterator[str]:
    """Why a figure of a site is not known."""
    names = {each.figure.name for each in compared} & OF_A_SITE.keys()
    for name in sorted(names):
        reasons = {run["site_reason"] for group in groups for run in group.runs if run[name] is None}
        for reason in sorted(filter(None, reasons)):
            yield f"{name}: {reason}"


def _too_narrow(groups: Sequence[Group], compared: Sequence[Compared]) -> Iterator[str]:
    """Runs whose own spread says less than it seems to."""
    if any(each.within_run for each in compared):
        for run in (run for group in groups for run in group.runs if len(group.runs) == 1):
            if (run["batch_means_lag1"] or 0.0) > ALIKE:
                yield f"{run['experiment_id']} drifts, or is too short: its interval within the run is too narrow"


def _mixed(groups: Sequence[Group], column: str, what: str, *, instead: str | None = None) -> Iterator[str]:
    """More than one value, between the groups or within one; `instead` of a NULL beside an energy."""
    values = [
        sorted({str(value) for run in group.runs if (value := run[column] or _stated(run, instead))})
        for group in groups
    ]
    if len({value for each in values for value in each}) > 1:
        said = "; ".join(f"{group.name}: {_listed(each)}" for group, each in zip(groups, values, strict=True))
        yield f"{what}: {said}"


def _stated(run: Run, instead: str | None) -> str | None:
    return None if run["totals"]["energy_j"] is None else instead


def _has_same_prompts(reference: Group, group: Group) -> bool:
    """Of both runs of each pair, where runs are compared in pairs; else of the groups."""
    if pairs := _pairs(reference, group):
        return all(before["prompts"] == after["prompts"] for before, after in pairs)
    return set(reference.values("prompts")) == set(group.values("prompts"))


def _unpaired(groups: Sequence[Group]) -> Iterator[str]:
    """Runs of a block that the other group lacks."""
    reference = groups[0]
    for group in groups[1:]:
        if pairs := _pairs(reference, group):
            kept = {run["experiment_id"] for pair in pairs for run in pair}
            left = [
                run
                for run in (*reference.values("experiment_id"), *group.values("experiment_id"))
                if run not in kept
            ]
            if left:
                yield f"{group.name}: left out, because the block has no partner: {_listed(left)}"


def _far_from_the_others(group: Group, figure: str) -> list[str]:
    known = [run for run in group.runs if run[figure] is not None]
    return [known[place]["experiment_id"] for place in outliers([run[figure] for run in known])]


def _outliers(groups: Sequence[Group], compared: Sequence[Compared]) -> Iterator[str]:
    """Each run that is far from the others of its group, with the figures in which it is."""
    figures = {each.figure.name: each.figure for each in compared}
    for group in groups:
        found: dict[str, list[str]] = {}
        for name, figure in figures.items():
            for run in _far_from_the_others(group, name):
                found.setdefault(run, []).append(figure.shown or name)
        for run, names in found.items():
            yield f"{group.name}: {run} is far from the other runs in {', '.join(names)}"


def _listed(values: Iterable[str]) -> str:
    found = list(values)
    more = f" and {len(found) - SHOWN_VALUES} more" if len(found) > SHOWN_VALUES else ""
    return ", ".join(value or "nothing" for value in found[:SHOWN_VALUES]) + more


def record(each: Compared) -> list[Any]:
    """A row of `COLUMNS`."""
    named = {
        "group": each.group,
        "figure": each.figure.name,
        "unit": each.figure.unit,
        "energy_bound": each.energy_bound,
        "energy_source": each.energy_source,
        "within_run_low": each.within_run and each.within_run[0],
        "within_run_high": each.within_run and each.within_run[1],
        "outliers": each.outliers,
    }
    return [named[column] if column in named else getattr(each.comparison, column) for column in COLUMNS]


def remarks(findings: Findings) -> Iterator[str]:
    """What is compared, and what a reader has to know before."""
    runs = "; ".join(f"{group.name}: {_runs(len(group.runs))}" for group in findings.groups)
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
    return f"above idle {told[0]}, {told[1]}; {told[2]} (regression over {_runs(costs.runs)}{r2})"


def _interval(cost: Cost) -> str:
    return f"{cost.value:.3g} [{cost.low:.3g}, {cost.high:.3g}]"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"
