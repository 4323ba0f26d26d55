"""Energy from samples of power: trapezoids between samples, power at the edges interpolated; and how far an energy can be from the truth."""

import abc
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
STANDARD_DEVIATIONS = 3.0


class LeftOut(NamedTuple):
    """What samples say that are left out of a series, between two that are in it: enough for sums and extremes, and for no moment between.

    Of each sample of the series: what lies between it and the one before; 0 where nothing was left out there.
    """

    samples: NDArray[np.int64]
    longest_sec: FloatArray  # between two of all of them
    trapezoids_j: FloatArray
    half_steps_j: FloatArray
    highest_w: FloatArray
    falls: NDArray[np.int64]  # of the energy counter
    throttled_sec: FloatArray
    throttle_bits: NDArray[np.int64]

    @property
    def any(self) -> NDArray[np.bool_]:
        """Whether something was."""
        return self.samples > 0

    def of(self, chosen: NDArray[Any] | slice) -> Self:
        """Of some samples."""
        columns: Iterable[Any] = (column[chosen] for column in self)
        return type(self)(*columns)

    def after(self, samples: int) -> Self:
        """The same after so many others, before which nothing was left out."""
        if not samples:
            return self
        columns: Iterable[Any] = (
            np.concatenate((np.zeros(samples, column.dtype), column)) for column in self
        )
        return type(self)(*columns)


class AtMoments(abc.ABC):
    """Something known between samples, at moments that are chosen beforehand; the samples come in pieces, ascending.

    NaN at a moment that is NaN, and everywhere without a sample.
    """

    def __init__(self, moments_sec: ArrayLike) -> None:
        self._moments = np.asarray(moments_sec, np.float64)
        self._order = np.argsort(self._moments, kind="stable")
        self._known = len(self._moments) - int(np.isnan(self._moments).sum())
        self._passed = 0
        self._last: tuple[FloatArray, FloatArray] | None = None
        self._found = np.full(len(self._moments), np.nan)

    def add(self, at_sec: FloatArray, values: FloatArray, left_out: LeftOut | None = None) -> None:
        """The next samples; none of the moments may lie where some were left out."""
        if not len(at_sec):
            return
        last_at, last_value = self._last or (at_sec[:0], values[:0])
        at, known = np.concatenate((last_at, at_sec)), np.concatenate((last_value, values))
        self._last = at_sec[-1:], values[-1:]
        ordered = self._moments[self._order[self._passed : self._known]]
        before = None if left_out is None else left_out.after(len(last_at))
        self._pass(int(np.searchsorted(ordered, at_sec[-1], side="right")), at, known, before)

    def found(self) -> FloatArray:
        """At each of the moments; beyond the last sample all stays as it was."""
        if self._last is not None:
            self._pass(self._known - self._passed, *self._last, None)
        return self._found

    def _pass(self, count: int, at_sec: FloatArray, values: FloatArray, left_out: LeftOut | None) -> None:
        places = self._order[self._passed : self._passed + count]
        self._passed += count
        self._found[places] = self._between(self._moments[places], at_sec, values, left_out)

    @abc.abstractmethod
    def _between(
        self, moments: FloatArray, at_sec: FloatArray, values: FloatArray, left_out: LeftOut | None
    ) -> FloatArray:
        """At moments up to the last of these samples, the first of which is the last of those before."""


class Interpolated(AtMoments):
    """A value between two samples lies on the line between them."""

    def _between(
        self, moments: FloatArray, at_sec: FloatArray, values: FloatArray, left_out: LeftOut | None
    ) -> FloatArray:
        return np.interp(moments, at_sec, values)


class EnergyCurve(AtMoments):
    """Joules of power in watts from the first moment to each."""

    _summed_j = 0.0

    def found(self) -> FloatArray:
        """At each of the moments; the power stays as it was beyond the samples."""
        summed = super().found()
        first = summed[~np.isnan(summed)][:1]
        return summed - first if len(first) else summed

    def _between(
        self, moments: FloatArray, at_sec: FloatArray, values: FloatArray, left_out: LeftOut | None
    ) -> FloatArray:
        trapezoids = np.diff(at_sec)
        trapezoids *= values[1:] + values[:-1]
        trapezoids /= 2
        if left_out is not None:
            trapezoids = np.where(left_out.any[1:], left_out.trapezoids_j[1:], trapezoids)
        summed = np.cumsum(np.concatenate(([self._summed_j], trapezoids)))
        self._summed_j = float(summed[-1])
        before = np.maximum(np.searchsorted(at_sec, moments, side="right") - 1, 0)
        mean_w = (values[before] + np.interp(moments, at_sec, values)) / 2
        found: FloatArray = summed[before] + (moments - at_sec[before]) * mean_w
        return found


class Rhythm:
    """When the known samples of a column came, and whether it ever fell; they come in pieces, ascending."""

    def __init__(self) -> None:
        self.count = 0
        self.first_sec = self.last_sec = self.first_value = math.nan
        self.fell = False
        self._last_value = math.nan
        self._periods_sec: list[float] = []

    def add(self, at_sec: FloatArray, values: FloatArray, left_out: LeftOut | None = None) -> None:
        """The next samples."""
        if not len(at_sec):
            return
        before = [] if self.count == 0 else [self.last_sec]
        gaps_sec = np.diff(np.concatenate((before, at_sec)))
        if len(gaps_sec):
            self._periods_sec.append(_median_sec(gaps_sec, left_out))
        if left_out is not None:
            self.fell = self.fell or bool(left_out.falls.any())
            self.count += int(left_out.samples.sum())
        self.fell = self.fell or bool(values[0] < self._last_value or (values[1:] < values[:-1]).any())
        if math.isnan(self.first_sec):
            self.first_sec, self.first_value = float(at_sec[0]), float(values[0])
        self.last_sec, self._last_value = float(at_sec[-1]), float(values[-1])
        self.count += len(at_sec)

    @property
    def period_sec(self) -> float:
        """The median time between two samples; of a long run, the median of those of its pieces."""
        if len(self._periods_sec) == 1:
            return self._periods_sec[0]
        return float(np.median(self._periods_sec))


def _median_sec(gaps_sec: FloatArray, left_out: LeftOut | None) -> float:
    """Of the times between samples; those between samples that were left out are alike."""
    if left_out is None:
        return float(np.median(gaps_sec))
    times = left_out.samples[-len(gaps_sec) :] + 1
    each_sec = gaps_sec / times
    order = np.argsort(each_sec, kind="stable")
    passed = np.cumsum(times[order])
    return float(each_sec[order][np.searchsorted(passed, passed[-1] / 2)])


def cumulative_energy_j(at_sec: ArrayLike, power_w: ArrayLike, *, edges_sec: ArrayLike) -> FloatArray:
    """Energy in joules from the first edge to each edge; ascending times, power constant beyond the samples."""
    curve = EnergyCurve(edges_sec)
    curve.add(np.asarray(at_sec, np.float64), np.asarray(power_w, np.float64))
    return curve.found()


def energy_between_j(
    at_sec: Sequence[float], power_w: Sequence[float], *, start_sec: float, end_sec: float
) -> float | None:
    """Energy in joules of a window; None where fewer than two samples lie in it or at its edges."""
    at = np.asarray(at_sec, dtype=np.float64)
    if np.count_nonzero((at >= start_sec) & (at <= end_sec)) < 2:
        return None
    return float(cumulative_energy_j(at, power_w, edges_sec=(start_sec, end_sec))[-1])


def counter_uncertainty_j(*, tick_sec: float | None, highest_power_w: float | None) -> float | None:
    """Joules in one tick at the highest power: each edge is read at most a tick after the counter's last change."""
    return None if tick_sec is None or highest_power_w is None else tick_sec * highest_power_w


def integral_uncertainty_j(
    at_sec: ArrayLike,
    power_w: ArrayLike,
    *,
    start_sec: float,
    end_sec: float,
    power_window_sec: float = 0.0,
    power_limit_w: float | None = None,
) -> float | None:
    """Half of every step between two samples, for as long as it lasts; and for averaged power what crosses the edges.

    Between samples p and q the true mean lies between p and q, the trapezoid takes their middle: |p - q| / 2 times the
    time between them. An average over the last A seconds carries energy in at one edge and out at the other, each
    weighed from 0 to 1 over A: together at most A / 2 times the range of the power, here 0 to the device's limit.
    None without samples, or for averaged power without a limit.
    """
    at, power = np.asarray(at_sec, np.float64), np.asarray(power_w, np.float64)
    if len(at) < 2:
        return None
    steps_j = half_steps_j(at, power, start_sec=start_sec, end_sec=end_sec)
    return uncertainty_of_j(steps_j, power_window_sec=power_window_sec, power_limit_w=power_limit_w)


def half_steps_j(
    at_sec: FloatArray,
    power_w: FloatArray,
    *,
    start_sec: float,
    end_sec: float,
    left_out: LeftOut | None = None,
) -> float:
    """Half of every step between two samples that touches the span, for as long as it lasts."""
    first = int(np.searchsorted(at_sec[1:], start_sec, side="right"))
    end = int(np.searchsorted(at_sec[:-1], end_sec)) + 1
    steps_j = np.abs(np.diff(power_w[first:end]))
    steps_j *= np.diff(at_sec[first:end])
    if left_out is not None:
        after = left_out.of(slice(first + 1, end))
        steps_j = np.where(after.any, 2 * after.half_steps_j, steps_j)
    return float(steps_j.sum()) / 2


def uncertainty_of_j(steps_j: float, *, power_window_sec: float, power_limit_w: float | None) -> float | None:
    """These half steps, and what averaged power carries over the edges; None for averaged power without a limit."""
    if power_window_sec and power_limit_w is None:
        return None
    return steps_j + power_window_sec / 2 * (power_limit_w or 0.0)


def hidden_j(
    energy_j: float,
    *,
    duration_sec: float,
    seen_share: float,
    least_w: float,
    most_w: float,
    shifts: int = 0,
) -> float:
    """How far power from a sensor that sees a part of the time can be from the truth: what a load in step with it could hide.

    Of every refresh the sensor sees a share s, and takes the rest for the same. The rest can have been anything from the least to the most power of
    the device, in every refresh alike where the load keeps step with the sensor (0 shifts). Where the load is shifted n times by a random part of a
    refresh, what is seen is right on the average, and off by the standard deviation of a power between the least and the most, at most half of that
    range, over the square root of n.
    """
    unseen = 1 - seen_share
    in_step_j = unseen * max(most_w * duration_sec - energy_j, energy_j - least_w * duration_sec)
    if not shifts:
        return in_step_j
    deviation_j = min(unseen, 0.5) * (most_w - least_w) * duration_sec / math.sqrt(shifts)
    return min(in_step_j, STANDARD_DEVIATIONS * deviation_j)
