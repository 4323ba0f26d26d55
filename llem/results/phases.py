"""Energy of prefill and decoding, from samples joined to token times on one clock; and its shares by request."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from llem.results.nullable import largest, total
from llem.results.power import AtMoments, EnergyCurve, FloatArray, Interpolated, LeftOut, Rhythm
from llem.units import MJ_PER_J

Edges = tuple[FloatArray, FloatArray]  # starts and ends
Mask = NDArray[np.bool_]
PhaseSource = str  # counter, integrated, estimated or simulated; mixed where devices differ

# Of the slower of sensor and sampling: an edge is known to one of them, so a phase to two in five.
MIN_PERIODS = 5
SILENT_PERIODS = 3  # samples further apart than this are a gap


# Seconds, power, energy counter, and what was left out between them.
Samples = tuple[FloatArray, FloatArray, FloatArray | None, LeftOut | None]


class Watched(Protocol):
    """A device whose samples can be read in pieces, ascending; NaN where a value is missing."""

    @property
    def power(self) -> Rhythm:
        """When its power was read."""

    @property
    def counter(self) -> Rhythm:
        """When its energy counter was read."""

    @property
    def counter_tick_sec(self) -> float | None:
        """None: unknown, then the counter is not used."""

    @property
    def power_window_sec(self) -> float:
        """Averaging window of the power."""

    @property
    def made_up(self) -> str | None:
        """What the meter says of figures that no sensor read."""

    def pieces(self, moments_sec: FloatArray) -> Iterable[Samples]:
        """All that are needed around and between some moments, with at least one beyond each end where there are any."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one device, in seconds of the clock of the token times, ascending; NaN where a value is missing."""

    at_sec: FloatArray
    power_w: FloatArray
    energy_j: FloatArray | None = None  # energy counter
    counter_tick_sec: float | None = None  # None: unknown, then the counter is not used
    power_window_sec: float = 0.0  # averaging window of the power
    made_up: str | None = None  # what the meter says of figures that no sensor read

    @property
    def power(self) -> Rhythm:
        """When its power was read."""
        return _rhythm(self.at_sec, self.power_w)

    @property
    def counter(self) -> Rhythm:
        """When its energy counter was read."""
        return Rhythm() if self.energy_j is None else _rhythm(self.at_sec, self.energy_j)

    def pieces(self, moments_sec: FloatArray) -> Iterable[Samples]:
        """All of them at once."""
        yield self.at_sec, self.power_w, self.energy_j, None


def _rhythm(at_sec: FloatArray, values: FloatArray) -> Rhythm:
    rhythm = Rhythm()
    rhythm.add(*known(at_sec, values))
    return rhythm


def known(at_sec: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Those that were measured."""
    measured = ~np.isnan(values)
    return (at_sec, values) if measured.all() else (at_sec[measured], values[measured])


Known = tuple[FloatArray, FloatArray, LeftOut | None]


def known_of(at_sec: FloatArray, values: FloatArray, left_out: LeftOut | None) -> Known:
    """The same, with what was left out between them: where some were, the values on both sides are known, or neither is."""
    if left_out is None:
        return *known(at_sec, values), None
    measured = ~np.isnan(values)
    if measured.all():  # as nearly always: nothing is copied
        return at_sec, values, left_out
    return at_sec[measured], values[measured], left_out.of(measured)


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
    """One way to see a device: when, how finely, and its known samples of a piece."""

    source: PhaseSource
    rhythm: Rhythm
    resolution_sec: float
    curve: type[AtMoments]
    known: Callable[[Samples], Known]


def batch_energies(
    devices: Sequence[Watched], *, starts_sec: ArrayLike, first_tokens_sec: ArrayLike, ends_sec: ArrayLike
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
    by_device = [_phases(device, edges, silent_share=0.0) for device in devices]
    batches = [
        [_labelled_batch(device, _adding_up(*batch)) for batch in zip(*phases, strict=True)]
        for device, phases in zip(devices, by_device, strict=True)
    ]
    return [_over_devices(batch) for batch in zip(*batches, strict=True)]


def _adding_up(prefill: PhaseEnergy, decode: PhaseEnergy, whole: PhaseEnergy) -> BatchEnergy:
    if whole.source is not None and prefill.source == decode.source == whole.source:
        whole = msgspec.structs.replace(whole, energy_j=total([prefill.energy_j, decode.energy_j]))
    return BatchEnergy(prefill=prefill, decode=decode, whole=whole)


def _labelled_batch(device: Watched, batch: BatchEnergy) -> BatchEnergy:
    return BatchEnergy(
        prefill=_labelled(device, batch.prefill),
        decode=_labelled(device, batch.decode),
        whole=_labelled(device, batch.whole),
    )


def _labelled(device: Watched, phase: PhaseEnergy) -> PhaseEnergy:
    """What no sensor read says so, in whichever way it was added up."""
    if device.made_up is None or phase.source is None:
        return phase
    return msgspec.structs.replace(phase, source=device.made_up)


def phase_energies(
    device: Watched, *, starts_sec: ArrayLike, ends_sec: ArrayLike, silent_share: float = 0.0
) -> list[PhaseEnergy]:
    """Energy of one device in every phase, by its counter where that resolves the phase, else by its power.

    No more than `silent_share` of a phase may lie in gaps between samples.
    """
    edges = [(np.asarray(starts_sec, np.float64), np.asarray(ends_sec, np.float64))]
    (phases,) = _phases(device, edges, silent_share=silent_share)
    return [_labelled(device, phase) for phase in phases]


def _phases(device: Watched, edges: Sequence[Edges], *, silent_share: float) -> list[list[PhaseEnergy]]:
    """The same for several kinds of phases, all of them from one reading of the samples."""
    sights = _sights(device, edges, silent_share=silent_share)
    if not sights:
        unknown = PhaseEnergy(reason="neither an energy counter nor power was read")
        return [[unknown] * len(starts) for starts, _ in edges]
    return [_best(ways) for ways in zip(*(sight.phases() for sight in sights), strict=True)]


def energies_j(device: Watched, *, starts_sec: FloatArray, ends_sec: FloatArray) -> FloatArray:
    """What `phase_energies` finds of very many phases; NaN where it is not known."""
    found_j = np.full(len(starts_sec), np.nan)
    for sight in _sights(device, [(starts_sec, ends_sec)], silent_share=0.0):
        found_j = np.where(np.isnan(found_j), sight.energies_j(), found_j)
    return found_j


def _sights(device: Watched, edges: Sequence[Edges], *, silent_share: float) -> list["_Sight"]:
    """The phases in every way to see the device, the best first."""
    views = [view for view in (_counter_view(device), _power_view(device)) if view is not None]
    if not views or not len(edges[0][0]):
        return []
    sights = [_Sight(view, edges, silent_share=silent_share) for view in views]
    moments_sec = np.unique(np.concatenate([moments for pair in edges for moments in pair]))
    for samples in device.pieces(moments_sec[~np.isnan(moments_sec)]):
        for sight in sights:
            sight.add(samples)
    return sights


def _best(ways: Sequence[Sequence[PhaseEnergy]]) -> list[PhaseEnergy]:
    """Of each phase the first way that resolves it, else the finest: the reason why that does not is the one that counts."""
    return [
        next((phase for phase in phases if phase.energy_j is not None), None)
        or min(reversed(phases), key=lambda phase: phase.resolution_sec or 0.0)
        for phases in zip(*ways, strict=True)
    ]


def resolution_sec(device: Watched) -> float | None:
    """How well the edges of a phase can be seen, in the better of its two ways; None where it was not read."""
    views = (_counter_view(device), _power_view(device))
    return min((view.resolution_sec for view in views if view is not None), default=None)


def allocate(energy_j: float | None, tokens: Sequence[int]) -> list[float | None]:
    """A batch's energy divided among its requests by their tokens: an allocation, for no sensor can tell them apart."""
    whole = sum(tokens)
    if energy_j is None or whole <= 0:
        return [None] * len(tokens)
    return [energy_j * count / whole for count in tokens]


def _counter_view(device: Watched) -> _View | None:
    rhythm = device.counter
    if device.counter_tick_sec is None or rhythm.count < 2 or rhythm.fell:
        return None
    first_mj = np.rint(rhythm.first_value * MJ_PER_J)

    def gained(samples: Samples) -> Known:
        """Whole millijoules from the first sample on: a counter of years leaves no digits for the fractions of a batch."""
        at_sec, _, counter_j, left_out = samples
        assert counter_j is not None  # its rhythm was read from it
        at_sec, energy_j, left_out = known_of(at_sec, counter_j, left_out)
        return at_sec, (np.rint(energy_j * MJ_PER_J) - first_mj) / MJ_PER_J, left_out

    return _View(
        source="counter",
        rhythm=rhythm,
        resolution_sec=max(rhythm.period_sec, device.counter_tick_sec),
        curve=Interpolated,
        known=gained,
    )


def _power_view(device: Watched) -> _View | None:
    rhythm = device.power
    if rhythm.count < 2:
        return None
    return _View(
        source="integrated",
        rhythm=rhythm,
        resolution_sec=max(rhythm.period_sec, device.power_window_sec),
        curve=EnergyCurve,
        known=lambda samples: known_of(samples[0], samples[1], samples[3]),
    )


class _Facts(NamedTuple):
    """Phases of one kind, a value of each: their energy, and what speaks against it."""

    energy_j: FloatArray
    duration_sec: FloatArray  # NaN where there was no first token
    outside: Mask
    short: Mask
    broken: Mask


class _Sight:
    """Phases of several kinds as one way of seeing has them, from samples that come in pieces."""

    def __init__(self, view: _View, edges: Sequence[Edges], *, silent_share: float) -> None:
        self._view, self._edges, self._silent_share = view, edges, silent_share
        self._moments = np.concatenate([moments for pair in edges for moments in pair])
        self._energy = view.curve(self._moments)
        self._silences: list[FloatArray] = []  # starts and ends
        self._last_sec = math.nan

    def add(self, samples: Samples) -> None:
        at_sec, values, left_out = self._view.known(samples)
        if not len(at_sec):
            return
        moments = np.concatenate(([self._last_sec], at_sec))
        gaps_sec = np.diff(moments)
        if left_out is not None:
            gaps_sec = np.where(left_out.any, left_out.longest_sec, gaps_sec)
        # NaN, as the first gap is, is not longer than anything.
        silent = np.flatnonzero(gaps_sec > SILENT_PERIODS * self._view.rhythm.period_sec)
        self._silences.append(np.stack([moments[silent], moments[silent + 1]], axis=1))
        self._last_sec = float(at_sec[-1])
        self._energy.add(at_sec, values, left_out)

    def phases(self) -> list[list[PhaseEnergy]]:
        columns = (map(np.ndarray.tolist, facts) for facts in self._facts())
        return [list(map(self._phase, *of_kind)) for of_kind in columns]

    def energies_j(self) -> FloatArray:
        """Of the only kind of phases; NaN where it is not known."""
        (facts,) = self._facts()
        return np.where(facts.outside | facts.short | facts.broken, np.nan, facts.energy_j)

    def _facts(self) -> list[_Facts]:
        """Of each kind of phases."""
        energies, silences = self._by_edges(self._energy.found()), self._by_edges(self._silent_sec())
        return list(map(self._of_kind, self._edges, energies, silences))

    def _by_edges(self, at_moments: FloatArray) -> Iterator[Edges]:
        """What is known at all starts and at all ends of each kind."""
        ends = np.cumsum([len(moments) for pair in self._edges for moments in pair])
        parts = iter(np.split(at_moments, ends[:-1]))
        return zip(parts, parts, strict=True)

    def _silent_sec(self) -> FloatArray:
        """How long nothing was read before each of the moments."""
        silences = np.concatenate([np.empty((0, 2)), *self._silences])
        if not len(silences):
            return np.zeros(len(self._moments))
        passed = np.cumsum(silences[:, 1] - silences[:, 0])
        before = np.concatenate(([0.0], passed[:-1]))
        until: FloatArray = np.interp(
            self._moments, silences.ravel(), np.stack([before, passed], axis=1).ravel()
        )
        return until

    def _of_kind(self, edges: Edges, energies_j: Edges, silences_sec: Edges) -> _Facts:
        view = self._view
        (starts, ends), (opened_j, closed_j), (opened_sec, closed_sec) = edges, energies_j, silences_sec
        return _Facts(
            energy_j=closed_j - opened_j,
            duration_sec=ends - starts,
            outside=(starts < view.rhythm.first_sec) | (ends > view.rhythm.last_sec),
            short=ends - starts < MIN_PERIODS * view.resolution_sec,
            broken=closed_sec - opened_sec > self._silent_share * (ends - starts),
        )

    def _phase(self, energy_j: float, *against: Any) -> PhaseEnergy:
        return _phase(self._view, energy_j, _reason(self._view, *against))


def _reason(view: _View, duration_sec: float, outside: bool, short: bool, broken: bool) -> str | None:
    if math.isnan(duration_sec):
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
    return PhaseEnergy(energy_j=energy_j, source=view.source, resolution_sec=view.resolution_sec)


def _over_devices(by_device: Sequence[BatchEnergy]) -> BatchEnergy:
    if len(by_device) == 1:
        return by_device[0]
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
        resolution_sec=largest(phase.resolution_sec for phase in phases),
    )
