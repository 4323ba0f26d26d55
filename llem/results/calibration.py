"""What a device's sensors do, from its readings beside a load of known times: `load_schedule` says what to do to it, `estimate` what that shows.

`estimate` knows one column of power: of a device that has an instant and an averaged power it is asked twice. Nothing is estimated where the load
was not alone, where a limit was reached, or where it is not what moved the power: later runs would believe it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from llem.results.power import FloatArray
from llem.results.sensor_response import Averages, Load, SensorResponse, rhythm, sensor_response
from llem.results.student_t import LEVEL, Estimate, quantile
from llem.results.throttling import ANY_REASON, short_names
from llem.units import MW_PER_W, NS_PER_S


class Wave(NamedTuple):
    """A load that is on for `duty` of every period."""

    period_s: float
    duty: float
    periods: int


# Long periods show long windows. The short ones are no multiples of 20, 50 or 100 ms, at which sensors look: their phase moves on from look to look.
WAVES = (
    Wave(4.0, 0.5, 3), Wave(0.4, 0.5, 15), Wave(1.0, 0.25, 6), Wave(0.13, 0.5, 40), Wave(0.057, 0.5, 60), Wave(0.7, 0.4, 8),
)  # fmt: skip
REGION = "on"  # of the load program, one for each time that its load was on
IDLE_SEC, CONSTANT_SEC = 4.0, 10.0
LEAST_IDLE_SEC = 0.5
SELDOM_SEC, STALLED_SEC = 0.05, 1.0  # between two readings, the median and the longest
LIMITED_SHARE, NEAR_LIMIT = 0.01, 0.98  # of the busy readings; of the limit
LEAST_CHANGE, LEAST_CHANGE_W = 0.1, 5.0  # by the load, as a share of its power and in watts
SETTLED_SEC = 2.5  # of constant load, after which every sensor shows it; where its window is known, that
SETTLED_C = 1.0
STILL_SEC = 20.0
FEWEST = 3
TOO_FEW = "too few readings tell it: a longer calibration"


class LoadStep(NamedTuple):
    """What the load program does next: 1.0 is all it can, 0.0 is nothing."""

    level: float
    seconds: float


class LoadTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Readings of one device beside a load; seconds on one clock, ascending; NaN where a reading lacks a value.

    It begins and ends with idling.
    """

    times_s: FloatArray  # shape (readings,), as all columns
    power_w: FloatArray
    energy_j: FloatArray  # the counter's, from any start
    busy_s: FloatArray  # shape (spans, 2): when the load began and ended, as the load program reported it, ascending
    temperature_c: FloatArray | None = None
    throttle_reasons: NDArray[np.int64] | None = None  # NVML's bits; 0 where none was read
    others_busy: bool = False  # another process had the device open
    power_limit_w: float | None = None

    @classmethod
    def of(
        cls,
        at_ns: NDArray[np.int64],
        *,
        power_w: FloatArray,
        energy_j: FloatArray,
        temperature_c: FloatArray,
        throttle_reasons: FloatArray,
        busy_ns: Sequence[tuple[int, int]],
        others_busy: bool,
        power_limit_mw: int | None,
    ) -> Self:
        """From columns of samples, ascending, and regions of the load program, all on one clock."""
        start_ns = at_ns[0] if len(at_ns) else 0
        spans_ns = sorted((began_ns, ended_ns) for began_ns, ended_ns in busy_ns if began_ns < ended_ns)
        return cls(
            times_s=(at_ns - start_ns) / NS_PER_S,
            power_w=power_w,
            energy_j=energy_j,
            busy_s=(np.array(spans_ns, np.int64).reshape(-1, 2) - start_ns) / NS_PER_S,
            temperature_c=temperature_c,
            throttle_reasons=np.clip(np.nan_to_num(throttle_reasons), 0, 2**53).astype(np.int64),
            others_busy=others_busy,
            power_limit_w=None if power_limit_mw is None else power_limit_mw / MW_PER_W,
        )


class SensorCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """What one device's sensors do. Where `reason` says why nothing can be said, all else is without a value."""

    reason: str | None = None
    averages: Averages | None = None
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
    settling_s: Estimate  # of constant load, until the temperature is within a degree of where it goes

    @classmethod
    def without(cls, reason: str, *, explained: float | None = None) -> Self:
        """Nothing can be said."""
        none: dict[str, Any] = dict.fromkeys(ESTIMATES, Estimate(reason=reason))
        return cls(reason=reason, explained=explained, **none)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """All of them, by name."""
        return {name: getattr(self, name) for name in ESTIMATES}


ESTIMATES = tuple(name for name, kind in SensorCalibration.__annotations__.items() if kind is Estimate)


def load_schedule(seconds: float = 60.0) -> list[LoadStep]:
    """About so many seconds of idling, constant load and square waves of several periods and duty cycles."""
    idle_s = min(IDLE_SEC, seconds / 10)
    waves_s = sum(wave.period_s * wave.periods for wave in WAVES)
    times = (seconds - 3 * idle_s) / (waves_s + CONSTANT_SEC)
    idle = LoadStep(0.0, idle_s)
    steps = [idle, LoadStep(1.0, CONSTANT_SEC * times), idle]
    for wave in WAVES:
        on, off = LoadStep(1.0, wave.period_s * wave.duty), LoadStep(0.0, wave.period_s * (1 - wave.duty))
        steps += [on, off] * max(1, round(wave.periods * times))
    return [*steps, idle]


def estimate(trace: LoadTrace) -> SensorCalibration:
    """What the readings say of the sensors, each with its interval."""
    if reason := _unusable(trace):
        return SensorCalibration.without(reason)
    power = _Readings.of(trace.times_s, trace.power_w)
    lead_s = _lead_s(trace)
    known = power.between(float(trace.busy_s[0, 0]) - lead_s / 2, np.inf)
    seen = sensor_response(known.at_sec, known.values, Load.of(trace.busy_s))
    if seen.reason is not None:
        return SensorCalibration.without(seen.reason, explained=seen.explained)
    settled_s = _settled_s(seen)
    loaded = _longest(trace, after_s=settled_s)
    independent_s = max(seen.refresh_s.value or 0.0, seen.window_s.value or 0.0)
    idle = power.at(_idle(power.at_sec, trace, settled_s=settled_s))
    return SensorCalibration(
        averages=seen.averages,
        explained=seen.explained,
        power_refresh_s=seen.refresh_s,
        energy_refresh_s=_energy_refresh(trace),
        averaging_window_s=seen.window_s,
        delay_s=seen.delay_s,
        seen_share=seen.seen_share,
        counter_over_power=_counter_over_power(trace, power.between(*loaded), independent_s),
        idle_w=idle.mean(independent_s),
        idle_spread_w=idle.spread(independent_s),
        load_w=power.between(*loaded).mean(independent_s),
        settling_s=_settling(trace),
    )


class _Readings(NamedTuple):
    """Those of one column that are known, ascending."""

    at_sec: FloatArray
    values: FloatArray

    @classmethod
    def of(cls, at_sec: FloatArray, values: FloatArray) -> "_Readings":
        known = ~np.isnan(values)
        return cls(at_sec[known], values[known])

    def at(self, chosen: NDArray[np.bool_]) -> "_Readings":
        return _Readings(self.at_sec[chosen], self.values[chosen])

    def between(self, first_s: float, last_s: float) -> "_Readings":
        return self.at((self.at_sec >= first_s) & (self.at_sec <= last_s))

    def independent(self, independent_s: float) -> int:
        """How many of them say something that the others do not; readings closer than that tell the same."""
        if len(self.at_sec) < FEWEST:
            return len(self.at_sec)
        span_s = float(np.median(np.diff(self.at_sec))) * len(self.at_sec)
        return min(len(self.at_sec), int(span_s / independent_s) if independent_s else len(self.at_sec))

    def mean(self, independent_s: float) -> Estimate:
        count = self.independent(independent_s)
        if count < FEWEST:
            return Estimate(reason=TOO_FEW)
        error = float(self.values.std(ddof=1)) / math.sqrt(count)
        return Estimate.around(float(self.values.mean()), quantile(LEVEL, count - 1) * error)

    def spread(self, independent_s: float) -> Estimate:
        count = self.independent(independent_s)
        if count < FEWEST:
            return Estimate(reason=TOO_FEW)
        spread = float(self.values.std(ddof=1))
        half_width = quantile(LEVEL, count - 1) * spread / math.sqrt(2 * (count - 1))
        return Estimate(value=spread, low=max(0.0, spread - half_width), high=spread + half_width)


def _unusable(trace: LoadTrace) -> str | None:
    """Why the readings say nothing that a later run could rely on."""
    power = _Readings.of(trace.times_s, trace.power_w)
    if trace.others_busy:
        return "another process had the device open: stop it, or calibrate at another time"
    if not len(trace.busy_s) or len(power.at_sec) < 2:
        return "there is no load, or no reading of power"
    return _unread(trace, power) or _limited(trace, power) or _unmoved(trace, power)


def _unread(trace: LoadTrace, power: _Readings) -> str | None:
    gaps_s = np.diff(power.at_sec)
    if np.median(gaps_s) > SELDOM_SEC or gaps_s.max() > STALLED_SEC:
        return (
            f"the driver answered every {1e3 * np.median(gaps_s):.0f} ms, once after {gaps_s.max():.1f} s; "
            f"expected every {1e3 * SELDOM_SEC:.0f} ms, and none after more than {STALLED_SEC:.0f} s"
        )
    before_s, after_s = trace.busy_s[0, 0] - power.at_sec[0], power.at_sec[-1] - trace.busy_s[-1, 1]
    if min(before_s, after_s) < LEAST_IDLE_SEC:
        return f"power was read for {before_s:.1f} s before the load and {after_s:.1f} s after it, expected {LEAST_IDLE_SEC:.1f} s"
    return None


def _limited(trace: LoadTrace, power: _Readings) -> str | None:
    """A limit changes the power while the load stays as it is."""
    if trace.throttle_reasons is not None:
        reasons = trace.throttle_reasons[_busy(trace.times_s, trace.busy_s)] & ANY_REASON
        if np.count_nonzero(reasons) > LIMITED_SHARE * len(reasons):
            return f"the device held its clocks down ({short_names(int(np.bitwise_or.reduce(reasons)))}): a smaller load, or a higher limit"
    if trace.power_limit_w is not None:
        share = float(
            np.mean(power.values[_busy(power.at_sec, trace.busy_s)] >= NEAR_LIMIT * trace.power_limit_w)
        )
        if share > LIMITED_SHARE:
            return f"the power reached the limit of {trace.power_limit_w:.0f} W: a smaller load, or a higher limit"
    return None


def _busy(at_sec: FloatArray, busy_s: FloatArray) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.searchsorted(busy_s.ravel(), at_sec, side="right") % 2 == 1
    return inside


def _lead_s(trace: LoadTrace) -> float:
    """How long the device idled before the first load at the least: as long as after the longest. What it did before that, nobody says."""
    number = int(np.argmax(np.diff(trace.busy_s, axis=1)))
    next_s = trace.busy_s[number + 1, 0] if number + 1 < len(trace.busy_s) else trace.times_s[-1]
    return float(min(IDLE_SEC, next_s - trace.busy_s[number, 1]))


def _idle(at_sec: FloatArray, trace: LoadTrace, *, settled_s: float) -> NDArray[np.bool_]:
    """When the sensors show nothing but idling."""
    ended_s = np.append(trace.busy_s[0, 0] - _lead_s(trace), trace.busy_s[:, 1])
    number = np.searchsorted(trace.busy_s[:, 0], at_sec, side="right")
    idle: NDArray[np.bool_] = at_sec >= ended_s[number] + settled_s
    return idle


def _unmoved(trace: LoadTrace, power: _Readings) -> str | None:
    first_s = float(trace.busy_s[0, 0])
    idle = power.between(first_s - _lead_s(trace), first_s).values
    loaded = power.between(*_longest(trace, after_s=0.0)).values
    if not len(idle) or not len(loaded):
        return "there is no reading of power in the load, or none before it"
    idle_w, load_w = float(np.median(idle)), float(np.median(loaded))
    if load_w - idle_w < max(LEAST_CHANGE_W, LEAST_CHANGE * load_w):
        return f"the load does not show in the power: {idle_w:.0f} W without it, {load_w:.0f} W with it"
    return None


def _longest(trace: LoadTrace, *, after_s: float) -> tuple[float, float]:
    """The span of constant load; from when the sensors show it, where it lasts that long."""
    start_s, end_s = trace.busy_s[np.argmax(np.diff(trace.busy_s, axis=1))]
    return float(min(start_s + after_s, end_s)), float(end_s)


def _settled_s(seen: SensorResponse) -> float:
    if seen.window_s.value is None or seen.delay_s.value is None:
        return SETTLED_SEC
    return seen.window_s.value + max(0.0, seen.delay_s.value) + 2 * (seen.refresh_s.value or 0.0)


def _energy_refresh(trace: LoadTrace) -> Estimate:
    counter = _Readings.of(trace.times_s, trace.energy_j)
    if reason := _uncounted(counter):
        return Estimate(reason=reason)
    _, refresh = rhythm(_ticks(counter).at_sec, float(np.median(np.diff(counter.at_sec))))
    return refresh


def _uncounted(counter: _Readings) -> str | None:
    if not len(counter.values):
        return "it has no energy counter"
    if np.any(np.diff(counter.values) < 0):
        return "its energy counter ran backwards"
    return None if len(_ticks(counter).at_sec) > FEWEST else "its energy counter stood still"


def _ticks(counter: _Readings) -> _Readings:
    """When the counter moved, and to what."""
    changed = np.flatnonzero(np.diff(counter.values)) + 1
    return _Readings((counter.at_sec[changed - 1] + counter.at_sec[changed]) / 2, counter.values[changed])


def _counter_over_power(trace: LoadTrace, loaded: _Readings, independent_s: float) -> Estimate:
    """Of the energy between two ticks of the counter at constant load, each known to within half the time between two readings."""
    counter = _Readings.of(trace.times_s, trace.energy_j)
    if reason := _uncounted(counter):
        return Estimate(reason=reason)
    power = loaded.mean(independent_s)
    ticks = _ticks(counter).between(*loaded.at_sec[[0, -1]]) if len(loaded.at_sec) else loaded
    if len(ticks.at_sec) < FEWEST or power.value is None or power.high is None:
        return Estimate(reason=TOO_FEW)
    span_s = float(ticks.at_sec[-1] - ticks.at_sec[0])
    ratio = float(ticks.values[-1] - ticks.values[0]) / span_s / power.value
    tick_error = float(np.median(np.diff(counter.at_sec))) / span_s
    return Estimate.around(ratio, ratio * ((power.high - power.value) / power.value + tick_error))


def _settling(trace: LoadTrace) -> Estimate:
    """The last time that the temperature is further than a degree from that of the load's last second; half a degree more or less make the interval.

    A temperature that moves slowly looks settled over some seconds: it has to have stood still for as long again, and for some time at the least.
    """
    if trace.temperature_c is None or np.isnan(trace.temperature_c).all():
        return Estimate(reason="its temperature cannot be read")
    start_s, end_s = _longest(trace, after_s=0.0)
    load_s = end_s - start_s
    if load_s < 2 * STILL_SEC:
        return Estimate(
            reason=f"{load_s:.0f} s of constant load are too short to tell, expected {2 * STILL_SEC:.0f} s: a longer calibration"
        )
    heat = _Readings.of(trace.times_s, trace.temperature_c).between(start_s, end_s)
    last = heat.between(end_s - 1.0, end_s).values
    if len(last) < FEWEST:
        return Estimate(reason=TOO_FEW)
    low, value, high = _last_beyond(heat, float(last.mean()), start_s)
    if high > load_s / 2:
        return Estimate(
            low=value, reason=f"it still changed after {value:.0f} s, of {load_s:.0f} s of constant load"
        )
    return Estimate(value=value, low=low, high=high)


def _last_beyond(heat: _Readings, end_c: float, start_s: float) -> Iterator[float]:
    for degrees_c in (SETTLED_C + 0.5, SETTLED_C, SETTLED_C - 0.5):
        beyond = heat.at_sec[np.abs(heat.values - end_c) > degrees_c]
        yield float(beyond[-1] - start_s) if len(beyond) else 0.0
