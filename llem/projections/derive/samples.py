"""Samples of one device in and around a span, read in pieces, and what they say of it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial

import msgspec
import numpy as np

from llem.projections.derive.history import ProcessFacts, portions
from llem.projections.derive.source import Column, Device, Piece, Source, Span, Values
from llem.results.averaged_power import AveragedReadings, Telescoped
from llem.results.nullable import largest
from llem.results.phases import Samples, known
from llem.results.power import EnergyCurve, Interpolated, Rhythm, half_steps_j, uncertainty_of_j
from llem.results.throttling import ANY_REASON
from llem.units import MJ_PER_J, NS_PER_S, seconds

MARGIN_NS = 5 * NS_PER_S  # so that the power at an edge lies between two samples
PIECE_SAMPLES = 2**17  # read at once
_BUCKETS = 2**12  # of time, of which pieces are made
EXTRAPOLATED_SEC = 0.5
DRIVER_AVERAGE_SEC = 1.0
COLUMNS = ("power_w", "energy_j", "throttle_reasons")
AVERAGE = "power_average_w"  # the driver's, which nobody asks for where it has something better
# Whole numbers, whose sum is the same in whatever order they are added.
COUNTED = ("temperature_c", "gpu_utilisation_pct", "memory_utilisation_pct", "memory_used_bytes")
_MAX_STARTS = 10_000  # of stretches that a result may name
# Some columns, all or those from before a span to after it.
Pieces = Callable[[Sequence[str], Span | None], Iterable[Piece]]


class Throttling(msgspec.Struct, frozen=True, kw_only=True):
    """Stretches whose sample reports a reason; a sample speaks for the time until the next one."""

    reasons: int  # all that were reported for any time
    starts_sec: Column  # of the first stretches with any reason
    duration_sec: float  # of all of them: elapsed time is counted and not samples


class _Throttle:
    """The same, from samples that come in pieces: one is looked at when the next is there."""

    def __init__(self, duration_sec: float) -> None:
        self._duration_sec = duration_sec
        self._waiting: tuple[Column, Column] | None = None
        self._reasons = 0
        self._starts: list[Column] = []
        self._lengths_sec: list[float] = []

    def add(self, at_sec: Column, reasons: Column) -> None:
        if len(at_sec):
            self._look(float(at_sec[0]))
            self._waiting = at_sec, reasons

    def throttling(self) -> Throttling | None:
        """None where no reason was read."""
        if self._waiting is None:
            return None
        self._look(self._duration_sec)
        starts = np.concatenate(self._starts)[:_MAX_STARTS]
        return Throttling(reasons=self._reasons, starts_sec=starts, duration_sec=math.fsum(self._lengths_sec))

    def _look(self, next_sec: float) -> None:
        if self._waiting is None:
            return
        at_sec, reasons = self._waiting
        edges = np.clip(np.append(at_sec, next_sec), 0.0, self._duration_sec)
        lengths = np.diff(edges)
        bits = np.clip(reasons, 0, 2**53).astype(np.int64)
        self._reasons |= int(np.bitwise_or.reduce(bits[lengths > 0], initial=0))
        reported = ((bits & ANY_REASON) != 0) & (lengths > 0)
        if sum(map(len, self._starts)) < _MAX_STARTS:
            self._starts.append(edges[:-1][reported])
        self._lengths_sec.append(float(lengths[reported].sum()))


def _between(at_sec: Column, duration_sec: float) -> slice:
    """Those of ascending moments that lie in a span."""
    first, end = np.searchsorted(at_sec, 0.0), np.searchsorted(at_sec, duration_sec, side="right")
    return slice(int(first), int(end))


class _Gaps:
    """The longest time without a moment within a span, edges included."""

    def __init__(self, duration_sec: float) -> None:
        self._duration_sec = duration_sec
        self.count = 0
        self._reached_sec = self._longest_sec = 0.0

    def add(self, at_sec: Column) -> None:
        inside = at_sec[_between(at_sec, self._duration_sec)]
        if len(inside):
            self.count += len(inside)
            longest_sec = float(np.diff(inside).max(initial=0.0))
            self._longest_sec = max(self._longest_sec, float(inside[0]) - self._reached_sec, longest_sec)
            self._reached_sec = float(inside[-1])

    @property
    def longest_sec(self) -> float:
        return max(self._longest_sec, self._duration_sec - self._reached_sec)


class _Power:
    """One column of power: when it was read, and its energy over the span."""

    def __init__(self, duration_sec: float) -> None:
        self._duration_sec = duration_sec
        self.rhythm, self.gaps = Rhythm(), _Gaps(duration_sec)
        self._energy = EnergyCurve((0.0, duration_sec))
        self._steps_j: list[float] = []
        self._last = np.empty(0), np.empty(0)

    def add(self, at_sec: Column, power_w: Column) -> None:
        if not len(at_sec):
            return
        self.rhythm.add(at_sec, power_w)
        self.gaps.add(at_sec)
        self._energy.add(at_sec, power_w)
        at, power = np.concatenate((self._last[0], at_sec)), np.concatenate((self._last[1], power_w))
        self._steps_j.append(half_steps_j(at, power, start_sec=0.0, end_sec=self._duration_sec))
        self._last = at_sec[-1:], power_w[-1:]

    @property
    def energy_j(self) -> float:
        return float(self._energy.found()[-1])

    @property
    def steps_j(self) -> float:
        return math.fsum(self._steps_j)

    @property
    def reaches_edges(self) -> bool:
        """Whether the power beyond the samples is known by its neighbour: a device that was lost has no power after it."""
        unknown_sec = max(self.rhythm.first_sec, self._duration_sec - self.rhythm.last_sec)
        return bool(unknown_sec <= max(EXTRAPOLATED_SEC, 2 * self.rhythm.period_sec))


class _Counter:
    """The energy counter, in whole millijoules from its first sample on, as it was read."""

    def __init__(self, duration_sec: float) -> None:
        self._duration_sec = duration_sec
        self.rhythm = Rhythm()
        self._gained_mj = Interpolated((0.0, duration_sec))

    def add(self, at_sec: Column, energy_j: Column) -> None:
        self.rhythm.add(at_sec, energy_j)
        first_mj = np.rint(self.rhythm.first_value * MJ_PER_J)
        self._gained_mj.add(at_sec, np.rint(energy_j * MJ_PER_J) - first_mj)

    @property
    def energy_j(self) -> float | None:
        rhythm = self.rhythm
        outside = not rhythm.count or rhythm.first_sec > 0 or rhythm.last_sec < self._duration_sec
        if outside or self._duration_sec <= 0 or rhythm.fell:
            return None
        opened_mj, closed_mj = self._gained_mj.found()
        return float(closed_mj - opened_mj) / MJ_PER_J


class DeviceSamples:
    """What one device's samples say of a span; they are read once, in pieces, and again for what is asked of other moments."""

    def __init__(self, span: Span, pieces: Pieces, values: Callable[[], Mapping[str, Values]]) -> None:
        self.span = span
        self._ask_values = values
        self.duration_sec = seconds(span[1] - span[0])
        self.repeated = 0
        self.highest_power_w: float | None = None
        self._pieces = pieces
        self._rows = _Gaps(self.duration_sec)
        self._instant, self._average = _Power(self.duration_sec), _Power(self.duration_sec)
        self._counter = _Counter(self.duration_sec)
        throttle = _Throttle(self.duration_sec)
        last_sec = -math.inf
        for at_sec, columns in self.read(COLUMNS):
            if len(at_sec):
                self.repeated += int(np.count_nonzero(at_sec[1:] <= at_sec[:-1]) + (at_sec[0] <= last_sec))
                last_sec = float(at_sec[-1])
                self._add(at_sec, columns)
                throttle.add(*known(at_sec, columns["throttle_reasons"]))
        self.throttling = throttle.throttling()
        if not self._instant.rhythm.count:
            for at_sec, columns in self.read([AVERAGE]):
                self._average.add(*known(at_sec, columns[AVERAGE]))

    @cached_property
    def _values(self) -> Mapping[str, Values]:
        """What columns that are only counted hold within the span; nobody asks it of most spans."""
        return self._ask_values()

    def _add(self, at_sec: Column, columns: Mapping[str, Column]) -> None:
        self._rows.add(at_sec)
        self._counter.add(*known(at_sec, columns["energy_j"]))
        self._instant.add(*known(at_sec, columns["power_w"]))
        highest_w = float(
            np.fmax.reduce(columns["power_w"][_between(at_sec, self.duration_sec)], initial=np.nan)
        )
        self.highest_power_w = largest([self.highest_power_w, None if math.isnan(highest_w) else highest_w])

    @property
    def count(self) -> int:
        """Samples within the span."""
        return self._rows.count

    def read(
        self, names: Sequence[str], between_sec: tuple[float, float] | None = None
    ) -> Iterator[tuple[Column, Mapping[str, Column]]]:
        """Some columns, all or those between two moments and a little beyond, with seconds from the span's start."""
        between_ns = None
        if between_sec is not None:
            start_ns, end_ns = (self.span[0] + round(at_sec * NS_PER_S) for at_sec in between_sec)
            between_ns = start_ns, end_ns
        for at_ns, columns in self._pieces(names, between_ns):
            yield (at_ns - self.span[0]) / NS_PER_S, columns

    @property
    def counter_ran_backwards(self) -> bool:
        """Whether the energy counter is lower than before, in the span or beside it."""
        return self._counter.rhythm.fell

    @property
    def max_gap_sec(self) -> float:
        """The longest time without a sample, of power where the device has any; edges included."""
        return (self._power.gaps if self._power.rhythm.count else self._rows).longest_sec

    @property
    def integrated_energy_j(self) -> float | None:
        """Power integrated over the span; None without two samples in it, or where an edge is far from any."""
        power = self._power
        return power.energy_j if power.gaps.count >= 2 and power.reaches_edges else None

    def integral_uncertainty_j(self, *, power_window_sec: float, power_limit_w: float | None) -> float | None:
        """How far the integrated energy can be from the truth."""
        if self._power.rhythm.count < 2:
            return None
        averaged_sec = 0.0 if self._power is self._instant else DRIVER_AVERAGE_SEC
        return uncertainty_of_j(
            self._power.steps_j,
            power_window_sec=max(power_window_sec, averaged_sec),
            power_limit_w=power_limit_w,
        )

    def telescoped(
        self,
        *,
        averaged_sec: float,
        guard_sec: float,
        power_limit_w: float | None,
        delay_sec: float,
        delay_within_sec: float,
    ) -> Telescoped | None:
        """Energy from averaged power that is told so late, where the device idled for `guard_sec` after the span; None where that cannot be told."""
        if not averaged_sec or not guard_sec:
            return None
        readings = AveragedReadings()
        name = self._power_column
        for at_sec, columns in self.read([name]):
            readings.add(*known(at_sec, columns[name]))
        return readings.telescoped(
            duration_sec=self.duration_sec,
            averaged_sec=averaged_sec,
            guard_sec=guard_sec,
            power_limit_w=power_limit_w,
            delay_sec=delay_sec,
            delay_within_sec=delay_within_sec,
        )

    @property
    def _power_column(self) -> str:
        return "power_w" if self._power is self._instant else AVERAGE

    @property
    def counted_energy_j(self) -> float | None:
        """Energy counter at the end minus at the start, each between two samples; None where either is beyond them.

        None too where the counter ran backwards, and over no time.
        """
        return self._counter.energy_j

    @property
    def _power(self) -> _Power:
        """The driver's average where it has nothing better."""
        return self._instant if self._instant.rhythm.count else self._average

    @property
    def powered(self) -> int:
        """Known samples of power, in and around the span."""
        return self._power.rhythm.count

    def power_curve(self, edges_sec: Column, *, shift_sec: float) -> Column:
        """Joules up to each of some moments, on a clock on which the span begins at `shift_sec`."""
        name = self._power_column
        curve = EnergyCurve(edges_sec)
        for at_sec, columns in self.read([name]):
            curve.add(*known(at_sec + shift_sec, columns[name]))
        return curve.found()

    def sum_of(self, column: str) -> tuple[float, int]:
        """Sum and number of the known values within the span."""
        return self._values[column].sum, self._values[column].known

    def largest(self, column: str) -> float | None:
        """Largest known value within the span; None where there is none."""
        return self._values[column].most

    @property
    def temperature_drift_c(self) -> float | None:
        """Highest minus lowest temperature within the span."""
        values = self._values["temperature_c"]
        return None if values.least is None or values.most is None else values.most - values.least

    def trace(
        self, *, counter_tick_sec: float | None, power_window_sec: float, made_up: str | None
    ) -> "DeviceTrace":
        """Power and counter in and around the span, in seconds from its start."""
        return DeviceTrace(
            samples=self,
            power=self._instant.rhythm,
            counter=self._counter.rhythm,
            counter_tick_sec=counter_tick_sec,
            power_window_sec=power_window_sec,
            made_up=made_up,
        )


class DeviceTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the energy of phases is read from it."""

    samples: DeviceSamples
    power: Rhythm
    counter: Rhythm
    counter_tick_sec: float | None
    power_window_sec: float
    made_up: str | None

    def pieces(self, start_sec: float, end_sec: float) -> Iterator[Samples]:
        """Those between two moments, with some beyond each where there are any."""
        for at_sec, columns in self.samples.read(("power_w", "energy_j"), (start_sec, end_sec)):
            yield at_sec, columns["power_w"], columns["energy_j"]


class _InPieces:
    """A device's samples around a span, some time at once: the same pieces for all spans, so that they are read once."""

    def __init__(self, source: Source, device: Device, span: Span) -> None:
        self._source, self._device = source, device
        self._span = span[0] - MARGIN_NS, span[1] + MARGIN_NS
        self._ranges = list(_cut(source, device, self._span))

    def pieces(self, names: Sequence[str], span: Span | None) -> Iterator[Piece]:
        """Columns of all pieces, or from the piece before the span to the piece after it."""
        for range_ns in self._ranges if span is None else self._around(span):
            yield _within(self._source.samples(self._device, range_ns, names), self._span)

    def _around(self, span: Span) -> Sequence[Span]:
        touching = [
            number
            for number, (first_ns, last_ns) in enumerate(self._ranges)
            if first_ns <= span[1] and last_ns >= span[0]
        ]
        return self._ranges[max(touching[0] - 1, 0) : touching[-1] + 2] if touching else self._ranges


def _cut(source: Source, device: Device, span: Span) -> Iterator[Span]:
    """Ranges of time that touch the span, of those with about so many samples each."""
    count, first_ns, last_ns = source.extent(device)
    if count <= PIECE_SAMPLES:
        yield first_ns, last_ns
        return
    step_ns = (last_ns - first_ns) // _BUCKETS + 1
    steps, counts = source.histogram(device, first_ns, step_ns=step_ns)
    for start, end in portions(steps, counts, most=PIECE_SAMPLES):
        range_ns = first_ns + start * step_ns, first_ns + (end + 1) * step_ns - 1
        if range_ns[0] <= span[1] and range_ns[1] >= span[0]:
            yield range_ns


def between(source: Source, device: Device, span: Span, names: Sequence[str]) -> Iterator[Piece]:
    """Columns of the samples in a span, in pieces."""
    for range_ns in _cut(source, device, span):
        yield _within(source.samples(device, range_ns, names), span)


def _within(piece: Piece, span: Span) -> Piece:
    at_ns, columns = piece
    first, end = np.searchsorted(at_ns, (span[0], span[1] + 1)).tolist()
    return at_ns[first:end], {name: column[first:end] for name, column in columns.items()}


def load_samples(source: Source, process: ProcessFacts, device_uuid: str, span: Span) -> DeviceSamples:
    """Samples of a device as its worker's sampler saw it, from a little before the span to a little after."""
    device = Device(process.process_index, device_uuid)
    values = partial(source.values, device, span, COUNTED)
    return DeviceSamples(span, _InPieces(source, device, span).pieces, values)
