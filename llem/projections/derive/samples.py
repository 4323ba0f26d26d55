"""Samples of one device in and around a span, read in pieces, and what they say of it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from llem.projections.derive.history import ProcessFacts
from llem.projections.derive.pieces import Asked
from llem.projections.derive.source import Column, Device, Piece, Source, Span, Values
from llem.results.averaged_power import AveragedReadings, Telescoped
from llem.results.nullable import largest
from llem.results.phases import SILENT_PERIODS, Samples, known, known_of
from llem.results.power import EnergyCurve, Interpolated, LeftOut, Rhythm, half_steps_j, uncertainty_of_j
from llem.results.throttling import ANY_REASON
from llem.units import MJ_PER_J, NS_PER_S, seconds

MARGIN_NS = 5 * NS_PER_S  # so that the power at an edge lies between two samples
EXTRAPOLATED_SEC = 0.5
DRIVER_AVERAGE_SEC = 1.0
AVERAGE = "power_average_w"  # the driver's, which nobody asks for where it has something better
# Whole numbers, whose sum is the same in whatever order they are added.
COUNTED = ("temperature_c", "gpu_utilisation_pct", "memory_utilisation_pct", "memory_used_bytes")
MAX_STARTS = 10_000  # of stretches that a result may name


class Throttling(msgspec.Struct, frozen=True, kw_only=True):
    """Stretches whose sample reports a reason; a sample speaks for the time until the next one."""

    reasons: int  # all that were reported for any time
    starts_sec: Column  # of the first stretches with any reason
    duration_sec: float  # of all of them: elapsed time is counted and not samples


class _Throttle:
    """The same, from samples that come in pieces: one is looked at when the next is there."""

    def __init__(self, duration_sec: float) -> None:
        self._duration_sec = duration_sec
        self._waiting: tuple[Column, Column, LeftOut | None] | None = None
        self._reasons = 0
        self._starts: list[Column] = []
        self._lengths_sec: list[float] = []

    def add(self, at_sec: Column, reasons: Column, left_out: LeftOut | None) -> None:
        if len(at_sec):
            self._look(float(at_sec[0]))
            self._waiting = at_sec, reasons, left_out

    def throttling(self) -> Throttling | None:
        """None where no reason was read."""
        if self._waiting is None:
            return None
        self._look(self._duration_sec)
        starts = np.concatenate(self._starts)[:MAX_STARTS]
        return Throttling(reasons=self._reasons, starts_sec=starts, duration_sec=math.fsum(self._lengths_sec))

    def _look(self, next_sec: float) -> None:
        if self._waiting is None:
            return
        at_sec, reasons, left_out = self._waiting
        edges = np.clip(np.append(at_sec, next_sec), 0.0, self._duration_sec)
        lengths = np.diff(edges)
        bits = np.clip(reasons, 0, 2**53).astype(np.int64)
        reported = ((bits & ANY_REASON) != 0) & (lengths > 0)
        if left_out is not None:
            # What lies after a sample stands at the next one.
            hides = np.append(left_out.any[1:], False)
            throttled_sec = np.append(left_out.throttled_sec[1:], 0.0)
            throttle_bits = np.append(left_out.throttle_bits[1:], 0)
            self._lengths_sec.append(float(throttled_sec[hides & (lengths > 0)].sum()))
            bits = np.where(hides, throttle_bits, bits)
            reported &= ~hides
        self._reasons |= int(np.bitwise_or.reduce(bits[lengths > 0], initial=0))
        if sum(map(len, self._starts)) < MAX_STARTS:
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

    def add(self, at_sec: Column, left_out: LeftOut | None) -> None:
        within = _between(at_sec, self._duration_sec)
        inside = at_sec[within]
        if len(inside):
            gaps_sec = np.diff(inside)
            if left_out is not None:
                after = left_out.of(slice(within.start + 1, within.stop))
                gaps_sec = np.where(after.any, after.longest_sec, gaps_sec)
                self.count += int(after.samples.sum())
            self.count += len(inside)
            longest_sec = float(gaps_sec.max(initial=0.0))
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

    def add(self, at_sec: Column, power_w: Column, left_out: LeftOut | None = None) -> None:
        if not len(at_sec):
            return
        self.rhythm.add(at_sec, power_w, left_out)
        self.gaps.add(at_sec, left_out)
        self._energy.add(at_sec, power_w, left_out)
        at, power = np.concatenate((self._last[0], at_sec)), np.concatenate((self._last[1], power_w))
        before = None if left_out is None else left_out.after(len(self._last[0]))
        self._steps_j.append(
            half_steps_j(at, power, start_sec=0.0, end_sec=self._duration_sec, left_out=before)
        )
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

    def add(self, at_sec: Column, energy_j: Column, left_out: LeftOut | None) -> None:
        self.rhythm.add(at_sec, energy_j, left_out)
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
    """What one device's samples say of a span, from a little before it to a little after, and what is asked of moments of it."""

    def __init__(self, source: Source, device: Device, span: Span) -> None:
        self.span = span
        self._source, self._device = source, device
        self.duration_sec = seconds(span[1] - span[0])
        self.repeated = 0
        self.highest_power_w: float | None = None
        self._rows = _Gaps(self.duration_sec)
        self._instant, self._average = _Power(self.duration_sec), _Power(self.duration_sec)
        self._counter = _Counter(self.duration_sec)
        last_sec = -math.inf
        for at_sec, columns, left_out in self.series((0.0, self.duration_sec)):
            if len(at_sec):
                self.repeated += int(np.count_nonzero(at_sec[1:] <= at_sec[:-1]) + (at_sec[0] <= last_sec))
                last_sec = float(at_sec[-1])
                self._add(at_sec, columns, left_out)
        if not self._instant.rhythm.count:
            for at_sec, average_w in self._read(AVERAGE):
                self._average.add(*known(at_sec, average_w))

    @cached_property
    def throttling(self) -> Throttling | None:
        """None where no reason was read; nobody asks it of most spans."""
        throttle = _Throttle(self.duration_sec)
        for at_sec, columns, left_out in self.series((0.0, self.duration_sec), throttled=MAX_STARTS):
            throttle.add(*known_of(at_sec, columns["throttle_reasons"], left_out))
        return throttle.throttling()

    @cached_property
    def _values(self) -> Mapping[str, Values]:
        """What columns that are only counted hold within the span; nobody asks it of most spans."""
        return self._source.values(self._device, self.span, COUNTED)

    def _add(self, at_sec: Column, columns: Mapping[str, Column], left_out: LeftOut | None) -> None:
        self._rows.add(at_sec, left_out)
        self._counter.add(*known_of(at_sec, columns["energy_j"], left_out))
        self._instant.add(*known_of(at_sec, columns["power_w"], left_out))
        within = _between(at_sec, self.duration_sec)
        highest_w = np.fmax.reduce(columns["power_w"][within], initial=np.nan)
        if left_out is not None:
            after = left_out.of(slice(within.start + 1, within.stop))
            highest_w = np.fmax.reduce(after.highest_w[after.any], initial=highest_w)
        self.highest_power_w = largest(
            [self.highest_power_w, None if math.isnan(highest_w) else float(highest_w)]
        )

    @property
    def count(self) -> int:
        """Samples within the span."""
        return self._rows.count

    @property
    def _around(self) -> Span:
        return self.span[0] - MARGIN_NS, self.span[1] + MARGIN_NS

    def _read(self, name: str) -> Iterator[tuple[Column, Column]]:
        """All values of a column, with seconds from the span's start."""
        for at_ns, columns in between(self._source, self._device, self._around, [name]):
            yield (at_ns - self.span[0]) / NS_PER_S, columns[name]

    def series(
        self,
        moments_sec: ArrayLike,
        *,
        shift_sec: float = 0.0,
        longest_sec: float = math.inf,
        throttled: int = 0,
    ) -> Iterator[tuple[Column, Mapping[str, Column], LeftOut | None]]:
        """Samples in and around the span on a clock on which it begins at `shift_sec`; none is left out around the moments, or of longer gaps."""
        asked = Asked(
            moments_sec=np.asarray(moments_sec, np.float64),
            origin_ns=self.span[0],
            shift_sec=shift_sec,
            longest_ns=longest_sec * NS_PER_S,
            throttled=throttled,
        )
        for at_ns, columns, left_out in self._source.series(self._device, self._around, asked):
            yield asked.seconds(at_ns), columns, left_out

    def at_ends_of_pieces(self, moments_sec: Column, *, within_sec: float) -> Column:
        """Each moment moved to the next one before which samples may be left out, where that comes soon."""
        ends_ns = self._source.moments(self._device, self._around)
        if not len(ends_ns):
            return moments_sec
        ends_sec = (ends_ns - self.span[0]) / NS_PER_S
        places = np.minimum(np.searchsorted(ends_sec, moments_sec), len(ends_sec) - 1)
        waits_sec = ends_sec[places] - moments_sec
        soon = (waits_sec > 0) & (waits_sec <= within_sec) & (moments_sec > 0)
        return np.where(soon, ends_sec[places], moments_sec)

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
        idling: Span | None,
        power_limit_w: float | None,
        delay_sec: float,
        delay_within_sec: float,
    ) -> Telescoped | None:
        """Energy from averaged power that is told so late, where the device was idling at some time after the span; None where that cannot be told.

        Where it did not idle from the span's end on, what it used until then is found in the same way and taken off.
        """
        if not averaged_sec or idling is None:
            return None
        opened_ns, closed_ns = self.span
        until_idle, between_them = (
            self._averaged(from_ns, idling[0]).telescoped(
                duration_sec=seconds(idling[0] - from_ns),
                averaged_sec=averaged_sec,
                guard_sec=seconds(idling[1] - idling[0]),
                power_limit_w=power_limit_w,
                delay_sec=delay_sec,
                delay_within_sec=delay_within_sec,
            )
            if from_ns < idling[0]
            else Telescoped(0.0, 0.0)
            for from_ns in (opened_ns, closed_ns)
        )
        return None if until_idle is None or between_them is None else until_idle.without(between_them)

    def _averaged(self, from_ns: int, until_ns: int) -> AveragedReadings:
        """Readings in and around another span."""
        readings, around = AveragedReadings(), (from_ns - MARGIN_NS, until_ns + MARGIN_NS)
        for at_ns, columns in between(self._source, self._device, around, [self._power_column]):
            readings.add(*known((at_ns - from_ns) / NS_PER_S, columns[self._power_column]))
        return readings

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
        curve = EnergyCurve(edges_sec)
        if self._power is self._instant:
            for at_sec, columns, left_out in self.series(edges_sec, shift_sec=shift_sec):
                curve.add(*known_of(at_sec, columns["power_w"], left_out))
            return curve.found()
        for at_sec, average_w in self._read(AVERAGE):
            curve.add(*known(at_sec + shift_sec, average_w))
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

    def pieces(self, moments_sec: Column) -> Iterator[Samples]:
        """Samples around and between some moments."""
        rhythms = [rhythm for rhythm in (self.power, self.counter) if rhythm.count > 1]
        longest_sec = min((SILENT_PERIODS * rhythm.period_sec for rhythm in rhythms), default=math.inf)
        for at_sec, columns, left_out in self.samples.series(moments_sec, longest_sec=longest_sec):
            yield at_sec, columns["power_w"], columns["energy_j"], left_out


def between(source: Source, device: Device, span: Span, names: Sequence[str]) -> Iterator[Piece]:
    """Columns of the samples in a span, in pieces."""
    for range_ns in source.ranges(device, span):
        at_ns, columns = source.samples(device, range_ns, names)
        first, end = np.searchsorted(at_ns, (span[0], span[1] + 1)).tolist()
        yield at_ns[first:end], {name: column[first:end] for name, column in columns.items()}


def load_samples(source: Source, process: ProcessFacts, device_uuid: str, span: Span) -> DeviceSamples:
    """Samples of a device as its worker's sampler saw it, from a little before the span to a little after."""
    return DeviceSamples(source, Device(process.process_index, device_uuid), span)
