"""What a power sensor makes of a load that is switched on and off at known times: how often it looks, over how long, and how late.

A reading taken at t is modelled as the mean of the load from t - delay - window to t - delay, between the power of idling and that of the load.
A sensor whose window is shorter than the time between two refreshes sees a part of the time, and so does one that tells the mean of the last
of such looks. The alternative is a low-pass filter of first order, whose readings follow the load exponentially; the model that leaves
the least unexplained is the sensor's shape.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from llem.results.averaged_power import SEEN_APART, refresh_period_sec
from llem.results.power import FloatArray
from llem.results.student_t import LEVEL, Estimate, quantile

# Load at moments, from 0 to 1, for a window and a delay.
Model = Callable[[FloatArray, float, float], FloatArray]
Averages = Literal["boxcar", "none", "other"]

FOLDS = 5  # parts of a calibration that each give an estimate, whose spread is the interval's
SHORTEST_SEC, LONGEST_SEC, LATEST_SEC = 0.002, 3.0, 0.3
# Of the readings' variance; below, the load and the power have nothing to do with each other.
LEAST_EXPLAINED = 0.75
BOXCAR_EXPLAINS = 0.95  # a real load has nearly one power
FEWEST_CHANGES = 40
# Readings in a refresh, from which on its moment is known well enough for windows shorter than it.
RESOLVED = 5.0
# Of a refresh, the standard deviation around a rhythm; moments at random are 0.29 off.
RHYTHM_WITHIN, GAPS_WITHIN = 0.22, 0.15
LOOKS_EXPLAIN = 4.0  # times better than a mean of all the time does: then the sensor has looked a part of it
NEARLY_ALL = 0.95  # of a refresh
CLOSE_TO_BEST = 1.5  # times as much unexplained as by the best share: still possible
SEARCHED = 400  # values, or some more, are enough to find about where the best window and delay are
_ROUNDS, _STEPS = 14, np.linspace(-1.0, 1.0, 7)
_SHARES = np.linspace(0.1, 1.0, 10)


class SensorResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Of one column of power. Where `reason` says that the load does not explain it, all but the refresh time is without a value."""

    reason: str | None = None
    # none: a value is that of a moment, as far as readings can tell; None: the load leaves too much unexplained.
    averages: Averages | None = None
    explained: float | None = None  # share of the readings' variance that the best model explains
    refresh_s: Estimate
    window_s: Estimate = Estimate()
    delay_s: Estimate = Estimate()  # of the window's end behind the reading
    seen_share: Estimate = Estimate()  # of the time


class Load(NamedTuple):
    """When a load was on: `at_sec` has beginnings and ends in turn, `busy_sec` how long it had been on by then."""

    at_sec: FloatArray
    busy_sec: FloatArray

    @classmethod
    def of(cls, spans_sec: Sequence[tuple[float, float]] | FloatArray) -> "Load":
        """From spans in which it was on, ascending."""
        at_sec = np.array(spans_sec, np.float64).reshape(-1)
        lengths = at_sec[1::2] - at_sec[0::2]
        busy = np.zeros(len(at_sec))
        busy[1::2] = np.cumsum(lengths)
        busy[2::2] = busy[1:-1:2]
        return cls(at_sec, busy)

    def mean(self, at_sec: FloatArray, window_sec: float, delay_sec: float) -> FloatArray:
        """A boxcar's view: the share of the window in which it was on."""
        ends = at_sec - delay_sec
        busy = np.interp(ends, *self) - np.interp(ends - window_sec, *self)
        found: FloatArray = busy / window_sec
        return found

    def filtered(self, at_sec: FloatArray, time_constant_sec: float, delay_sec: float) -> FloatArray:
        """A low-pass filter's view."""
        is_on = np.arange(len(self.at_sec)) % 2 == 0
        decays = np.exp(-np.diff(self.at_sec, prepend=self.at_sec[0]) / time_constant_sec)
        states, state, before = np.zeros(len(self.at_sec)), 0.0, 0.0
        for number, decay in enumerate(decays.tolist()):
            state = before + (state - before) * decay
            states[number], before = state, 1.0 - number % 2
        moments = at_sec - delay_sec
        last = np.maximum(np.searchsorted(self.at_sec, moments, side="right") - 1, 0)
        since = np.maximum(moments - self.at_sec[last], 0.0)
        towards = is_on[last].astype(np.float64)
        seen = towards + (states[last] - towards) * np.exp(-since / time_constant_sec)
        found: FloatArray = np.where(moments < self.at_sec[0], 0.0, seen)
        return found


class _Taken(NamedTuple):
    """Values and when the sensor took them; `period_sec` between two, None where they keep no rhythm that readings can tell."""

    at_sec: FloatArray
    values: FloatArray
    between_sec: float  # two readings
    period_sec: float | None
    refresh_s: Estimate


class _Fit(NamedTuple):
    unexplained: float  # sum of squares
    window_sec: float
    delay_sec: float
    idle_w: float
    load_w: float


def sensor_response(at_sec: FloatArray, values: FloatArray, load: Load) -> SensorResponse:
    """From known readings, ascending, which begin and end with idling; `values` in watts."""
    changes = np.count_nonzero(np.diff(values))
    if changes < FEWEST_CHANGES:
        return _unknown(f"it changed {changes} times: the load does not show in it")
    taken = _taken(at_sec, values)
    boxcar, filtered = (_fit(model, taken.at_sec, taken.values) for model in (load.mean, load.filtered))
    looks = _looks(taken, boxcar, load)
    total = float(((taken.values - taken.values.mean()) ** 2).sum())
    explained = 1 - min(fit.unexplained for fit in (boxcar, filtered, looks.fit or boxcar)) / total
    if explained < LEAST_EXPLAINED:
        unexplained = _unknown(
            f"the load explains {explained:.0%} of it, less than {LEAST_EXPLAINED:.0%}: something else drew power, or a limit was reached",
            taken.refresh_s,
        )
        return msgspec.structs.replace(unexplained, explained=explained)
    is_exponential = filtered.unexplained < min(boxcar.unexplained, (looks.fit or boxcar).unexplained)
    if is_exponential and filtered.window_sec > taken.between_sec:
        low_pass = _without_window(
            "its readings follow the load as those of a low-pass filter", taken, explained
        )
        return msgspec.structs.replace(low_pass, averages="other")
    return _plain_mean(taken, boxcar, load, looks.seen_share, explained)


def _plain_mean(
    taken: _Taken, boxcar: _Fit, load: Load, seen_share: Estimate, explained: float
) -> SensorResponse:
    if explained < BOXCAR_EXPLAINS:
        reason = f"the load explains {explained:.0%} of it, less than {BOXCAR_EXPLAINS:.0%}"
        return msgspec.structs.replace(_without_window(reason, taken, explained), seen_share=seen_share)
    folds = [_fit(load.mean, at, values, around=boxcar) for at, values in _folds(taken)]
    window = _window(taken, boxcar, folds)
    is_moment = boxcar.window_sec <= taken.between_sec
    if is_moment:
        window = Estimate(high=taken.between_sec, reason="it is shorter than the time between two readings")
    return SensorResponse(
        averages="none" if is_moment else "boxcar",
        explained=explained,
        refresh_s=taken.refresh_s,
        window_s=window,
        # Where refreshes and readings keep step, all moments are off by the same.
        delay_s=Estimate.of_parts(
            boxcar.delay_sec, [fold.delay_sec for fold in folds], common=taken.between_sec / 2
        ),
        seen_share=seen_share,
    )


def _window(taken: _Taken, boxcar: _Fit, folds: Sequence[_Fit]) -> Estimate:
    """Of its two edges, each is the mean of moments that are known to within half the time between two readings."""
    common_sec = 2 * taken.between_sec * math.sqrt(2 / 12 / len(taken.at_sec))
    return Estimate.of_parts(boxcar.window_sec, [fold.window_sec for fold in folds], common=common_sec)


def _unknown(reason: str, refresh: Estimate | None = None) -> SensorResponse:
    none = Estimate(reason=reason)
    return SensorResponse(
        reason=reason, refresh_s=refresh or none, window_s=none, delay_s=none, seen_share=none
    )


def _without_window(reason: str, taken: _Taken, explained: float) -> SensorResponse:
    return msgspec.structs.replace(_unknown(reason, taken.refresh_s), reason=None, explained=explained)


def _taken(at_sec: FloatArray, values: FloatArray) -> _Taken:
    """Between the last reading of an old value and the first of the new one; closer where the sensor keeps a rhythm."""
    changed = np.flatnonzero(np.diff(values)) + 1
    between_sec = float(np.median(np.diff(at_sec)))
    middle_sec = (at_sec[changed - 1] + at_sec[changed]) / 2
    placed_sec, refresh = rhythm(middle_sec, between_sec)
    return _Taken(placed_sec, values[changed], between_sec, refresh.value, refresh)


def rhythm(changed_sec: FloatArray, between_sec: float) -> tuple[FloatArray, Estimate]:
    """When a value was renewed, from when readings saw it change, each by half of `between_sec` either way; and the time between two."""
    period_sec = refresh_period_sec(changed_sec, between_sec)
    if period_sec <= SEEN_APART * between_sec:
        reason = f"it is renewed as often as it is read, every {1e3 * between_sec:.0f} ms, or more often"
        return changed_sec, Estimate(high=SEEN_APART * between_sec, reason=reason)
    numbers, (rate_sec, start_sec) = _grid(changed_sec, period_sec)
    placed_sec = start_sec + rate_sec * numbers
    off_sec = placed_sec - changed_sec
    # from what would be half a period off: only how much they differ counts
    gaps_off_sec = (np.diff(changed_sec) + period_sec / 2) % period_sec
    if float(np.abs(off_sec).max()) <= between_sec:
        error_sec = np.std(off_sec) / (np.std(numbers) * np.sqrt(len(numbers)))
        return placed_sec, _within(float(rate_sec), float(error_sec), len(numbers))
    if np.std(off_sec) <= RHYTHM_WITHIN * period_sec or np.std(gaps_off_sec) <= GAPS_WITHIN * period_sec:
        error_sec = np.std(gaps_off_sec) / np.sqrt(len(gaps_off_sec))
        return changed_sec, _within(period_sec, float(error_sec), len(gaps_off_sec))
    return changed_sec, Estimate(reason="its changes keep no rhythm")


def _within(value: float, error: float, count: int) -> Estimate:
    return Estimate.around(value, quantile(LEVEL, count - 1) * error)


def _grid(changed_sec: FloatArray, period_sec: float) -> tuple[FloatArray, tuple[float, float]]:
    """The steady rate and start that fit the moments best, and each one's number."""
    rate_sec, start_sec = period_sec, float(changed_sec[0])
    for _ in range(2):
        numbers = np.rint((changed_sec - start_sec) / rate_sec)
        rate_sec, start_sec = np.polyfit(numbers, changed_sec, 1)
    return np.rint((changed_sec - start_sec) / rate_sec), (float(rate_sec), float(start_sec))


class _Looks(NamedTuple):
    """The share of time that the sensor sees; and the mean of separate looks, where that explains the readings better than one of all the time."""

    seen_share: Estimate
    fit: _Fit | None = None


def _looks(taken: _Taken, boxcar: _Fit, load: Load) -> _Looks:
    period_sec = taken.period_sec
    if period_sec is None:
        return _Looks(Estimate(reason="how often it is renewed is not known"))
    if boxcar.window_sec < 2 * period_sec:
        return _Looks(_one_look(taken, boxcar, load, period_sec))
    model = _mean_of_looks(load, period_sec, count=round(boxcar.window_sec / period_sec))
    delays = boxcar.delay_sec + np.linspace(-period_sec, period_sec, 21)
    by_share = [
        min(_tried(model, taken.at_sec, taken.values, share * period_sec, delay) for delay in delays)
        for share in _SHARES
    ]
    best = _fit(model, taken.at_sec, taken.values, around=min(by_share))
    if best.unexplained * LOOKS_EXPLAIN > boxcar.unexplained or best.window_sec >= NEARLY_ALL * period_sec:
        as_good = (fit.window_sec / period_sec for fit in by_share if fit.unexplained <= boxcar.unexplained)
        return _Looks(Estimate(value=1.0, low=min((*as_good, 1.0)), high=1.0))
    return _Looks(_share_of_looks(taken, best, model, period_sec), best)


def _one_look(taken: _Taken, boxcar: _Fit, load: Load, period_sec: float) -> Estimate:
    """Of a sensor that tells its last look; none where refreshes follow each other too closely for readings to see a part of one."""
    if period_sec < RESOLVED * taken.between_sec:
        return Estimate(
            reason=f"it is renewed every {1e3 * period_sec:.0f} ms, which is read less than {RESOLVED:.0f} times"
        )
    folds = [_fit(load.mean, at, values, around=boxcar) for at, values in _folds(taken)]
    window = _window(taken, boxcar, folds)
    value, low, high = (
        min(1.0, max(0.0, (edge or 0.0) / period_sec)) for edge in (window.value, window.low, window.high)
    )
    return Estimate(value=value, low=low, high=high)


def _mean_of_looks(load: Load, period_sec: float, *, count: int) -> Model:
    """A sensor that looks once in a period, and tells the mean of its last looks."""
    before_sec = np.arange(count) * period_sec

    def model(at_sec: FloatArray, look_sec: float, delay_sec: float) -> FloatArray:
        looks = (at_sec[:, None] - before_sec).ravel()
        found: FloatArray = load.mean(looks, look_sec, delay_sec).reshape(-1, count).mean(axis=1)
        return found

    return model


def _share_of_looks(taken: _Taken, best: _Fit, model: Model, period_sec: float) -> Estimate:
    """With all shares that explain the readings nearly as well."""
    share, middle_sec = best.window_sec / period_sec, best.delay_sec + best.window_sec / 2
    tried = share + np.arange(-0.3, 0.3, 0.01)
    fits = [
        _tried(model, taken.at_sec, taken.values, window_sec, middle_sec - window_sec / 2)
        for window_sec in tried[(tried > 0) & (tried <= 1)] * period_sec
    ]
    close = [
        fit.window_sec / period_sec for fit in fits if fit.unexplained <= CLOSE_TO_BEST * best.unexplained
    ]
    return Estimate(value=share, low=min((*close, share)), high=max((*close, share)))


def _folds(taken: _Taken) -> list[tuple[FloatArray, FloatArray]]:
    return list(zip(np.array_split(taken.at_sec, FOLDS), np.array_split(taken.values, FOLDS), strict=True))


def _fit(model: Model, at_sec: FloatArray, values: FloatArray, *, around: _Fit | None = None) -> _Fit:
    """The window and delay that leave the least unexplained: everywhere, or near what is known already; then closer and closer.

    The middle of the window, half of it and the delay, is what a reading tells best: it is searched for, not the delay.
    """
    if around is None:
        windows, delays = np.geomspace(SHORTEST_SEC, LONGEST_SEC, 40), np.arange(0.0, LATEST_SEC, 0.02)
    else:
        windows, delays = around.window_sec * 1.1**_STEPS, around.delay_sec + 0.01 * _STEPS
    some = slice(None, None, 1 + len(values) // SEARCHED)
    found = min(
        _tried(model, at_sec[some], values[some], window, delay) for window in windows for delay in delays
    )
    best = _tried(model, at_sec, values, found.window_sec, found.delay_sec)
    ratio, step_sec = windows[1] / windows[0], delays[1] - delays[0]
    for _ in range(_ROUNDS):
        middle_sec = best.window_sec / 2 + best.delay_sec
        near = (
            _tried(model, at_sec, values, window, middle_sec + step_sec * later - window / 2)
            for window in best.window_sec * ratio**_STEPS
            for later in _STEPS
        )
        best = min(best, *near)
        ratio, step_sec = ratio**0.7, step_sec * 0.7
    return best


def _tried(model: Model, at_sec: FloatArray, values: FloatArray, window_sec: float, delay_sec: float) -> _Fit:
    """The least squares of idle and load power, for one window and delay."""
    seen = model(at_sec, max(window_sec, SHORTEST_SEC), delay_sec)
    # mean() takes several times as long as a sum of so few
    seen_mean, values_mean = seen.sum() / len(seen), values.sum() / len(values)
    centred = seen - seen_mean
    spread = float(centred @ centred)
    slope_w = float(centred @ values) / spread if spread else 0.0
    idle_w = float(values_mean - slope_w * seen_mean)
    rest = values - idle_w - slope_w * seen
    window_sec, delay_sec = float(max(window_sec, SHORTEST_SEC)), float(delay_sec)
    return _Fit(float(rest @ rest), window_sec, delay_sec, idle_w, idle_w + slope_w)
