"""Idle power of all processes together, each device counted once, and the energy above it."""

from collections.abc import Mapping, Sequence

from llem.results.attribution import DeviceUse
from llem.results.energy import DeviceKey, EnergyBreakdown, adjusted
from llem.results.nullable import largest, mean, root_of_squares, total
from llem.results.process import RawProcessResult

Uses = Mapping[DeviceKey, Sequence[DeviceUse]]


def join_breakdowns(
    results: Sequence[RawProcessResult], uses: Uses, *, energy_j: float | None, duration_sec: float
) -> EnergyBreakdown | None:
    """Energy above the idle power of all devices over the experiment's duration; None where no process has one.

    The duration is the one that is shown, so that anybody can take the product of the two from the energy.
    """
    breakdowns = [result.energy_breakdown for result in results]
    known = [breakdown for breakdown in breakdowns if breakdown]
    if not known:
        return None
    baseline_w = _baseline_w(breakdowns, uses)
    return EnergyBreakdown(
        raw_j=energy_j,
        adjusted_j=adjusted(energy_j, baseline_w=baseline_w, duration_sec=duration_sec),
        baseline_power_w=baseline_w,
        baseline_method=_method(known),
        baseline_timestamp=known[0].baseline_timestamp,
        baseline_cache_age_sec=largest(breakdown.baseline_cache_age_sec for breakdown in known),
        baseline_std_w=_std_w(breakdowns, uses),
        baseline_after_w=_after_w(breakdowns, uses),
    )


def _baseline_w(breakdowns: Sequence[EnergyBreakdown | None], uses: Uses) -> float | None:
    """Sum over processes, less what a device has too much that several of them watched: its mean counts."""
    by_process = [breakdown.baseline_power_w if breakdown else None for breakdown in breakdowns]
    if total(by_process) is None:
        return None
    return total([*by_process, *(-_watched_twice_w(used) for used in uses.values())])


def _watched_twice_w(uses: Sequence[DeviceUse]) -> float:
    baselines_w = [use.device.baseline_power_w if use.device else None for use in uses]
    together_w, once_w = total(baselines_w), mean(baselines_w)
    return 0.0 if together_w is None or once_w is None else total([together_w, -once_w]) or 0.0


def _method(breakdowns: Sequence[EnergyBreakdown]) -> str | None:
    methods = {breakdown.baseline_method for breakdown in breakdowns}
    return methods.pop() if len(methods) == 1 else "mixed"


def _std_w(breakdowns: Sequence[EnergyBreakdown | None], uses: Uses) -> float | None:
    """Of a sum of independent powers; of the same devices watched by all, the largest."""
    deviations_w = [breakdown.baseline_std_w if breakdown else None for breakdown in breakdowns]
    if _all_apart(uses):
        return root_of_squares(deviations_w)
    return largest(deviations_w) if _all_alike(uses, len(breakdowns)) else None


def _after_w(breakdowns: Sequence[EnergyBreakdown | None], uses: Uses) -> float | None:
    after_w = [breakdown.baseline_after_w if breakdown else None for breakdown in breakdowns]
    if _all_apart(uses):
        return total(after_w)
    return mean(after_w) if _all_alike(uses, len(breakdowns)) else None


def _all_apart(uses: Uses) -> bool:
    return all(len(used) == 1 for used in uses.values())


def _all_alike(uses: Uses, processes: int) -> bool:
    return all(len(used) == processes for used in uses.values())
