"""What a calibration refuses, exactly at its limits, and what it says where little was read."""

import math
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pytest

from llem.results.calibration import (
    ESTIMATES,
    TOO_FEW,
    LoadStep,
    LoadTrace,
    SensorCalibration,
    _last_beyond,
    _Readings,
    estimate,
    load_schedule,
)
from llem.results.power import FloatArray
from llem.results.sensor_response import Load
from llem.results.student_t import Estimate

IDLE_W, LOAD_W, BEGINS_S, ENDS_S = 100.0, 300.0, 1.0, 6.0
POWER_CAP, NOTHING_TO_DO = 4, 1  # NVML's bits


def one_load(*, every_s: float = 0.02, before_s: float = 1.0, after_s: float = 1.0) -> LoadTrace:
    """Read as often as that around five seconds of constant load."""
    times_s = np.arange(0, before_s + 5.0 + after_s + every_s / 2, every_s) + BEGINS_S - before_s
    busy = (times_s >= BEGINS_S) & (times_s < ENDS_S)
    return LoadTrace(
        times_s=times_s,
        power_w=np.where(busy, LOAD_W, IDLE_W),
        energy_j=times_s * np.nan,
        busy_s=np.array([[BEGINS_S, ENDS_S]]),
    )


def refusal(trace: LoadTrace) -> str:
    return estimate(trace).reason or ""


def without(trace: LoadTrace, first_s: float, last_s: float) -> LoadTrace:
    """The same, with no reading of power strictly between two moments."""
    times_s = trace.times_s
    power_w = np.where((times_s > first_s + 1e-9) & (times_s < last_s - 1e-9), np.nan, trace.power_w)
    return msgspec.structs.replace(trace, power_w=power_w)


@pytest.mark.parametrize(("every_s", "refused"), [(0.0499, False), (0.0501, True)])
def test_a_driver_may_answer_every_fifty_milliseconds(every_s: float, refused: bool) -> None:
    """Seldomer it is refused."""
    assert ("the driver answered" in refusal(one_load(every_s=every_s))) is refused


def test_a_driver_may_be_silent_for_a_second() -> None:
    """Exactly one, where readings come at fractions that a computer has."""
    assert "once after" not in refusal(without(one_load(every_s=2**-6), 3.0, 4.0))


@pytest.mark.parametrize(("last_s", "refused"), [(3.98, False), (4.02, True)])
def test_a_driver_may_not_answer_for_a_second(last_s: float, refused: bool) -> None:
    """Longer it is refused, and the time without an answer told, though the others came every 20 ms."""
    reason = refusal(without(one_load(), 3.0, last_s))
    assert ("the driver answered every 20 ms, once after 1.0 s" in reason) is refused


@pytest.mark.parametrize(
    ("before_s", "after_s", "refused"),
    [(0.52, 0.52, False), (0.48, 0.6, True), (0.6, 0.46, True)],
    ids=["enough", "before", "after"],
)
def test_half_a_second_of_idling_is_read_on_both_sides(
    before_s: float, after_s: float, refused: bool
) -> None:
    """Where there is less on one side it is refused."""
    reason = refusal(one_load(before_s=before_s, after_s=after_s))
    assert (f"for {before_s:.1f} s before the load and {after_s:.1f} s after it" in reason) is refused


@pytest.mark.parametrize(
    ("bits", "first_row", "rows", "refused"),
    [
        (POWER_CAP, 100, 2, False),
        (POWER_CAP, 100, 4, True),
        (NOTHING_TO_DO, 100, 100, False),
        (POWER_CAP, 0, 40, False),
    ],
    ids=["one percent", "more", "no limit", "idle"],
)
def test_clocks_may_be_held_down_for_a_hundredth_of_the_load(
    bits: int, first_row: int, rows: int, refused: bool
) -> None:
    """Of the readings in the load, and only by what limits; where the load is more, the reason is named."""
    trace = one_load()
    reasons = np.zeros(len(trace.times_s), np.int64)
    reasons[first_row : first_row + rows] = bits
    found = refusal(msgspec.structs.replace(trace, throttle_reasons=reasons))
    assert ("held its clocks down (power cap)" in found) is refused


def test_clocks_that_were_held_down_in_a_later_load_are_told() -> None:
    """The load comes in several spans; what was between and after them does not count."""
    trace = one_load()
    twice = msgspec.structs.replace(trace, busy_s=np.array([[BEGINS_S, 3.0], [4.0, ENDS_S]]))
    for first_s, last_s, refused in ((4.0, ENDS_S, True), (3.0, 4.0, False), (ENDS_S, 9.0, False)):
        held = (trace.times_s >= first_s) & (trace.times_s < last_s)
        found = refusal(msgspec.structs.replace(twice, throttle_reasons=np.where(held, POWER_CAP, 0)))
        assert ("held its clocks down" in found) is refused


@pytest.mark.parametrize(
    ("limit_w", "rows", "refused"),
    [(LOAD_W / 0.98, 250, True), (LOAD_W / 0.97, 250, False), (500.0, 2, False), (500.0, 4, True)],
)
def test_power_may_be_at_its_limit_for_a_hundredth_of_the_load(
    limit_w: float, rows: int, refused: bool
) -> None:
    """At 98 % of it the limit is reached."""
    trace = one_load()
    power_w = trace.power_w.copy()
    if rows < 250:
        power_w[100 : 100 + rows] = limit_w
    found = refusal(msgspec.structs.replace(trace, power_w=power_w, power_limit_w=limit_w))
    assert (f"reached the limit of {limit_w:.0f} W" in found) is refused


@pytest.mark.parametrize(
    ("idle_w", "load_w", "refused"),
    [(20.0, 25.0, False), (20.0, 24.9, True), (270.0, 300.0, False), (271.0, 300.0, True)],
)
def test_a_load_shows_by_five_watts_and_a_tenth(idle_w: float, load_w: float, refused: bool) -> None:
    """Both are needed: what draws much may vary by more than five watts by itself."""
    trace = one_load()
    power_w = np.where(trace.power_w == LOAD_W, load_w, idle_w)
    found = refusal(msgspec.structs.replace(trace, power_w=power_w))
    assert ("the load does not show in the power" in found) is refused


def test_no_reading_in_the_load_is_a_reason() -> None:
    """The power is read before it and after it."""
    trace = without(one_load(), 1.0, 1.98)
    trace = msgspec.structs.replace(trace, busy_s=np.array([[1.01, 1.97]]))
    assert "no reading of power in the load" in refusal(trace)


def test_a_single_reading_of_power_is_none() -> None:
    """Two of them at the least have a time between them."""
    trace = one_load()
    power_w = np.where(trace.times_s == trace.times_s[9], 100.0, np.nan)
    assert "there is no load, or no reading of power" in refusal(
        msgspec.structs.replace(trace, power_w=power_w)
    )


HZ, WINDOW_S, SPREAD_W, COUNTS, TICK_S = 50, 0.1, 2.0, 1.05, 0.1
IDLING_S, CONSTANT_S = 1.2, 2.5


@lru_cache
def waves(window_s: float = WINDOW_S, constant_s: float = CONSTANT_S, hz: int = HZ) -> LoadTrace:
    """An average of constant load and waves, read as often as it is renewed, and a counter that counts 5 % more."""
    steps = [LoadStep(0.0, IDLING_S), LoadStep(1.0, constant_s), *load_schedule(10 * IDLING_S)]
    ends_s = np.cumsum([step.seconds for step in steps])
    busy_s = [(end_s - step.seconds, end_s) for step, end_s in zip(steps, ends_s, strict=True) if step.level]
    load, times_s = Load.of(busy_s), np.arange(0, ends_s[-1], 1 / hz)
    noise_w = np.random.default_rng(1).normal(0, SPREAD_W, len(times_s))
    power_w = IDLE_W + noise_w + (LOAD_W - IDLE_W) * load.mean(times_s, window_s, 0.0)
    ticked_s = np.floor(times_s / TICK_S) * TICK_S
    full_s = np.interp(ticked_s, load.at_sec, load.busy_sec)
    return LoadTrace(
        times_s=times_s,
        power_w=power_w,
        energy_j=COUNTS * (IDLE_W * ticked_s + (LOAD_W - IDLE_W) * full_s),
        busy_s=np.array(busy_s),
    )


@lru_cache(1)
def of_waves() -> SensorCalibration:
    return estimate(waves())


def test_what_is_read_beside_waves() -> None:
    """Each value and its interval hold the truth."""
    found = of_waves()
    for seen, truth in (
        (found.idle_w, IDLE_W),
        (found.load_w, LOAD_W),
        (found.idle_spread_w, SPREAD_W),
        (found.counter_over_power, COUNTS),
        (found.energy_refresh_s, TICK_S),
        (found.averaging_window_s, WINDOW_S),
    ):
        assert seen.low < truth < seen.high and seen.low < seen.value < seen.high
        assert seen.value == pytest.approx(truth, rel=0.15)
        assert seen.high - seen.low < truth / 2


def test_what_was_found_beside_waves_stays() -> None:
    """Each value with its interval, to the fourth digit."""
    kept = {
        "power_refresh_s": (None, None, 0.03),
        "energy_refresh_s": (0.099999, 0.099977, 0.10002),
        "averaging_window_s": (0.099961, 0.098359, 0.101563),
        "delay_s": (-0.009795, -0.020445, 0.000856),
        "seen_share": (None, None, None),
        "counter_over_power": (1.050368, 1.038453, 1.062284),
        "idle_w": (99.87316, 99.406284, 100.340035),
        "idle_spread_w": (2.056971, 1.724675, 2.389266),
        "load_w": (299.894842, 299.100546, 300.689139),
        "settling_s": (None, None, None),
    }
    for name, ends in kept.items():
        found = getattr(of_waves(), name)
        for seen, end in zip((found.value, found.low, found.high), ends, strict=True):
            assert seen == (None if end is None else pytest.approx(end, rel=1e-4, abs=2e-6)), name
    assert of_waves().explained == pytest.approx(0.999543, rel=1e-5)


def test_a_mean_of_all_the_time_sees_all_of_it() -> None:
    """Half a second, told anew every tenth."""
    trace = waves(window_s=0.5)
    held = np.searchsorted(trace.times_s, np.floor(trace.times_s * 10 + 1e-6) / 10 - 1e-9)
    found = estimate(msgspec.structs.replace(trace, power_w=trace.power_w[held]))
    assert found.averaging_window_s.value == pytest.approx(0.5, rel=0.05)
    assert found.power_refresh_s.value == pytest.approx(0.1, rel=0.01)
    assert (found.seen_share.value, found.seen_share.high) == (1.0, 1.0)
    assert found.seen_share.low is not None and found.seen_share.low <= 1.0


def changed(**columns: object) -> LoadTrace:
    return msgspec.structs.replace(waves(), **columns)


def test_an_average_may_still_show_what_was_before_the_idling() -> None:
    """The response is sought from the middle of the first idling on; the idling before it is only idling."""
    trace, names = waves(), ("averages", "explained", "averaging_window_s", "delay_s", "seen_share")
    before, after = (
        estimate(
            changed(power_w=np.where(trace.times_s < trace.busy_s[0, 0] - early_s, 400.0, trace.power_w))
        )
        for early_s in (IDLING_S / 2 + 0.02, IDLING_S / 2 - 0.04)
    )
    assert [getattr(before, name) for name in names] == [getattr(of_waves(), name) for name in names]
    assert before.idle_w.value > of_waves().idle_w.value
    assert after.explained != of_waves().explained


@pytest.mark.parametrize(
    ("energy_j", "reason"),
    [
        (lambda energy_j: -energy_j, "ran backwards"),
        (lambda energy_j: energy_j * 0, "stood still"),
        (lambda energy_j: energy_j * np.nan, "no energy counter"),
    ],
    ids=["backwards", "still", "none"],
)
def test_a_counter_that_says_nothing_has_a_reason(energy_j: Callable[..., FloatArray], reason: str) -> None:
    """In both of its values; all else is told as with a counter."""
    found = estimate(changed(energy_j=energy_j(waves().energy_j)))
    assert reason in found.counter_over_power.reason and reason in found.energy_refresh_s.reason
    assert found.load_w == of_waves().load_w and found.idle_w == of_waves().idle_w


@pytest.mark.parametrize(("ticks", "stood_still"), [(3, True), (4, False)])
def test_a_counter_moves_more_than_three_times(ticks: int, stood_still: bool) -> None:
    """Else it stood still."""
    trace = waves()
    moved = np.searchsorted(np.linspace(0.0, trace.times_s[-1], ticks + 2)[1:-1], trace.times_s)
    found = estimate(changed(energy_j=moved.astype(np.float64)))
    assert ("stood still" in (found.energy_refresh_s.reason or "")) is stood_still


def test_a_counter_that_ticked_seldom_has_no_ratio() -> None:
    """Three ticks are needed in the constant load; elsewhere there may be more."""
    trace = waves()
    start_s, end_s = trace.busy_s[0]
    inside = (trace.times_s > start_s) & (trace.times_s < end_s)
    found = estimate(changed(energy_j=np.where(inside, trace.energy_j[inside][0], trace.energy_j)))
    assert found.counter_over_power.value is None
    assert found.counter_over_power.reason == TOO_FEW
    assert found.energy_refresh_s.value is not None


def test_what_a_long_average_tells_too_seldom_is_not_told() -> None:
    """Two independent readings have no mean and no spread that can be relied on; what the waves show is told."""
    found = estimate(waves(window_s=1.1))
    assert found.averaging_window_s.value == pytest.approx(1.1, rel=0.05)
    too_few = (found.load_w, found.counter_over_power, found.idle_w, found.idle_spread_w)
    assert all(each == Estimate(reason=TOO_FEW) for each in too_few)


def heated(time_constant_s: float, *, constant_s: float = 45.0) -> LoadTrace:
    """A device that warms by 40 degrees."""
    trace = waves(constant_s=constant_s, hz=25)
    after_s = np.maximum(trace.times_s - IDLING_S, 0.0)
    return msgspec.structs.replace(trace, temperature_c=80 - 40 * np.exp(-after_s / time_constant_s))


def test_a_temperature_settles_when_it_is_a_degree_away() -> None:
    """40 degrees fall to one in ln 40 time constants, and to half a degree more and less around that."""
    found = estimate(heated(2.0)).settling_s
    for seen, degrees in ((found.low, 1.5), (found.value, 1.0), (found.high, 0.5)):
        assert seen == pytest.approx(2.0 * math.log(40 / degrees), abs=0.03)


def test_a_temperature_that_never_changes_is_settled_at_once() -> None:
    """However wide a degree is taken; one that is exactly so far off is settled."""
    heat = _Readings(np.arange(3.0), np.array([50.0, 50.4, 50.0]))
    assert list(_last_beyond(heat, 50.0, 0.0)) == [0.0, 0.0, 0.0]
    assert list(_last_beyond(heat, 51.2, 0.5)) == [0.0, 1.5, 1.5]
    whole = _Readings(np.arange(1.0, 6.0), np.array([48.0, 48.5, 49.0, 49.5, 50.0]))
    assert list(_last_beyond(whole, 50.0, 0.0)) == [1.0, 2.0, 3.0]


def test_a_temperature_that_has_not_stood_still_for_as_long_has_a_least() -> None:
    """Of 45 s of constant load it may have changed in the first half."""
    found = estimate(heated(7.0)).settling_s
    assert found.value is None and found.low == pytest.approx(7.0 * math.log(40), abs=0.7)
    assert "it still changed after 25 s, of 45 s of constant load" in found.reason


@pytest.mark.parametrize(("constant_s", "told"), [(39.5, False), (40.5, True)])
def test_a_temperature_needs_forty_seconds(constant_s: float, told: bool) -> None:
    """It may look settled over some seconds."""
    found = estimate(heated(1.0, constant_s=constant_s)).settling_s
    assert (found.value is not None) is told
    assert ("are too short to tell, expected 40 s" in (found.reason or "")) is not told


@pytest.mark.parametrize(("read", "told"), [(0, False), (2, False), (3, True)])
def test_where_a_temperature_goes_needs_three_readings(read: int, told: bool) -> None:
    """Of the last second of the load."""
    trace = heated(2.0)
    end_s = trace.busy_s[0, 1]
    last = np.flatnonzero((trace.times_s >= end_s - 1.0) & (trace.times_s <= end_s))
    heat_c = trace.temperature_c.copy()
    heat_c[last[: len(last) - read]] = np.nan
    found = estimate(msgspec.structs.replace(trace, temperature_c=heat_c)).settling_s
    assert (found == Estimate(reason=TOO_FEW)) is not told and (found.value is not None) is told


def test_a_temperature_that_was_never_read_has_that_reason() -> None:
    """There may be a column of it."""
    trace = heated(2.0)
    never = msgspec.structs.replace(trace, temperature_c=trace.temperature_c * np.nan)
    assert estimate(never).settling_s == Estimate(reason="its temperature cannot be read")


def test_a_schedule_is_idling_constant_load_idling_and_waves() -> None:
    """In a minute the constant load has ten seconds, and each kind of wave comes often enough to be told from the others."""
    steps = load_schedule(60.0)
    assert [step.level for step in steps[:3]] == [0.0, 1.0, 0.0]
    assert steps[0] == steps[2] == steps[-1] == LoadStep(0.0, 4.0)
    assert steps[1].seconds == pytest.approx(10.0, rel=0.1)
    assert all(
        on.level == 1.0 and off.level == 0.0 for on, off in zip(steps[3:-1:2], steps[4:-1:2], strict=True)
    )
    periods = Counter(
        round(on.seconds + off.seconds, 9) for on, off in zip(steps[3:-1:2], steps[4:-1:2], strict=True)
    )
    assert periods == {4.0: 3, 0.4: 15, 1.0: 6, 0.13: 40, 0.057: 60, 0.7: 8}


def test_a_schedule_lasts_a_minute_unless_it_is_told() -> None:
    """About."""
    assert load_schedule() == load_schedule(60.0)
    assert sum(step.seconds for step in load_schedule()) == pytest.approx(60.0, rel=0.1)


def test_columns_of_samples_become_a_trace() -> None:
    """Seconds from the first sample on, spans of load that are none left out, a limit in watts."""
    column = np.array([1.0, np.nan, 3.0])
    trace = LoadTrace.of(
        np.array([5, 6, 8], np.int64) * 10**9,
        power_w=column,
        energy_j=column,
        temperature_c=column,
        throttle_reasons=np.array([4.0, np.nan, -1.0]),
        busy_ns=[(8 * 10**9, 9 * 10**9), (6 * 10**9, 7 * 10**9), (7 * 10**9, 7 * 10**9)],
        others_busy=True,
        power_limit_mw=350_000,
    )
    assert trace.times_s.tolist() == [0.0, 1.0, 3.0]
    assert trace.busy_s.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert trace.throttle_reasons is not None and trace.throttle_reasons.tolist() == [4, 0, 0]
    assert trace.others_busy and trace.power_limit_w == 350.0


def every_second(count: int) -> _Readings:
    return _Readings(np.arange(count, dtype=np.float64), np.arange(count, dtype=np.float64) % 2)


@pytest.mark.parametrize(
    ("count", "independent_s", "found"),
    [(0, 1.0, 0), (1, 9.0, 1), (6, 0.0, 6), (6, 0.5, 6), (6, 2.0, 3), (6, 2.1, 2)],
)
def test_readings_that_are_close_tell_the_same(count: int, independent_s: float, found: int) -> None:
    """As many count as are further apart."""
    assert every_second(count).independent(independent_s) == found


def test_three_readings_have_a_mean_and_a_spread() -> None:
    """With Student's interval of both, as wide as so many independent ones leave it; two have neither."""
    for few in (every_second(2), every_second(0)):
        assert few.mean(0.0) == few.spread(0.0) == Estimate(reason=TOO_FEW)
    assert every_second(6).mean(2.1) == every_second(6).spread(2.1) == Estimate(reason=TOO_FEW)
    t = 4.302_652_7
    for readings, independent_s in ((every_second(3), 0.0), (every_second(9), 3.0)):
        spread = float(readings.values.std(ddof=1))
        mean, found = readings.mean(independent_s), readings.spread(independent_s)
        half = t * spread / math.sqrt(3)
        middle = float(readings.values.mean())
        assert (mean.value, mean.low, mean.high) == pytest.approx((middle, middle - half, middle + half))
        half = t * spread / math.sqrt(4)
        assert (found.value, found.low, found.high) == pytest.approx(
            (spread, max(0.0, spread - half), spread + half)
        )
    wide = every_second(200).spread(0.0)
    assert wide.low is not None and 0.4 < wide.low < 0.5


def test_readings_are_those_that_are_known() -> None:
    """Between two moments, both included."""
    known = _Readings.of(np.arange(5.0), np.array([1.0, np.nan, 3.0, 4.0, np.nan]))
    assert known.at_sec.tolist() == [0.0, 2.0, 3.0]
    assert known.between(0.0, 2.0).values.tolist() == [1.0, 3.0]
    assert known.between(0.1, 9.0).values.tolist() == [3.0, 4.0]


def test_an_estimate_of_parts_is_as_far_off_as_these_differ() -> None:
    """By Student's t of one less than there are, and by what is common to all."""
    found = Estimate.of_parts(5.0, [1.0, 2.0, 3.0], common=0.25)
    half = 4.302_652_7 / math.sqrt(3) + 0.25
    assert (found.value, found.low, found.high) == pytest.approx((5.0, 5.0 - half, 5.0 + half))


def test_columns_of_samples_are_a_trace() -> None:
    """Seconds from the first reading, or as they are without any; a load without a length is none; what throttles is a number whatever was read."""
    none = np.empty(0)
    at_ns = np.array([5, 6, 8, 9], np.int64) * 10**9
    usual: dict[str, Any] = {"others_busy": True, "power_limit_mw": 250_000}
    spans_ns = [(9 * 10**9, 10 * 10**9), (6 * 10**9, 7 * 10**9), (8 * 10**9, 8 * 10**9)]
    power_w, reasons = np.arange(4.0), np.array([np.nan, -1.0, 2.0**60, 5.0])
    read = {"power_w": power_w, "energy_j": power_w, "temperature_c": power_w}
    trace = LoadTrace.of(at_ns, busy_ns=spans_ns, throttle_reasons=reasons, **read, **usual)
    assert (trace.times_s.tolist(), trace.busy_s.tolist()) == ([0, 1, 3, 4], [[1, 2], [4, 5]])
    assert trace.throttle_reasons is not None and trace.throttle_reasons.tolist() == [0, 0, 2**53, 5]
    assert (trace.others_busy, trace.power_limit_w) == (True, 250.0)
    read = dict.fromkeys(read, none)
    empty = LoadTrace.of(none.astype(np.int64), busy_ns=spans_ns, throttle_reasons=none, **read, **usual)
    assert (empty.times_s.tolist(), empty.busy_s.tolist()) == ([], [[6, 7], [9, 10]])


def test_estimates_are_had_by_their_names() -> None:
    """All of them."""
    found = SensorCalibration.without("no reason")
    assert found.estimates == dict.fromkeys(ESTIMATES, Estimate(reason="no reason"))
    assert len(ESTIMATES) == 10
