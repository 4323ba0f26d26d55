"""What else differs between groups than what is compared, and what makes a comparison say less than it seems to."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llem.comparing.compared import UNKNOWN, Compared, far_from_the_others
from llem.comparing.groups import BLOCK, OF_A_SITE, Group, Run, paired
from llem.comparing.named import SHOWN_VALUES, flat_plan

ALIKE = 0.5  # correlation of neighbouring parts of a run from which on these are too short
NOT_COMPARED = frozenset(("name", "labels"))
TAKEN_OVER = "windows.baseline_from"  # the run under one server whose idle power counts for all
ENVIRONMENT = (
    "host",
    "gpu_name",
    "driver_version",
    "cuda_version",
    "engine",
    "engine_version",
    "llem_version",
)
WHOLE_RUNS = ("total_energy_j", "duration_sec")  # of which more work takes more
PER_TOKEN = ("energy_per_output_token_j", "avg_energy_per_token_j")  # what is compared instead


def differences_of(groups: Sequence[Group]) -> dict[str, list[str]]:
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
        if key.partition(".")[0] in NOT_COMPARED or key == TAKEN_OVER:
            continue
        values = [list(dict.fromkeys(plan.get(key, "") for plan in members)) for members in plans]
        if any(set(each) != set(values[0]) for each in values):
            found[key] = [_listed(each) for each in values]
    return found


def doubts_of(groups: Sequence[Group], compared: Sequence[Compared]) -> Iterator[str]:
    """What makes a comparison say less than it seems to."""
    for group in groups:
        if group.left_out:
            ends = [f"{run['experiment_id']} ({run['failure'] or run['status']})" for run in group.left_out]
            yield f"{group.name}: left out, because it failed or was not measured to its end: {_listed(ends)}"
        if invalid := [run for run in group.runs if not run["valid"] and not is_unjudged(run)]:
            yield f"{group.name}: not valid: {_why(invalid, group)}"
        if unjudged := [run for run in group.runs if is_unjudged(run)]:
            yield f"{group.name}: not judged, as results of other programs are: {run_count(len(unjudged))}"
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


def _why(invalid: Sequence[Run], group: Group) -> str:
    """The first reason against the first of them, and how many others there are."""
    reasons = invalid[0]["invalid_reasons"] or ["no result"]
    said = f"{reasons[0]}{f' and {len(reasons) - 1} more' if len(reasons) > 1 else ''}"
    if len(group.runs) == 1:
        return said
    others = f" and {len(invalid) - 1} more of {run_count(len(group.runs))}" if len(invalid) > 1 else ""
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
    if pairs := paired(reference, group):
        return all(before["prompts"] == after["prompts"] for before, after in pairs)
    return set(reference.values("prompts")) == set(group.values("prompts"))


def _unpaired(groups: Sequence[Group]) -> Iterator[str]:
    """Runs of a block that the other group lacks."""
    reference = groups[0]
    for group in groups[1:]:
        if pairs := paired(reference, group):
            kept = {run["experiment_id"] for pair in pairs for run in pair}
            left = [
                run
                for run in (*reference.values("experiment_id"), *group.values("experiment_id"))
                if run not in kept
            ]
            if left:
                yield f"{group.name}: left out, because the block has no partner: {_listed(left)}"


def _outliers(groups: Sequence[Group], compared: Sequence[Compared]) -> Iterator[str]:
    """Each run that is far from the others of its group, with the figures in which it is."""
    figures = {each.figure.name: each.figure for each in compared}
    for group in groups:
        found: dict[str, list[str]] = {}
        for name, figure in figures.items():
            for run in far_from_the_others(group, name):
                found.setdefault(run, []).append(figure.title)
        for run, names in found.items():
            yield f"{group.name}: {run} is far from the other runs in {', '.join(names)}"


def _listed(values: Iterable[str]) -> str:
    found = list(values)
    more = f" and {len(found) - SHOWN_VALUES} more" if len(found) > SHOWN_VALUES else ""
    return ", ".join(value or "nothing" for value in found[:SHOWN_VALUES]) + more


def run_count(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def is_other_work(reference: Group, group: Group, margin: float) -> bool:
    """Whether one did more than the other by more than a difference that does not matter."""
    means = _work((reference, group))[1]
    return None not in means and abs(means[1] / means[0] - 1) > margin


def tells_of_tokens(group: Group) -> bool:
    """Whether some figure says what a token took."""
    return any(run[per_token] is not None for per_token in PER_TOKEN for run in group.runs)


def other_work(
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
