"""Which processes used which device at which time, so that its energy counts once."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from llem.results.energy import DeviceEnergy, DeviceKey, distinct
from llem.results.intervals import Span, duration, union
from llem.results.nullable import total
from llem.results.process import RawProcessResult


class DeviceUse(msgspec.Struct, frozen=True, kw_only=True):
    """One process's share of a device's time; `device` is None where only the GPU's index is known."""

    process_index: int
    device: DeviceEnergy | None
    spans: list[Span]

    @property
    def energy_j(self) -> float | None:
        """Energy of the device in these spans."""
        return self.device.energy_j if self.device else None

    @property
    def seconds(self) -> float:
        """Wall-clock time of these spans."""
        return duration(self.spans).total_seconds()


def device_uses(results: Sequence[RawProcessResult]) -> dict[DeviceKey, list[DeviceUse]]:
    """Every device with the processes that used it."""
    uses: dict[DeviceKey, list[DeviceUse]] = defaultdict(list)
    for result in results:
        for key, device in _devices(result).items():
            uses[key].append(DeviceUse(process_index=result.process_index, device=device, spans=result.spans))
    return dict(uses)


def _devices(result: RawProcessResult) -> Mapping[DeviceKey, DeviceEnergy | None]:
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


def _counted_in(stretch: Span, uses: Sequence[DeviceUse]) -> float | None:
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


def _energy_between(piece: Span, uses: Sequence[DeviceUse]) -> float:
    seen = [use for use in uses if any(start <= piece[0] and piece[1] <= end for start, end in use.spans)]
    if not seen:
        return 0.0
    mean_power_w = math.fsum((use.energy_j or 0.0) / use.seconds for use in seen) / len(seen)
    return mean_power_w * (piece[1] - piece[0]).total_seconds()
