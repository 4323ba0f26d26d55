"""What a device's sensors make of a load that is switched on and off at known times: how often they look, over how long, and how late.

A reading taken at t is modelled as the mean of the load from t - delay - window to t - delay, between the power of idling and that of the load.
A sensor whose window is shorter than the time between two refreshes sees a part of the time. The alternative is a low-pass filter of
first order, whose readings follow the load exponentially; the model that leaves less unexplained is the sensor's shape.

`load_schedule` says what to do to the device, `estimate` what its readings beside that load say. `estimate` knows one column of power: of a
device that has an instant and an averaged power it is asked twice.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from llem.results import student_t
from llem.results.averaged_power import refresh_period_sec
from llem.results.power import FloatArray

Model = Callable[
    [FloatArray, float, float], FloatArray
]  # load at moments, from 0 to 1, for a window and a delay


class Wave(NamedTuple):
    """A load that is on for `duty` of every period."""

    period_s: float
    duty: float
    periods: int


IDLE_SEC, CONSTANT_SEC = 4.0, 10.0
WAVES = (
    Wave(4.0, 0.5, 3), Wave(0.4, 0.5, 15), Wave(1.0, 0.25, 6), Wave(0.13, 0.5, 40), Wave(0.057, 0.5, 60), Wave(0.7, 0.4, 8)
)  # fmt: skip
FOLDS = 5  # parts of a calibration that each give an estimate, whose spread is the interval's
SHORTEST_SEC, LONGEST_SEC, LATEST_SEC = 0.002, 3.0, 0.3
# Of the readings' variance; below, the load and the power have nothing to do with each other.
LEAST_EXPLAINED = 0.75
BOXCAR_EXPLAINS = 0.95  # a real load has nearly one power
FEWEST_CHANGES = 40
# Readings in a refresh, from which on its moment is known well enough for windows shorter than it.
RESOLVED = 5.0
LEVEL = 0.95
_ROUNDS, _STEPS = 14, np.linspace(-1.0, 1.0, 7)


class LoadStep(NamedTuple):
    """What the load program does next: 1.0 is all it can, 0.0 is nothing."""

    level: float
    seconds: float


class LoadTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Readings of one device beside a load; seconds on one clock, ascending; NaN where a reading lacks a value.

    It begins and ends with a few seconds of idling.
    """

    times_s: FloatArray  # shape (readings,), as all columns
    power_w: FloatArray
    energy_j: FloatArray  # the counter's, from any start
    busy_s: FloatArray  # shape (spans, 2): when the load began and ended, as the load program reported it, ascending
    temperature_c: FloatArray | None = None
    throttle_reasons: NDArray[np.int64] | None = None  # NVML's bits; 0 where none was read
    others_busy: bool = False  # another process had the device open
    power_limit_w: float | None = None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A value and its 95 % interval, or the reason why there is none."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class SensorCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """What one device's sensors do. Where `reason` says why nothing can be said, all else is without a value."""

    reason: str | None = None
    averages: Literal["boxcar", "none", "other"] | None = (
        None  # none: it sees less than the time between two refreshes
    )
    explained: float | None = None  # share of the power readings' variance that the load explains
    power_refresh_s: Estimate
    energy_refresh_s: Estimate
    averaging_window_s: Estimate
    delay_s: Estimate  # of the window's end behind the reading
    seen_share: Estimate  # of the time
    counter_over_power: Estimate  # at constant load
    idle_w: Estimate
    idle_spread_w: Estimate  # standard deviation
    load_w: Estimate
    settling_s: Estimate  # of constant load, until the temperature is within 1 C of where it goes


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
        states, state, before = np.zeros(len(self.at_sec)), 0.0, 0.0
        for number, gap in enumerate(np.diff(self.at_sec, prepend=self.at_sec[0])):
            state = before + (state - before) * np.exp(-gap / time_constant_sec)
            states[number], before = state, float(is_on[number])
        moments = at_sec - delay_sec
        last = np.maximum(np.searchsorted(self.at_sec, moments, side="right") - 1, 0)
        since = np.maximum(moments - self.at_sec[last], 0.0)
        towards = is_on[last].astype(np.float64)
        seen = towards + (states[last] - towards) * np.exp(-since / time_constant_sec)
        found: FloatArray = np.where(moments < self.at_sec[0], 0.0, seen)
        return found


class _Fit(NamedTuple):
    unexplained: float  # sum of squares
    window_sec: float
    delay_sec: float
    idle_w: float
    load_w: float


def load_schedule() -> list[LoadStep]:
    """About a minute of idling, constant load and square waves of several periods and duty cycles."""
    steps = [LoadStep(0.0, IDLE_SEC), LoadStep(1.0, CONSTANT_SEC), LoadStep(0.0, IDLE_SEC)]
    for wave in WAVES:
        on, off = LoadStep(1.0, wave.period_s * wave.duty), LoadStep(0.0, wave.period_s * (1 - wave.duty))
        steps += [on, off] * wave.periods
    return [*steps, LoadStep(0.0, IDLE_SEC)]


def estimate(trace: LoadTrace) -> SensorCalibration:
    """What the readings say of the sensors, each with its interval."""
    if trace.others_busy:
        return _nothing("another process had the device open")
    known = ~np.isnan(trace.power_w)
    at_sec, power_w = trace.times_s[known], trace.power_w[known]
    seen = sensor_response(at_sec, power_w, Load.of(trace.busy_s))
    return msgspec.structs.replace(
        _nothing(seen.reason),
        averages=seen.averages,
        explained=seen.explained,
        power_refresh_s=seen.refresh_s,
        averaging_window_s=seen.window_s,
        delay_s=seen.delay_s,
        seen_share=seen.seen_share,
        idle_w=seen.idle_w,
        load_w=seen.load_w,
    )


def _nothing(reason: str | None) -> SensorCalibration:
    none = Estimate(reason=reason or "it is not estimated")
    values = {name: none for name, kind in SensorCalibration.__annotations__.items() if kind is Estimate}
    return msgspec.convert({"reason": reason, **values}, SensorCalibration)


class SensorResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One column's part of a calibration."""

    refresh_s: Estimate
    window_s: Estimate = Estimate()
    delay_s: Estimate = Estimate()
    seen_share: Estimate = Estimate()
    idle_w: Estimate = Estimate()
    load_w: Estimate = Estimate()
    averages: Literal["boxcar", "none", "other"] | None = None
    explained: float | None = None
    reason: str | None = None


def sensor_response(at_sec: FloatArray, values: FloatArray, load: Load) -> SensorResponse:
    """From known readings, ascending, which begin and end with idling; `values` in watts."""
    changed = np.flatnonzero(np.diff(values)) + 1
    if len(changed) < FEWEST_CHANGES:
        reason = f"it changed {len(changed)} times: the load does not show in it"
        return SensorResponse(refresh_s=Estimate(reason=reason), reason=reason)
    taken_sec, taken = (at_sec[changed - 1] + at_sec[changed]) / 2, values[changed]
    between_sec = float(np.median(np.diff(at_sec)))
    refresh_sec = refresh_period_sec(taken_sec, between_sec)
    taken_sec = _on_a_grid(taken_sec, refresh_sec=refresh_sec, between_sec=between_sec)
    boxcar, filtered = _fit(load.mean, taken_sec, taken), _fit(load.filtered, taken_sec, taken)
    total = float(((taken - taken.mean()) ** 2).sum())
    explained = 1 - min(boxcar.unexplained, filtered.unexplained) / total
    refresh = Estimate(value=refresh_sec)
    if explained < LEAST_EXPLAINED:
        reason = f"the load explains {explained:.0%} of it, less than {LEAST_EXPLAINED:.0%}: something else drew power, or a limit was reached"
        return SensorResponse(refresh_s=refresh, explained=explained, reason=reason)
    if filtered.unexplained < boxcar.unexplained:
        return SensorResponse(refresh_s=refresh, averages="other", explained=explained)
    folds = [
        _fit(load.mean, taken_sec[part], taken[part], around=boxcar)
        for part in np.array_split(np.arange(len(taken)), FOLDS)
    ]
    share = _seen_share(boxcar.window_sec, refresh_sec=refresh_sec, between_sec=between_sec)
    return SensorResponse(
        refresh_s=refresh,
        window_s=_within(boxcar.window_sec, [fold.window_sec for fold in folds]),
        delay_s=_within(boxcar.delay_sec, [fold.delay_sec for fold in folds]),
        seen_share=Estimate(value=share),
        averages="boxcar" if explained >= BOXCAR_EXPLAINS else "other",
        explained=explained,
        idle_w=_within(boxcar.idle_w, [fold.idle_w for fold in folds]),
        load_w=_within(boxcar.load_w, [fold.load_w for fold in folds]),
    )


def _seen_share(window_sec: float, *, refresh_sec: float, between_sec: float) -> float | None:
    """None where refreshes follow each other too closely to be told apart by the readings, which blurs short windows."""
    if window_sec >= 2 * refresh_sec:
        return 1.0
    return min(1.0, window_sec / refresh_sec) if refresh_sec >= RESOLVED * between_sec else None


def _within(value: float, estimates: Sequence[float]) -> Estimate:
    """A value, and an interval from what its folds say."""
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    half_width = float(student_t.quantile(LEVEL, len(estimates) - 1) * error)
    return Estimate(value=value, low=value - half_width, high=value + half_width)


def _on_a_grid(taken_sec: FloatArray, *, refresh_sec: float, between_sec: float) -> FloatArray:
    """The same moments where the sensor looks at a steady rate, each no longer unsure by the time between two readings."""
    numbers = np.rint((taken_sec - taken_sec[0]) / refresh_sec)
    rate, start = np.polyfit(numbers, taken_sec, 1)
    numbers = np.rint((taken_sec - start) / rate)
    rate, start = np.polyfit(numbers, taken_sec, 1)
    placed: FloatArray = start + rate * numbers
    return placed if float(np.abs(placed - taken_sec).max()) <= between_sec else taken_sec


def _fit(model: Model, at_sec: FloatArray, values: FloatArray, *, around: _Fit | None = None) -> _Fit:
    """The window and delay that leave the least unexplained: everywhere, or near what is known already; then closer and closer.

    The middle of the window, half of it and the delay, is what a reading tells best: it is searched for, not the delay.
    """
    if around is None:
        windows, delays = np.geomspace(SHORTEST_SEC, LONGEST_SEC, 40), np.arange(0.0, LATEST_SEC, 0.02)
    else:
        windows, delays = around.window_sec * 1.1**_STEPS, around.delay_sec + 0.01 * _STEPS
    best = min(_tried(model, at_sec, values, window, delay) for window in windows for delay in delays)
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
    centred = seen - seen.mean()
    spread = float(centred @ centred)
    slope_w = float(centred @ values) / spread if spread else 0.0
    idle_w = float(values.mean() - slope_w * seen.mean())
    rest = values - idle_w - slope_w * seen
    window_sec, delay_sec = float(max(window_sec, SHORTEST_SEC)), float(delay_sec)
    return _Fit(float(rest @ rest), window_sec, delay_sec, idle_w, idle_w + slope_w)
