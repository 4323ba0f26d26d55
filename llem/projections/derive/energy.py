"""Energy of one device in one span: its counter's difference, and its power integrated."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from llem.projections.derive.history import ProcessFacts, Window
from llem.projections.derive.samples import DeviceSamples, DeviceTrace
from llem.projections.derive.sensors import Blindness
from llem.results import DeviceEnergy
from llem.results.averaged_power import Telescoped
from llem.results.energy import MADE_UP, Integration
from llem.results.nullable import total
from llem.results.power import counter_uncertainty_j
from llem.units import MJ_PER_J, MW_PER_W, seconds
from llem_events.events import EnergyEdge, MeteredDevice


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """An energy counter read at both edges of a window, or why it was not."""

    open_mj: int | None = None
    close_mj: int | None = None
    reason: str | None = None

    @property
    def energy_mj(self) -> int | None:
        """Close minus open; None where either is missing or the counter ran backwards."""
        if self.open_mj is None or self.close_mj is None or self.close_mj < self.open_mj:
            return None
        return self.close_mj - self.open_mj


class Integral(msgspec.Struct, frozen=True, kw_only=True):
    """Energy from power."""

    energy_j: float | None = None
    uncertainty_j: float | None = None
    method: Integration | None = None
    trapezoid_j: float | None = None
    seen_share: float | None = None  # of the time, where the load may have kept step with the sensor


def read_counter(window: Window, device_uuid: str) -> Counter:
    """The counter of a device at the edges of a window."""
    opened = _edge(window.opened.edges, device_uuid)
    closed = _edge(window.closed.edges if window.closed else [], device_uuid)
    if window.closed is None:
        return Counter(open_mj=_reading(opened), reason="the window was never closed")
    reasons = [edge.reason for edge in (opened, closed) if edge is not None and edge.reason]
    counter = Counter(open_mj=_reading(opened), close_mj=_reading(closed), reason=next(iter(reasons), None))
    if counter.energy_mj is None and counter.open_mj is not None and counter.close_mj is not None:
        return msgspec.structs.replace(counter, reason="the energy counter ran backwards")
    return counter


def device_energy(
    process: ProcessFacts,
    metered: MeteredDevice,
    samples: Sequence[DeviceSamples],
    counters: Sequence[Counter] | None,
) -> DeviceEnergy:
    """Energy of a device over spans; `counters` are read at their edges, None where the spans are no windows."""
    at_edges_mj = _sum([counter.energy_mj for counter in counters or ()])
    at_edges_j = _joules(at_edges_mj)
    between_samples_j = total(in_span.counted_energy_j for in_span in samples)
    counter_j = between_samples_j if at_edges_j is None else at_edges_j
    if not any(in_span.count for in_span in samples) and not counter_j:
        counter_j = at_edges_j = None  # a counter that stood still while nobody looked says nothing
    integral = _integral(process, metered, samples, telescope=counter_j is None)
    single = (
        counters[0] if counters and len(counters) == 1 and counters[0].energy_mj is not None else Counter()
    )
    energy = DeviceEnergy.from_readings(
        metered.device,
        energy_source=metered.energy_source,
        counter_energy_j=counter_j,
        integrated_energy_j=integral.energy_j,
        integration=integral.method,
        trapezoid_energy_j=integral.trapezoid_j,
        counter_open_j=_joules(single.open_mj),
        counter_close_j=_joules(single.close_mj),
        baseline_power_w=baseline_power_w(process, metered.device.uuid),
        uncertainty_j=_counter_uncertainty_j(metered, samples, at_edges=at_edges_j is not None)
        if counter_j is not None
        else integral.uncertainty_j,
        reason=None
        if counter_j is not None or integral.energy_j is not None
        else _reason(process, metered, counters, samples),
    )
    calibrated = process.calibration_of(metered)
    if calibrated is None:
        return energy
    return msgspec.structs.replace(
        energy,
        calibrated_by=calibrated.experiment_id,
        calibration_age_sec=calibrated.age_s,
        seen_share=integral.seen_share if counter_j is None else None,
    )


def _counter_uncertainty_j(
    metered: MeteredDevice, samples: Sequence[DeviceSamples], *, at_edges: bool
) -> float | None:
    """Bound of the counter's error; where it was not read at the edges, they lie somewhere between two samples."""
    if metered.counter_tick_ns is None or metered.energy_source == "estimated":
        return None
    tick_sec, limit_w = seconds(metered.counter_tick_ns), _limit_w(metered)
    bounds = []
    for in_span in samples:
        seen_w = None if metered.power_kind == "average" else in_span.highest_power_w
        between_sec = 0.0 if at_edges else in_span.max_gap_sec
        highest_w = limit_w if seen_w is None else seen_w
        bounds.append(counter_uncertainty_j(tick_sec=tick_sec + between_sec, highest_power_w=highest_w))
    return total(bounds)


def _integral(
    process: ProcessFacts, metered: MeteredDevice, samples: Sequence[DeviceSamples], *, telescope: bool
) -> Integral:
    """Power integrated by trapezoids; or telescoped, where power is averaged, the device idled afterwards and the bound is closer."""
    blindness = Blindness.of(process.calibration_of(metered))
    by_trapezoids, hidden_j = _by_trapezoids(process, metered, samples, blindness)
    may_be_closer = metered.power_kind == "average" and metered.energy_source != "estimated"
    if by_trapezoids.energy_j is None or not telescope or not may_be_closer:
        return by_trapezoids
    telescoped = [_telescoped(process, metered, in_span, blindness) for in_span in samples]
    energy_j = total(each and each.energy_j for each in telescoped)
    closer_j = total([*(each and each.uncertainty_j for each in telescoped), hidden_j])
    bound_j = by_trapezoids.uncertainty_j
    if energy_j is None or (bound_j is not None and (closer_j is None or closer_j > bound_j)):
        return by_trapezoids
    return msgspec.structs.replace(
        by_trapezoids, energy_j=energy_j, uncertainty_j=closer_j, method="telescoped"
    )


def _by_trapezoids(
    process: ProcessFacts, metered: MeteredDevice, samples: Sequence[DeviceSamples], blindness: Blindness
) -> tuple[Integral, float | None]:
    """And what of it a load could hide that keeps step with the sensor, in joules."""
    energy_j = total(in_span.integrated_energy_j for in_span in samples)
    if energy_j is None:
        return Integral(), None
    averaged_sec, limit_w = seconds(metered.power_window_ns or 0), _limit_w(metered)
    is_estimate = metered.energy_source == "estimated"
    duration_sec = sum(in_span.duration_sec for in_span in samples)
    shifts = process.load_shifts(duration_sec, refresh_sec=blindness.refresh_sec)
    hidden_j = blindness.hidden_j(energy_j, duration_sec=duration_sec, power_limit_w=limit_w, shifts=shifts)
    bounds = [
        in_span.integral_uncertainty_j(power_window_sec=averaged_sec, power_limit_w=limit_w)
        for in_span in samples
    ]
    integral = Integral(
        energy_j=energy_j,
        uncertainty_j=None if is_estimate else total([*bounds, hidden_j, blindness.late_j(limit_w)]),
        method="trapezoid",
        trapezoid_j=energy_j,
        seen_share=None if is_estimate or shifts else blindness.seen_share,
    )
    return integral, hidden_j


def _telescoped(
    process: ProcessFacts, metered: MeteredDevice, samples: DeviceSamples, blindness: Blindness
) -> Telescoped | None:
    return samples.telescoped(
        averaged_sec=seconds(metered.power_window_ns or 0),
        idling=process.idling_after(samples.span[1]),
        power_limit_w=_limit_w(metered),
        delay_sec=blindness.delay_sec,
        delay_within_sec=blindness.delay_within_sec,
    )


def _limit_w(metered: MeteredDevice) -> float | None:
    limit_mw = metered.device.power_limit_mw
    return None if limit_mw is None else limit_mw / MW_PER_W


def trace(metered: MeteredDevice, samples: DeviceSamples) -> DeviceTrace:
    """A device as the energy of parts of a span is read from it."""
    return samples.trace(
        counter_tick_sec=None if metered.counter_tick_ns is None else seconds(metered.counter_tick_ns),
        power_window_sec=seconds(metered.power_window_ns or 0),
        made_up=metered.energy_source if metered.energy_source in MADE_UP else None,
    )


def baseline_power_w(
    process: ProcessFacts, device_uuid: str, position: Literal["before", "after"] = "before"
) -> float | None:
    """Mean idle power of a device; None where it was not measured."""
    baseline = process.baselines.get(position)
    powers = baseline.devices if baseline else []
    return next((power.mean_power_w for power in powers if power.device_uuid == device_uuid), None)


def _edge(edges: Sequence[EnergyEdge], device_uuid: str) -> EnergyEdge | None:
    return next((edge for edge in edges if edge.device_uuid == device_uuid), None)


def _reading(edge: EnergyEdge | None) -> int | None:
    return None if edge is None else edge.energy_mj


def _joules(energy_mj: int | None) -> float | None:
    return None if energy_mj is None else energy_mj / MJ_PER_J


def _sum(energies_mj: Sequence[int | None]) -> int | None:
    """Of integers, so that joules are exact to the last digit; None where any is unknown or there is none."""
    known = [energy_mj for energy_mj in energies_mj if energy_mj is not None]
    return sum(known) if known and len(known) == len(energies_mj) else None


def _reason(
    process: ProcessFacts,
    metered: MeteredDevice,
    counters: Sequence[Counter] | None,
    samples: Sequence[DeviceSamples],
) -> str:
    """Why neither the counter nor the samples give an energy."""
    if process.meter is None:
        return "no sampler started"
    missing = [metered.missing[column] for column in ("energy_mj", "power_mw") if column in metered.missing]
    edges = [counter.reason for counter in counters or () if counter.reason]
    unseen = [] if any(in_span.count for in_span in samples) else ["no sample was taken in the window"]
    return next(iter([*missing, *edges, *unseen]), "power was read too seldom, or not up to the edges")
