"""Energy of devices, of a process, and what is left of it above the idle power."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal, Self

import msgspec

from llem.results.nullable import as_printed, ratio, total
from llem.units import BYTES_PER_MB
from llem_events.events import Device

EnergySource = str  # counter, integrated, estimated or simulated
Integration = Literal["trapezoid", "telescoped"]
DeviceKind = str  # gpu, mig, cpu_package, dram, process, simulated or wall
DeviceKey = tuple[str, str]
MADE_UP: tuple[EnergySource, ...] = ("estimated", "simulated")  # which no sensor tells
TRUST: tuple[EnergySource, ...] = (*MADE_UP, "integrated", "counter")  # least first
GPU_KINDS: frozenset[DeviceKind] = frozenset(("gpu", "mig", "simulated"))
CPU_KINDS: frozenset[DeviceKind] = frozenset(("cpu_package", "process"))
RAM_KINDS: frozenset[DeviceKind] = frozenset(("dram",))


class DeviceEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one device in one process's measurement window."""

    host: str
    uuid: str
    index: int | None = None
    name: str | None = None
    kind: DeviceKind = "gpu"
    parent_uuid: str | None = None  # the GPU whose power a MIG instance's figure really is
    energy_j: float | None = None
    energy_source: EnergySource | None = None
    counter_energy_j: float | None = None
    integrated_energy_j: float | None = None
    integration: Integration | None = None  # how power became energy
    trapezoid_energy_j: float | None = None  # the same by trapezoids, whatever integrated_energy_j is by
    disagreement: float | None = None  # |counter - integrated| over the larger
    uncertainty_j: float | None = None  # the truth lies within this of energy_j, as far as the sensor sees it
    counter_open_j: float | None = None  # the counter at the edges of a single window
    counter_close_j: float | None = None
    baseline_power_w: float | None = None
    memory_mb: float | None = None  # memory on the device, in MB (1024 * 1024 bytes)
    reason: str | None = None  # why energy_j is None
    # experiment that calibrated its power sensor; None: documented values stand
    calibrated_by: str | None = None
    calibration_age_sec: float | None = None  # how long before this one
    # of the time, by a sensor with which the load may have kept step and beside which there is no counter
    seen_share: float | None = None

    @classmethod
    def from_readings(
        cls,
        device: Device,
        *,
        energy_source: EnergySource | None,
        counter_energy_j: float | None = None,
        integrated_energy_j: float | None = None,
        integration: Integration | None = None,
        trapezoid_energy_j: float | None = None,
        counter_open_j: float | None = None,
        counter_close_j: float | None = None,
        baseline_power_w: float | None = None,
        uncertainty_j: float | None = None,
        reason: str | None = None,
    ) -> Self:
        """Both figures of a device; the counter's is preferred. `energy_source` is what its meter says of it.

        Two views of one estimate are no two sensors: they neither agree nor disagree.
        """
        return cls(
            host=device.host,
            uuid=device.uuid,
            index=device.index,
            name=device.name,
            kind=device.kind,
            parent_uuid=device.parent_uuid,
            energy_j=integrated_energy_j if counter_energy_j is None else counter_energy_j,
            energy_source=_source(energy_source, counter_energy_j, integrated_energy_j),
            counter_energy_j=counter_energy_j,
            integrated_energy_j=integrated_energy_j,
            integration=integration,
            trapezoid_energy_j=trapezoid_energy_j,
            disagreement=None
            if energy_source == "estimated"
            else disagreement(counter_energy_j, integrated_energy_j),
            uncertainty_j=uncertainty_j,
            counter_open_j=counter_open_j,
            counter_close_j=counter_close_j,
            baseline_power_w=baseline_power_w,
            memory_mb=None if device.memory_bytes is None else device.memory_bytes / BYTES_PER_MB,
            reason=reason,
        )

    @property
    def key(self) -> DeviceKey:
        """Host and UUID of what was metered: two MIG instances of a GPU are one."""
        return self.host, self.parent_uuid or self.uuid


def disagreement(counter_energy_j: float | None, integrated_energy_j: float | None) -> float | None:
    """Distance between the two as a fraction of the larger: 1 where a counter stands still under load."""
    if counter_energy_j is None or integrated_energy_j is None:
        return None
    apart_j = abs(counter_energy_j - integrated_energy_j)
    return apart_j / max(abs(counter_energy_j), abs(integrated_energy_j)) if apart_j else 0.0


def _source(
    declared: EnergySource | None, counter_j: float | None, integrated_j: float | None
) -> EnergySource | None:
    if counter_j is None and integrated_j is None:
        return None
    if declared in MADE_UP:
        return declared
    return "integrated" if counter_j is None else "counter"


def least_trusted(sources: Collection[EnergySource | None]) -> EnergySource | None:
    """The source that a sum of energies is no better than; None where any part has none."""
    if not sources or None in sources:
        return None
    return next(source for source in TRUST if source in sources)


def distinct(devices: Sequence[DeviceEnergy]) -> list[DeviceEnergy]:
    """Each metered device once."""
    return list({device.key: device for device in reversed(devices)}.values())[::-1]


class EnergyMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one process in joules, mean power in watts; emissions need a grid intensity and are never guessed."""

    total_energy_j: float | None = None
    gpu_energy_j: float | None = None
    cpu_energy_j: float | None = None
    ram_energy_j: float | None = None
    gpu_power_w: float | None = None
    cpu_power_w: float | None = None
    ram_power_w: float | None = None
    duration_sec: float
    emissions_kg_co2: float | None = None
    energy_per_token_j: float | None = None
    energy_uncertainty_j: float | None = None  # the truth lies within this of total_energy_j

    @classmethod
    def from_devices(
        cls,
        devices: Sequence[DeviceEnergy],
        *,
        beside: Sequence[DeviceEnergy] = (),
        duration_sec: float,
        total_tokens: int | None,
    ) -> Self:
        """Sums over devices; a group with an unmeasured device, or without any, is None.

        Those of the meters `beside` the first are in their group, and not in the total.
        """
        once, all_once = distinct(devices), distinct([*devices, *beside])
        total_energy_j = total(device.energy_j for device in once)
        gpu_energy_j = _energy_of(all_once, GPU_KINDS)
        cpu_energy_j = _energy_of(all_once, CPU_KINDS)
        ram_energy_j = _energy_of(all_once, RAM_KINDS)
        return cls(
            total_energy_j=total_energy_j,
            energy_uncertainty_j=total(device.uncertainty_j for device in once),
            gpu_energy_j=gpu_energy_j,
            cpu_energy_j=cpu_energy_j,
            ram_energy_j=ram_energy_j,
            gpu_power_w=ratio(gpu_energy_j, duration_sec),
            cpu_power_w=ratio(cpu_energy_j, duration_sec),
            ram_power_w=ratio(ram_energy_j, duration_sec),
            duration_sec=duration_sec,
            energy_per_token_j=ratio(total_energy_j, total_tokens),
        )


def _energy_of(devices: Sequence[DeviceEnergy], kinds: Collection[DeviceKind]) -> float | None:
    return total(device.energy_j for device in devices if device.kind in kinds)


class EnergyBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Energy with and without the idle power, summed over devices; adjusted energy may be negative."""

    raw_j: float | None = None
    adjusted_j: float | None = None  # raw - baseline x duration
    baseline_power_w: float | None = None
    baseline_method: str | None = None
    baseline_timestamp: datetime | None = None
    baseline_cache_age_sec: float | None = None
    baseline_std_w: float | None = None
    baseline_after_w: float | None = None  # measured again after the run

    @classmethod
    def from_devices(
        cls,
        devices: Sequence[DeviceEnergy],
        *,
        duration_sec: float,
        baseline_method: str | None = None,
        baseline_timestamp: datetime | None = None,
        baseline_cache_age_sec: float | None = None,
        baseline_std_w: float | None = None,
        baseline_after_w: float | None = None,
    ) -> Self:
        """Sums over devices; adjusted is None where any device has no baseline."""
        once = distinct(devices)
        raw_j = total(device.energy_j for device in once)
        baseline_w = total(device.baseline_power_w for device in once)
        return cls(
            raw_j=raw_j,
            adjusted_j=adjusted(raw_j, baseline_w=baseline_w, duration_sec=duration_sec),
            baseline_power_w=baseline_w,
            baseline_method=baseline_method,
            baseline_timestamp=baseline_timestamp,
            baseline_cache_age_sec=baseline_cache_age_sec,
            baseline_std_w=baseline_std_w,
            baseline_after_w=baseline_after_w,
        )


def adjusted(energy_j: float | None, *, baseline_w: float | None, duration_sec: float) -> float | None:
    """Energy above the idle power, as anybody gets it from the three figures as printed."""
    if energy_j is None or baseline_w is None:
        return None
    return float(as_printed(energy_j) - as_printed(baseline_w) * as_printed(duration_sec))


class MultiGPUMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of each GPU of an experiment that used several."""

    num_gpus: int
    energy_per_gpu_j: list[float | None]
    energy_total_j: float | None = None
    energy_per_output_token_j: float | None = None
