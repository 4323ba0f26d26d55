"""Energy from a sensor that tells the mean power of the last seconds: what such means add up to, and how far that can be from the truth.

The mean over the last A seconds is a difference of energies, A x mean(t) = E(t) - E(t - A). For a window that opens at 0, the sum of
A x mean(iA) for i = 1 .. k is therefore E(kA) - E(0), whatever the load does in between. With kA at or past the window's end L, and nothing
but idle power after it, the window's energy is that sum less idle power x (kA - L).
"""

from typing import NamedTuple

import numpy as np

from llem.results.power import FloatArray

SEEN_APART = 1.5  # readings in a refresh, from which on two refreshes are told apart
STANDARD_DEVIATIONS = 3.0
_FEWEST_REFRESHES = 4


class Telescoped(NamedTuple):
    """Joules of a window."""

    energy_j: float
    uncertainty_j: float | None  # None where the device's power limit is unknown


class Refreshes(NamedTuple):
    """When a sensor took the values that it told."""

    at_sec: FloatArray
    power_w: FloatArray
    within_sec: FloatArray  # each lies within so long, in the middle of which it is placed
    period_sec: float  # between two; between two readings where each brings a new one


class AveragedReadings:
    """Readings of averaged power, of which those are kept that brought a new value; they come in pieces, ascending."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._last = np.empty(0), np.empty(0)
        self._changes: list[
            tuple[FloatArray, FloatArray, FloatArray]
        ] = []  # last of the old, first of the new
        self._periods_sec: list[float] = []

    def add(self, at_sec: FloatArray, power_w: FloatArray) -> None:
        """The next known readings."""
        if not len(at_sec):
            return
        self._first = self._first or (float(at_sec[0]), float(power_w[0]))
        at, power = np.concatenate((self._last[0], at_sec)), np.concatenate((self._last[1], power_w))
        changed = np.flatnonzero(np.diff(power)) + 1
        self._changes.append((at[changed - 1], at[changed], power[changed]))
        if len(at) > 1:
            self._periods_sec.append(float(np.median(np.diff(at))))
        self._last = at_sec[-1:], power_w[-1:]

    def telescoped(
        self, *, duration_sec: float, averaged_sec: float, guard_sec: float, power_limit_w: float | None
    ) -> Telescoped | None:
        """Energy of a window that opens at 0, after which the device was idle for `guard_sec`.

        None where the readings do not reach from before the window to the end of the guard, or the guard is too short:
        it takes the averaging time and two refreshes.
        """
        refreshes = self._refreshes()
        if refreshes is None:
            return None
        at_sec, period_sec = refreshes.at_sec, refreshes.period_sec
        settled_sec = duration_sec + averaged_sec + period_sec
        guarded_sec = duration_sec + guard_sec
        if at_sec[0] > 0 or at_sec[-1] < settled_sec or guarded_sec < settled_sec + period_sec:
            return None
        count = int(np.ceil(duration_sec / averaged_sec - 1e-9))
        moments = np.arange(1, count + 1, dtype=np.float64) * averaged_sec
        idle_sec = count * averaged_sec - duration_sec
        idle_w = np.interp((settled_sec, guarded_sec), at_sec, refreshes.power_w)
        energy_j = averaged_sec * refreshes_at(refreshes, moments).sum() - idle_w[0] * idle_sec
        spread_j = float(np.ptp(idle_w)) * idle_sec
        bound_j = None
        if power_limit_w is not None:
            bound_j = spread_j + _uncertainty_j(refreshes, moments, averaged_sec, power_limit_w)
        return Telescoped(float(energy_j), bound_j)

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
        )


def refreshes_at(refreshes: Refreshes, moments: FloatArray) -> FloatArray:
    """Averaged power in watts at moments between refreshes."""
    found: FloatArray = np.interp(moments, refreshes.at_sec, refreshes.power_w)
    return found


def refresh_period_sec(taken_sec: FloatArray, between_readings_sec: float) -> float:
    """Time between two refreshes, from when the value changed; at least that between two readings."""
    if len(taken_sec) < _FEWEST_REFRESHES:
        return between_readings_sec
    gaps = np.diff(taken_sec)
    single = gaps[gaps <= 1.5 * np.quantile(gaps, 0.2)]
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
    step leaves a quarter of the drift. What is placed wrongly one by one adds up as independent errors do.
    """
    period_sec = refreshes.period_sec
    range_w = power_limit_w - float(refreshes.power_w.min())
    within_sec = np.interp(moments, refreshes.at_sec, refreshes.within_sec)
    start_j = range_w * (period_sec / 4 + float(np.median(refreshes.within_sec)) / 2)
    drift_sec = abs(averaged_sec - round(averaged_sec / period_sec) * period_sec)
    drift_j = len(moments) * min(drift_sec, period_sec / 2) * range_w / 4
    around = np.stack([refreshes_at(refreshes, moments + step * period_sec) for step in (-1, 0, 1)])
    steepest_w = np.abs(np.diff(around, axis=0)).max(axis=0) * averaged_sec / period_sec
    misplaced_j = np.minimum(steepest_w, range_w) * within_sec / np.sqrt(12)
    uneven_j = range_w / 4 * within_sec / np.sqrt(6)
    random_j = np.sqrt((misplaced_j**2 + uneven_j**2).sum())
    return float(start_j + drift_j + STANDARD_DEVIATIONS * random_j)
