"""Energy and idle power of all processes together, each device counted once however many of them used it."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import msgspec

from llem.results.energy import (
    GPU_KINDS,
    DeviceEnergy,
    DeviceKey,
    DeviceKind,
    EnergyBreakdown,
    MultiGPUMetrics,
    adjusted,
    distinct,
)
from llem.results.intervals import Interval, duration, union
from llem.results.nullable import largest, mean, ratio, root_of_squares, total
from llem.results.process import RawProcessResult


class DeviceUse(msgspec.Struct, frozen=True, kw_only=True):
    """One process's share of a device's time; `device` is None where only the GPU's index is known."""

    process_index: int
    device: DeviceEnergy | None
    spans: list[Interval]

    @property
    def energy_j(self) -> float | None:
        """Energy of the device in these spans."""
        return self.device.energy_j if self.device else None

    @property
    def seconds(self) -> float:
        """Wall-clock time of these spans."""
        return duration(self.spans).total_seconds()


def device_uses(
    results: Sequence[RawProcessResult], *, beside: bool = False
) -> dict[DeviceKey, list[DeviceUse]]:
    """Every device with the processes that used it; where asked for, also those of the meters beside the first."""
    uses: dict[DeviceKey, list[DeviceUse]] = defaultdict(list)
    for result in results:
        others = {device.key: device for device in distinct(result.beside)} if beside else {}
        for key, device in (_devices(result) | others).items():
            uses[key].append(DeviceUse(process_index=result.process_index, device=device, spans=result.spans))
    return dict(uses)


def _devices(result: RawProcessResult) -> dict[DeviceKey, DeviceEnergy | None]:
    if result.devices:
        return {device.key: device for device in distinct(result.devices)}
    return {} if result.gpu_id is None else {(result.host or "", f"index {result.gpu_id}"): None}


def used_together(uses: Sequence[DeviceUse]) -> bool:
    """Whether several processes used the device at one time."""
    separately = [duration(use.spans) for use in uses]
    together = duration(span for use in uses for span in use.spans)
    return len(uses) > 1 and together < sum(separately[1:], separately[0])


def energy_once(uses: Sequence[DeviceUse]) -> float | None:
    """Energy of a device over the union of its processes' windows; None where a share is unknown.

    Where the energy counter is known at the edges this is its difference over each connected stretch. Otherwise
    every moment counts with the mean power of the processes that saw it, which is exact for equal windows.
    """
    if total(use.energy_j for use in uses) is None:
        return None
    if not used_together(uses):
        return total(use.energy_j for use in uses)
    from_counter = _counted(uses)
    return _power_over_union(uses) if from_counter is None else from_counter


def _counted(uses: Sequence[DeviceUse]) -> float | None:
    if any(len(use.spans) > 1 for use in uses):
        return None
    stretches = union(span for use in uses for span in use.spans)
    return total(_counted_in(stretch, uses) for stretch in stretches)


def _counted_in(stretch: Interval, uses: Sequence[DeviceUse]) -> float | None:
    inside = [use.device for use in uses if stretch[0] <= use.spans[0][0] and use.spans[0][1] <= stretch[1]]
    opened = [device.counter_open_j for device in inside if device and device.counter_open_j is not None]
    closed = [device.counter_close_j for device in inside if device and device.counter_close_j is not None]
    if len(opened) < len(inside) or len(closed) < len(inside):
        return None
    return total([max(closed), -min(opened)])


def _power_over_union(uses: Sequence[DeviceUse]) -> float:
    edges = sorted({edge for use in uses for span in use.spans for edge in span})
    pieces = [_energy_between(start_end, uses) for start_end in pairwise(edges)]
    instantaneous = [use.energy_j or 0.0 for use in uses if not use.seconds]
    return math.fsum([*pieces, *instantaneous])


def _energy_between(piece: Interval, uses: Sequence[DeviceUse]) -> float:
    seen = [use for use in uses if any(start <= piece[0] and piece[1] <= end for start, end in use.spans)]
    if not seen:
        return 0.0
    mean_power_w = math.fsum((use.energy_j or 0.0) / use.seconds for use in seen) / len(seen)
    return mean_power_w * (piece[1] - piece[0]).total_seconds()


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


class JoinedEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of an experiment, by device, and whether any device had to be divided."""

    total_j: float | None
    uncertainty_j: float | None
    breakdown: EnergyBreakdown | None
    per_device_j: list[float | None] | None  # None where no device is known
    per_gpu_j: list[float | None]
    attribution_verified: bool
    unmeasured: list[str]  # why total_j is None
    doubts_of_attribution: list[str]


def join_energy(results: Sequence[RawProcessResult], *, duration_sec: float) -> JoinedEnergy:
    """Sum over devices, each over the union of its processes' windows; `duration_sec` is the experiment's."""
    uses = device_uses(results)
    shared = {key: used for key, used in uses.items() if used_together(used)}
    unknown = [result.process_index for result in results if not result.devices and result.gpu_id is None]
    known = {key: energy_once(used) for key, used in uses.items() if used[0].device}
    total_j = total(known.values()) if _is_of_devices(results) else _total(results, shared)
    return JoinedEnergy(
        total_j=total_j,
        uncertainty_j=total(map(_uncertainty_j, uses.values())),
        breakdown=join_breakdowns(results, uses, energy_j=total_j, duration_sec=duration_sec),
        per_device_j=list(known.values()) or None,
        per_gpu_j=[energy_j for key, energy_j in known.items() if _is_gpu(uses[key][0])],
        attribution_verified=not shared and (len(results) == 1 or not unknown),
        unmeasured=[_unmeasured(result) for result in results if result.energy_j is None],
        doubts_of_attribution=[
            *map(_shared_warning, shared, shared.values()),
            *_unknown(results, unknown),
        ],
    )


def energy_of_kinds(results: Sequence[RawProcessResult], kinds: Collection[DeviceKind]) -> float | None:
    """Energy of the devices of some kinds, whichever meter read them; None where a process has none, or one was not measured."""
    if not all(any(device.kind in kinds for device in result.every_device) for result in results):
        return None
    uses = device_uses(results, beside=True).values()
    return total(energy_once(used) for used in uses if used[0].device and used[0].device.kind in kinds)


def multi_gpu_metrics(energy: JoinedEnergy, *, output_tokens: int | None) -> MultiGPUMetrics | None:
    """Energy by GPU where there are several."""
    if len(energy.per_gpu_j) < 2:
        return None
    energy_total_j = total(energy.per_gpu_j)
    return MultiGPUMetrics(
        num_gpus=len(energy.per_gpu_j),
        energy_per_gpu_j=energy.per_gpu_j,
        energy_total_j=energy_total_j,
        energy_per_output_token_j=ratio(energy_total_j, output_tokens),
    )


def _uncertainty_j(uses: Sequence[DeviceUse]) -> float | None:
    """Bounds of windows one after another add up; windows at one time have the same edges to err at."""
    bounds_j = [use.device.uncertainty_j if use.device else None for use in uses]
    return largest(bounds_j) if used_together(uses) and None not in bounds_j else total(bounds_j)


def _is_gpu(use: DeviceUse) -> bool:
    return use.device is not None and use.device.kind in GPU_KINDS


def _is_of_devices(results: Sequence[RawProcessResult]) -> bool:
    """Whether every process's energy is that of its devices, so that the sum over devices is all of it."""
    return all(
        result.devices and result.energy_j == total(device.energy_j for device in distinct(result.devices))
        for result in results
    )


def _total(results: Sequence[RawProcessResult], shared: Uses) -> float | None:
    summed_j = [result.energy_j for result in results]
    if total(summed_j) is None:
        return None
    return total([*summed_j, *(-counted_twice_j(used) for used in shared.values())])


def counted_twice_j(uses: Sequence[DeviceUse]) -> float:
    """What the sum over processes has too much of a device; 0 where a share is unknown, which is warned of."""
    once_j = energy_once(uses)
    return 0.0 if once_j is None else total([*(use.energy_j for use in uses), -once_j]) or 0.0


def _unmeasured(result: RawProcessResult) -> str:
    reasons = [device.reason for device in result.devices if device.reason]
    if result.energy_tracking_failed:
        reasons.append("its tracking failed")
    why = f": {'; '.join(dict.fromkeys(reasons))}" if reasons else ""
    return f"energy of process {result.process_index} was not measured, so the total is unknown{why}"


def _unknown(results: Sequence[RawProcessResult], indices: Sequence[int]) -> list[str]:
    if len(results) == 1:
        return []
    return [f"devices of process {index} are unknown, so a shared one would count twice" for index in indices]


def _shared_warning(key: DeviceKey, uses: Sequence[DeviceUse]) -> str:
    host, uuid = key
    who = ", ".join(str(use.process_index) for use in uses)
    effect = "may count twice" if energy_once(uses) is None else "counts once"
    return f"device {uuid} on {host or 'an unknown host'} was shared by processes {who}; its energy {effect}"
