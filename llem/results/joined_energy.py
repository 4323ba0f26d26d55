"""Energy of all processes together, each device counted once."""

from collections.abc import Sequence

import msgspec

from llem.results.attribution import DeviceUse, device_uses, energy_once, used_together
from llem.results.energy import GPU_KINDS, DeviceKey, EnergyBreakdown, MultiGPUMetrics, distinct
from llem.results.joined_idle import Uses, join_breakdowns
from llem.results.nullable import largest, ratio, total
from llem.results.process import RawProcessResult


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
