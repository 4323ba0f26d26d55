"""Energy from a sensor that tells the mean power of the last seconds: what such means add up to, and how far that can be from the truth.

The mean over the last A seconds is a difference of energies, A x mean(t) = E(t) - E(t - A). For a window that opens at 0, the sum of
A x mean(iA) for i = 1 .. k is therefore E(kA) - E(0), whatever the load does in between. With kA at or past the window's end L, and nothing
but idle power after it, the window's energy is that sum less idle power x (kA - L).
"""

from typing import NamedTuple

import numpy as np

from llem.results.nullable import total
from llem.results.power import FloatArray

SEEN_APART = 1.5  # readings in a refresh, from which on two refreshes are told apart
STANDARD_DEVIATIONS = 3.0
_FEWEST_REFRESHES = 4
RESOLUTION_W = 0.001  # of the driver's milliwatts
# Of the time between two readings: a rhythm that fits more closely than that may not be the true one.
LEAST_WITHIN = 0.25
# Times the usual, from which on a stretch without a reading is one in which refreshes went by that nobody saw.
UNREAD = 2.0
SHIFTS = 5  # of all refreshes within what is known of their time, that are tried


class Telescoped(NamedTuple):
    """Joules of a window."""

    energy_j: float
    uncertainty_j: float | None  # None where the device's power limit is unknown

    def without(self, later: "Telescoped") -> "Telescoped":
        """The same without a window that ends where it does."""
        return Telescoped(self.energy_j - later.energy_j, total([self.uncertainty_j, later.uncertainty_j]))


class _Window(NamedTuple):
    """What is asked: from 0 on, with idling behind it."""

    duration_sec: float
    averaged_sec: float
    guard_sec: float
    power_limit_w: float | None

    def settled_sec(self, period_sec: float) -> float:
        """When the average holds nothing but idling."""
        return self.duration_sec + self.averaged_sec + period_sec

    def is_told(self, first_sec: float, last_sec: float, period_sec: float) -> bool:
        """Whether values from the first to the last moment reach from before it to where the device has idled long enough."""
        settled_sec = self.settled_sec(period_sec)
        idled_sec = self.duration_sec + self.guard_sec
        return first_sec <= 0 and last_sec >= settled_sec and idled_sec >= settled_sec + period_sec


class Refreshes(NamedTuple):
    """When a sensor took the values that it told."""

    at_sec: FloatArray
    power_w: FloatArray
    within_sec: FloatArray  # each lies within so long, in the middle of which it is placed
    period_sec: float  # between two; between two readings where each brings a new one
    unread_sec: FloatArray  # from when until when nobody looked, a row for each such stretch

    def earlier(self, delay_sec: float, within_sec: float) -> "Refreshes":
        """The same, told late."""
        if not delay_sec and not within_sec:
            return self
        return self._replace(
            at_sec=self.at_sec - delay_sec,
            within_sec=self.within_sec + 2 * within_sec,
            unread_sec=self.unread_sec - delay_sec + np.array([-within_sec, within_sec]),
        )

    def unread_within_sec(self, moments: FloatArray) -> FloatArray:
        """How far each moment is from the nearer end of the stretch without a reading in which it lies; 0 outside of any."""
        if not len(self.unread_sec):
            return np.zeros(len(moments))
        from_sec, until_sec = self.unread_sec.T
        latest = np.maximum(np.searchsorted(from_sec, moments) - 1, 0)
        nearer_sec: FloatArray = np.minimum(moments - from_sec[latest], until_sec[latest] - moments)
        return np.maximum(nearer_sec, 0.0)


class AveragedReadings:
    """Readings of averaged power, of which those are kept that brought a new value; they come in pieces, ascending."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last = np.empty(0), np.empty(0)
        self._changes: list[
            tuple[FloatArray, FloatArray, FloatArray]
        ] = []  # last of the old, first of the new
        self._periods_sec: list[float] = []
        self._apart_sec: list[FloatArray] = []  # from and until of stretches without a reading

    def add(self, at_sec: FloatArray, power_w: FloatArray) -> None:
        """The next known readings."""
        if not len(at_sec):
            return
        self._first = self._first or (float(at_sec[0]), float(power_w[0]))
        at, power = np.concatenate((self._last[0], at_sec)), np.concatenate((self._last[1], power_w))
        changed = np.flatnonzero(np.diff(power)) + 1
        self._changes.append((at[changed - 1], at[changed], power[changed]))
        if len(at) > 1:
            apart_sec = np.diff(at)
            self._periods_sec.append(float(np.median(apart_sec)))
            long = np.flatnonzero(apart_sec > UNREAD * min(self._periods_sec))
            self._apart_sec.append(np.stack((at[long], at[long + 1]), axis=1))
        self._last = at_sec[-1:], power_w[-1:]

    def telescoped(
        self,
        *,
        duration_sec: float,
        averaged_sec: float,
        guard_sec: float,
        power_limit_w: float | None,
        delay_sec: float = 0.0,
        delay_within_sec: float = 0.0,
    ) -> Telescoped | None:
        """Energy of a window that opens at 0, after which the device was idle for `guard_sec`.

        A reading tells the mean up to `delay_sec` before it, give or take `delay_within_sec`. None where the readings do not reach
        from before the window to the end of the guard, or the guard is too short: it takes the averaging time, the delay and two refreshes.
        """
        window = _Window(duration_sec, averaged_sec, guard_sec, power_limit_w)
        refreshes = self._refreshes()
        if refreshes is None:
            return None
        in_step = self._in_step(refreshes.period_sec, averaged_sec)
        if in_step is not None:
            late = in_step.earlier(delay_sec, delay_within_sec)
            found = late.telescoped(window)
            if found is not None:
                return found
        return _interpolated(refreshes.earlier(delay_sec, delay_within_sec), window)

    def _in_step(self, period_sec: float, averaged_sec: float) -> "_InStep | None":
        """The values one by one, where the averaging time is a whole number of refreshes and every one of them can be told.

        Each refresh lies between two readings. All of them together leave little room for a steady rhythm.
        """
        before, after, power_w = (np.concatenate(parts) for parts in zip(*self._changes, strict=True))
        per_average = round(averaged_sec / period_sec)
        if len(before) < _FEWEST_REFRESHES or per_average < 1 or len(self._unread_sec(period_sec)):
            return None
        period_sec = averaged_sec / per_average
        numbers = np.rint(((before + after - before[0] - after[0]) / 2) / period_sec).astype(np.int64)
        earliest, latest = (before - numbers * period_sec).max(), (after - numbers * period_sec).min()
        if earliest > latest or (after - before).max() >= period_sec or (np.diff(numbers) < 1).any():
            return None
        count = int((self._last[0][0] - latest) // period_sec) + 1
        lengths = np.diff(np.append(numbers, max(count, numbers[-1] + 1)))
        first_sec = float(earliest + latest) / 2
        within_sec = max(float(latest - earliest) / 2, LEAST_WITHIN * float(np.median(after - before)))
        return _InStep(first_sec, within_sec, period_sec, per_average, np.repeat(power_w, lengths))

    def _refreshes(self) -> Refreshes | None:
        """When the values were taken. One that stayed the same was taken again at every refresh; None without readings."""
        if self._first is None or not self._periods_sec:
            return None
        before, after, power_w = (np.concatenate(parts) for parts in zip(*self._changes, strict=True))
        between_sec = float(np.median(self._periods_sec))
        period_sec = refresh_period_sec((before + after) / 2, between_sec)
        at = np.concatenate(([self._first[0]], (before + after) / 2))
        power = np.concatenate(([self._first[1]], power_w))
        within = np.concatenate(([between_sec], after - before))
        ends = np.append(at[1:], self._last[0] + period_sec / 2)
        unseen = np.maximum(np.rint((ends - at) / period_sec).astype(np.int64) - 1, 0)
        held = np.repeat(np.arange(len(at)), unseen)
        steps_back = np.concatenate([np.arange(count, 0, -1) for count in unseen]) if len(held) else held
        taken = np.concatenate((at, ends[held] - steps_back * period_sec))
        order = np.argsort(taken, kind="stable")
        return Refreshes(
            taken[order],
            np.concatenate((power, power[held]))[order],
            np.concatenate((within, within[held]))[order],
            period_sec,
            self._unread_sec(period_sec),
        )

    def _unread_sec(self, period_sec: float) -> FloatArray:
        """Stretches without a reading in which refreshes went by."""
        apart_sec = np.concatenate(self._apart_sec)
        return apart_sec[np.diff(apart_sec, axis=1)[:, 0] > UNREAD * period_sec]


class _InStep(NamedTuple):
    """The values of a sensor that averages over a whole number of its refreshes: the energies between these are known."""

    first_sec: float  # of the first value
    within_sec: float  # either way, the same of all
    period_sec: float
    per_average: int
    power_w: FloatArray  # one a refresh

    def earlier(self, delay_sec: float, within_sec: float) -> "_InStep":
        """The same, told late."""
        return self._replace(first_sec=self.first_sec - delay_sec, within_sec=self.within_sec + within_sec)

    def telescoped(self, window: _Window) -> Telescoped | None:
        """The same as of any readings; what is not known is where within a refresh the window began."""
        last_sec = self.first_sec - self.within_sec + (len(self.power_w) - 1) * self.period_sec
        if not window.is_told(self.first_sec + self.within_sec + self.period_sec, last_sec, self.period_sec):
            return None
        idled_sec = min(last_sec, window.duration_sec + window.guard_sec)
        settled, ends = (self._number_at(each) for each in (window.settled_sec(self.period_sec), idled_sec))
        idle_w, idle_end_w = self.power_w[[settled, ends]].tolist()
        energy_j, _, _ = self._energies(0.0, window, idle_w)
        if window.power_limit_w is None:
            return Telescoped(energy_j, None)
        shifts_sec = np.linspace(-self.within_sec, self.within_sec, SHIFTS)
        possible_j = [each for shift in shifts_sec for each in self._energies(float(shift), window, idle_w)]
        after_sec = window.averaged_sec + self.period_sec
        rest_j = abs(idle_end_w - idle_w) * after_sec + RESOLUTION_W * (window.duration_sec + after_sec)
        rest_j += self._rhythm_j(window, abs(energy_j / window.duration_sec - idle_w))
        return Telescoped(energy_j, max(max(possible_j) - energy_j, energy_j - min(possible_j)) + rest_j)

    def _rhythm_j(self, window: _Window, mean_w: float) -> float:
        """A little slower or faster all along, the refreshes move against the averaging time by as much as is not known of them."""
        share = (window.duration_sec + window.averaged_sec) / (len(self.power_w) * self.period_sec)
        return 2 * self.within_sec * min(1.0, share) * mean_w

    def _number_at(self, at_sec: float) -> int:
        """The last value before a moment."""
        return int((at_sec - self.first_sec) // self.period_sec)

    def _energies(self, shift_sec: float, window: _Window, idle_w: float) -> tuple[float, float, float]:
        """Where all refreshes were so much later: by an even power within the refresh in which the window began; and the least and most."""
        number = self._number_at(-shift_sec)
        before_sec = -shift_sec - self.first_sec - number * self.period_sec
        after_sec = self.period_sec - before_sec
        from_j, next_j = (self._until_end_j(each, shift_sec, window, idle_w) for each in (number, number + 1))
        refresh_j, limit_w = from_j - next_j, window.power_limit_w or 0.0
        even_j = refresh_j * before_sec / self.period_sec
        least_j = min(even_j, max(0.0, refresh_j - limit_w * after_sec))
        most_j = max(even_j, min(refresh_j, limit_w * before_sec))
        return from_j - even_j, from_j - most_j, from_j - least_j

    def _until_end_j(self, number: int, shift_sec: float, window: _Window, idle_w: float) -> float:
        """From a refresh to the end of the window."""
        left_sec = window.duration_sec - (self.first_sec + shift_sec + number * self.period_sec)
        count = int(np.ceil(left_sec / window.averaged_sec - 1e-9))
        means_w = self.power_w[number :: self.per_average][1 : count + 1]
        return window.averaged_sec * float(means_w.sum()) - idle_w * (count * window.averaged_sec - left_sec)


def _interpolated(refreshes: Refreshes, window: _Window) -> Telescoped | None:
    """Of averages between two refreshes, where they keep no step with the averaging time."""
    at_sec, period_sec = refreshes.at_sec, refreshes.period_sec
    if not window.is_told(float(at_sec[0]), float(at_sec[-1]), period_sec):
        return None
    count = int(np.ceil(window.duration_sec / window.averaged_sec - 1e-9))
    moments = np.arange(1, count + 1, dtype=np.float64) * window.averaged_sec
    idle_sec = count * window.averaged_sec - window.duration_sec
    idle_w = np.interp(
        (window.settled_sec(period_sec), window.duration_sec + window.guard_sec), at_sec, refreshes.power_w
    )
    energy_j = window.averaged_sec * refreshes_at(refreshes, moments).sum() - idle_w[0] * idle_sec
    bound_j = None
    if window.power_limit_w is not None:
        bound_j = float(np.ptp(idle_w)) * idle_sec
        bound_j += _uncertainty_j(refreshes, moments, window.averaged_sec, window.power_limit_w)
    return Telescoped(float(energy_j), bound_j)


def refreshes_at(refreshes: Refreshes, moments: FloatArray) -> FloatArray:
    """Averaged power in watts at moments between refreshes."""
    found: FloatArray = np.interp(moments, refreshes.at_sec, refreshes.power_w)
    return found


def refresh_period_sec(taken_sec: FloatArray, between_readings_sec: float) -> float:
    """Time between two refreshes, from when the value changed; at least that between two readings."""
    if len(taken_sec) < _FEWEST_REFRESHES:
        return between_readings_sec
    gaps = np.diff(taken_sec)
    single = gaps[gaps <= 1.75 * np.quantile(gaps, 0.2)]
    period_sec = float(single.mean())
    if period_sec <= SEEN_APART * between_readings_sec:
        return between_readings_sec
    return float(gaps.sum() / np.rint(gaps / period_sec).sum())


def _uncertainty_j(
    refreshes: Refreshes, moments: FloatArray, averaged_sec: float, power_limit_w: float
) -> float:
    """How far the sum of averages can be from the energy up to the last of the moments, but for the idle power after the window.

    Between two refreshes the energy lies between two lines of the least and the greatest power: at the window's start it is
    at most a quarter of a refresh times that range from the line between them. All refreshes may have been half the time between
    two readings earlier or later than they are placed, which moves both ends. Where the refreshes drift against the moments, each
    step leaves a quarter of the drift. What is placed wrongly one by one adds up as independent errors do; in a stretch without a
    reading the average can have moved by the whole range since the nearer end, and such errors add up as they are.
    """
    period_sec = refreshes.period_sec
    range_w = power_limit_w - float(refreshes.power_w.min())
    within_sec = np.interp(moments, refreshes.at_sec, refreshes.within_sec)
    start_j = range_w * (period_sec / 4 + float(np.median(refreshes.within_sec)) / 2)
    drift_sec = abs(averaged_sec - round(averaged_sec / period_sec) * period_sec)
    drift_j = len(moments) * drift_sec * range_w / 4
    around = np.stack([refreshes_at(refreshes, moments + step * period_sec) for step in (-1, 0, 1)])
    steepest_w = np.abs(np.diff(around, axis=0)).max(axis=0) * averaged_sec / period_sec
    misplaced_j = np.minimum(steepest_w, range_w) * within_sec / np.sqrt(12)
    uneven_j = range_w / 4 * within_sec / np.sqrt(6)
    random_j = np.sqrt((misplaced_j**2 + uneven_j**2).sum())
    unread_j = range_w * float(refreshes.unread_within_sec(moments).sum())
    return float(start_j + drift_j + unread_j + STANDARD_DEVIATIONS * random_j)
