"""Energy of prefill and decoding, from samples joined to token times on one clock; and its shares by request."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from llem.results.nullable import total
from llem.results.power import FloatArray, cumulative_energy_j
from llem.units import MJ_PER_J

PhaseSource = str  # counter, integrated, estimated or simulated; mixed where devices differ

# Of the slower of sensor and sampling: an edge is known to one of them, so a phase to two in five.
MIN_PERIODS = 5
SILENT_PERIODS = 3  # samples further apart than this are a gap


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one device, in seconds of the clock of the token times, ascending; NaN where a value is missing."""

    at_sec: FloatArray
    power_w: FloatArray
    energy_j: FloatArray | None = None  # energy counter
    counter_tick_sec: float | None = None  # None: unknown, then the counter is not used
    power_window_sec: float = 0.0  # averaging window of the power
    made_up: str | None = None  # what the meter says of figures that no sensor read


class PhaseEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one phase in joules; None with the reason where it cannot be told apart from its neighbours."""

    energy_j: float | None = None
    source: PhaseSource | None = None
    resolution_sec: float | None = None  # how well the phase's edges can be seen
    reason: str | None = None


class BatchEnergy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one batch on all devices of its process."""

    prefill: PhaseEnergy  # from the batch's start to its first token
    decode: PhaseEnergy  # from there to its end
    whole: PhaseEnergy


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """One way to see a device: known samples, how finely, and the energy between moments."""

    source: PhaseSource
    at_sec: FloatArray
    resolution_sec: float
    period_sec: float
    between: Callable[[FloatArray, FloatArray], FloatArray]


def batch_energies(
    devices: Sequence[Trace], *, starts_sec: ArrayLike, first_tokens_sec: ArrayLike, ends_sec: ArrayLike
) -> list[BatchEnergy]:
    """Energy of every batch, summed over devices; a phase that any device cannot resolve is None.

    Where a device's phases and the whole are seen in one way, the whole is their sum, to the last digit.
    """
    starts, firsts, ends = (
        np.asarray(moments, np.float64) for moments in (starts_sec, first_tokens_sec, ends_sec)
    )
    if not devices:
        unknown = PhaseEnergy(reason="no device was watched")
        return [BatchEnergy(prefill=unknown, decode=unknown, whole=unknown)] * len(starts)
    edges = ((starts, firsts), (firsts, ends), (starts, ends))
    by_device = [
        [phase_energies(device, starts_sec=opened, ends_sec=closed) for opened, closed in edges]
        for device in devices
    ]
    batches = [
        [_labelled(device, _adding_up(*batch)) for batch in zip(*phases, strict=True)]
        for device, phases in zip(devices, by_device, strict=True)
    ]
    return [_over_devices(batch) for batch in zip(*batches, strict=True)]


def _adding_up(prefill: PhaseEnergy, decode: PhaseEnergy, whole: PhaseEnergy) -> BatchEnergy:
    if whole.source is not None and prefill.source == decode.source == whole.source:
        whole = msgspec.structs.replace(whole, energy_j=total([prefill.energy_j, decode.energy_j]))
    return BatchEnergy(prefill=prefill, decode=decode, whole=whole)


def _labelled(device: Trace, batch: BatchEnergy) -> BatchEnergy:
    """What no sensor read says so, in whichever way it was added up."""

    def label(phase: PhaseEnergy) -> PhaseEnergy:
        if device.made_up is None or phase.source is None:
            return phase
        return msgspec.structs.replace(phase, source=device.made_up)

    return BatchEnergy(prefill=label(batch.prefill), decode=label(batch.decode), whole=label(batch.whole))


def phase_energies(device: Trace, *, starts_sec: ArrayLike, ends_sec: ArrayLike) -> list[PhaseEnergy]:
    """Energy of one device in every phase, by its counter where that resolves the phase, else by its power."""
    starts, ends = np.asarray(starts_sec, np.float64), np.asarray(ends_sec, np.float64)
    views = [view for view in (_counter_view(device), _power_view(device)) if view is not None]
    if not views:
        return [PhaseEnergy(reason="neither an energy counter nor power was read")] * len(starts)
    by_view = [_seen(view, starts, ends) for view in views]
    return [
        next((phase for phase in phases if phase.energy_j is not None), phases[-1])
        for phases in zip(*by_view, strict=True)
    ]


def allocate(energy_j: float | None, tokens: Sequence[int]) -> list[float | None]:
    """A batch's energy divided among its requests by their tokens: an allocation, for no sensor can tell them apart."""
    whole = sum(tokens)
    if energy_j is None or whole <= 0:
        return [None] * len(tokens)
    return [energy_j * count / whole for count in tokens]


def _counter_view(device: Trace) -> _View | None:
    if device.energy_j is None or device.counter_tick_sec is None:
        return None
    at_sec, energy_j = _known(device.at_sec, device.energy_j)
    if len(at_sec) < 2 or np.any(np.diff(energy_j) < 0):
        return None
    # Whole millijoules from the first sample on: a counter of years leaves no digits for the fractions of a batch.
    gained_j = (np.rint(energy_j * MJ_PER_J) - np.rint(energy_j[0] * MJ_PER_J)) / MJ_PER_J
    period_sec = float(np.median(np.diff(at_sec)))
    return _View(
        source="counter",
        at_sec=at_sec,
        resolution_sec=max(period_sec, device.counter_tick_sec),
        period_sec=period_sec,
        between=lambda starts, ends: np.interp(ends, at_sec, gained_j) - np.interp(starts, at_sec, gained_j),
    )


def _power_view(device: Trace) -> _View | None:
    at_sec, power_w = _known(device.at_sec, device.power_w)
    if len(at_sec) < 2:
        return None
    period_sec = float(np.median(np.diff(at_sec)))

    def between(starts: FloatArray, ends: FloatArray) -> FloatArray:
        opened, closed = np.split(
            cumulative_energy_j(at_sec, power_w, edges_sec=np.concatenate((starts, ends))), 2
        )
        return closed - opened

    return _View(
        source="integrated",
        at_sec=at_sec,
        resolution_sec=max(period_sec, device.power_window_sec),
        period_sec=period_sec,
        between=between,
    )


def _known(at_sec: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = ~np.isnan(values)
    return at_sec[known], values[known]


def _seen(view: _View, starts: FloatArray, ends: FloatArray) -> list[PhaseEnergy]:
    """Every phase as one way of seeing has it."""
    energies_j = view.between(starts, ends)
    outside = (starts < view.at_sec[0]) | (ends > view.at_sec[-1])
    short = ends - starts < MIN_PERIODS * view.resolution_sec
    gaps_sec = np.diff(view.at_sec)
    silent_sec = np.cumsum(np.where(gaps_sec > SILENT_PERIODS * view.period_sec, gaps_sec, 0.0))
    silence = np.concatenate(([0.0], silent_sec))
    broken = np.interp(ends, view.at_sec, silence) > np.interp(starts, view.at_sec, silence)
    return [
        _phase(view, energy_j, _reason(view, duration_sec, outside=out, short=brief, broken=gap))
        for energy_j, duration_sec, out, brief, gap in zip(
            energies_j, ends - starts, outside, short, broken, strict=True
        )
    ]


def _reason(view: _View, duration_sec: float, *, outside: bool, short: bool, broken: bool) -> str | None:
    if np.isnan(duration_sec):
        return "there was no first token"
    if outside:
        return "the samples do not reach its edges"
    if short:
        least_ms = 1000 * MIN_PERIODS * view.resolution_sec
        return f"it lasted {1000 * duration_sec:.0f} ms, less than the {least_ms:.0f} ms that can be resolved"
    return "samples are missing in it" if broken else None


def _phase(view: _View, energy_j: float, reason: str | None) -> PhaseEnergy:
    if reason is not None:
        return PhaseEnergy(resolution_sec=view.resolution_sec, reason=reason)
    return PhaseEnergy(energy_j=float(energy_j), source=view.source, resolution_sec=view.resolution_sec)


def _over_devices(by_device: Sequence[BatchEnergy]) -> BatchEnergy:
    return BatchEnergy(
        prefill=_sum([batch.prefill for batch in by_device]),
        decode=_sum([batch.decode for batch in by_device]),
        whole=_sum([batch.whole for batch in by_device]),
    )


def _sum(phases: Sequence[PhaseEnergy]) -> PhaseEnergy:
    """Energy of one phase over devices; the coarsest resolution, and the source that all have."""
    unknown = next((phase for phase in phases if phase.energy_j is None), None)
    if unknown is not None:
        return unknown
    sources = {phase.source for phase in phases}
    return PhaseEnergy(
        energy_j=total(phase.energy_j for phase in phases),
        source=sources.pop() if len(sources) == 1 else "mixed",
        resolution_sec=max(phase.resolution_sec or 0.0 for phase in phases),
    )
