"""Energy of all processes together, each device counted once."""

import math
from collections.abc import Mapping, Sequence

import msgspec

from llem.results.energy import GPU_KINDS, DeviceKey, EnergyBreakdown, MultiGPUMetrics
from llem.results.overlap import duration
from llem.results.ratios import largest, ratio, total
from llem.results.raw import RawProcessResult
from llem.results.sharing import DeviceUse, device_uses, energy_once, used_together

Uses = Mapping[DeviceKey, Sequence[DeviceUse]]


class JoinedEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of an experiment, by device, and whether any device had to be divided."""

    total_j: float | None
    uncertainty_j: float | None
    breakdown: EnergyBreakdown | None
    per_device_j: list[float | None] | None  # None where no device is known
    per_gpu_j: list[float | None]
    attribution_verified: bool
    warnings: list[str]


def join_energy(results: Sequence[RawProcessResult]) -> JoinedEnergy:
    """Sum over processes, less what a shared device was counted more than once."""
    uses = device_uses(results)
    shared = {key: used for key, used in uses.items() if used_together(used)}
    unknown = [result.process_index for result in results if not result.devices and result.gpu_id is None]
    total_j = _total(results, shared)
    known = {key: energy_once(used) for key, used in uses.items() if used[0].device}
    return JoinedEnergy(
        total_j=total_j,
        uncertainty_j=total(map(_uncertainty_j, uses.values())),
        breakdown=_shared_breakdown(results, uses, total_j) if shared else _summed_breakdown(results),
        per_device_j=list(known.values()) or None,
        per_gpu_j=[energy_j for key, energy_j in known.items() if _is_gpu(uses[key][0])],
        attribution_verified=not shared and (len(results) == 1 or not unknown),
        warnings=[
            *_unmeasured(results),
            *map(_shared_warning, shared, shared.values()),
            *_unknown(results, unknown),
        ],
    )


def multi_gpu_metrics(energy: JoinedEnergy, *, output_tokens: int) -> MultiGPUMetrics | None:
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


def _total(results: Sequence[RawProcessResult], shared: Uses) -> float | None:
    summed_j = [result.energy_j for result in results]
    if total(summed_j) is None:
        return None
    return total([*summed_j, *(-counted_twice_j(used) for used in shared.values())])


def counted_twice_j(uses: Sequence[DeviceUse]) -> float:
    """What the sum over processes has too much of a device; 0 where a share is unknown, which is warned of."""
    once_j = energy_once(uses)
    return 0.0 if once_j is None else math.fsum([*(use.energy_j or 0.0 for use in uses), -once_j])


def _summed_breakdown(results: Sequence[RawProcessResult]) -> EnergyBreakdown | None:
    parts = [result.energy_breakdown for result in results]
    known = [part for part in parts if part]
    if not known:
        return None
    return msgspec.structs.replace(
        known[0],
        raw_j=total(part.raw_j if part else None for part in parts),
        adjusted_j=total(part.adjusted_j if part else None for part in parts),
    )


def _shared_breakdown(
    results: Sequence[RawProcessResult], uses: Uses, total_j: float | None
) -> EnergyBreakdown | None:
    first = next((result.energy_breakdown for result in results if result.energy_breakdown), None)
    if first is None:
        return None
    idle_j = total(_idle_j(used) for used in uses.values())
    adjusted_j = None if total_j is None or idle_j is None else total_j - idle_j
    return msgspec.structs.replace(first, raw_j=total_j, adjusted_j=adjusted_j)


def _idle_j(uses: Sequence[DeviceUse]) -> float | None:
    baseline_w = uses[0].device.baseline_power_w if uses[0].device else None
    together = duration(span for use in uses for span in use.spans)
    return None if baseline_w is None else baseline_w * together.total_seconds()


def _unmeasured(results: Sequence[RawProcessResult]) -> list[str]:
    without = [str(result.process_index) for result in results if result.energy_j is None]
    return [f"energy of process {index} was not measured, so the total is unknown" for index in without]


def _unknown(results: Sequence[RawProcessResult], indices: Sequence[int]) -> list[str]:
    if len(results) == 1:
        return []
    return [f"devices of process {index} are unknown, so a shared one would count twice" for index in indices]


def _shared_warning(key: DeviceKey, uses: Sequence[DeviceUse]) -> str:
    host, uuid = key
    who = ", ".join(str(use.process_index) for use in uses)
    effect = "may count twice" if energy_once(uses) is None else "counts once"
    return f"device {uuid} on {host or 'an unknown host'} was shared by processes {who}; its energy {effect}"
