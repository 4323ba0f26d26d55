"""Sensors of simulated GPUs, calibrated by a load that a program puts on them."""

import random
from collections.abc import Callable
from functools import lru_cache

import msgspec
import numpy as np
import pytest

from llem.results.calibration import (
    IDLE_SEC,
    Estimate,
    LoadStep,
    LoadTrace,
    SensorCalibration,
    estimate,
    load_schedule,
)
from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.calibrated import (
    IDLE_W,
    LOAD_W,
    Sensor,
    averaging,
    calibrated,
    gpu,
    low_pass,
    part_time,
    traced,
)

VALUES = [name for name, kind in SensorCalibration.__annotations__.items() if kind is Estimate]


def assert_found(sensor: Sensor) -> None:
    found = calibrated(sensor)
    assert found.reason is None and found.averages == "boxcar"
    assert found.power_refresh_s.value == pytest.approx(sensor.refresh_s, rel=0.1)
    assert found.delay_s.value == pytest.approx(sensor.delay_s, abs=0.01)
    assert found.seen_share.value == pytest.approx(sensor.seen_share, abs=0.05)
    if sensor.seen_share == 1:
        assert found.averaging_window_s.value == pytest.approx(sensor.window_s, rel=0.05)


def test_a_part_time_sensor_is_found_again(nvml: Simulation) -> None:
    """Refresh within 10 %, delay within 10 ms, the share of time that it sees within 5 points."""
    assert_found(part_time(random.Random(1)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [averaging, part_time])
def test_fifty_sensors_are_found_again(nvml: Simulation, kind: Callable[[random.Random], Sensor]) -> None:
    """Whatever their refresh, window, delay and share."""
    for seed in range(100, 125):
        assert_found(kind(random.Random(seed)))


def test_a_low_pass_is_called_so(nvml: Simulation) -> None:
    """It is no mean over a window, so it has none."""
    found = estimate(traced(gpu(refresh=(0.1, 0.03), low_pass_s=0.3), hz=100.0))
    assert (found.averages, found.averaging_window_s.value) == ("other", None)
    assert "low-pass" in found.averaging_window_s.reason


@pytest.mark.slow
def test_every_low_pass_is_called_so(nvml: Simulation) -> None:
    """Whatever its time constant."""
    for seed in range(100, 106):
        assert calibrated(low_pass(random.Random(seed))).averages == "other"


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.25, 0.6])
def test_an_average_of_a_part_of_the_time(nvml: Simulation, share: float) -> None:
    """A 1 s mean of ten looks sees no more of the time than each look does of its refresh."""
    found = estimate(traced(gpu(seen=(share, 0.1), refresh=(0.1, 0.03), delay_s=0.02)))
    assert found.averages == "boxcar" and found.averaging_window_s.value == pytest.approx(1.0, rel=0.05)
    assert found.seen_share.value == pytest.approx(share, abs=0.05)


@lru_cache(1)
def usual() -> LoadTrace:
    """An H100-like device: a 1 s average that is 20 ms late, and a counter that ticks every 100 ms."""
    return traced(gpu(refresh=(0.1, 0.03), delay_s=0.02), hz=100.0)


def test_an_average_and_what_else_is_told(nvml: Simulation) -> None:
    """Window and delay, idle power, the load's, the counter against integrated power; each with its interval."""
    found = estimate(usual())
    assert found.averaging_window_s.value == pytest.approx(1.0, rel=0.05)
    assert found.delay_s.value == pytest.approx(0.02, abs=0.01)
    assert (found.idle_w.value, found.load_w.value) == pytest.approx((IDLE_W, LOAD_W), abs=0.01)
    assert found.idle_spread_w.value < 0.01
    assert found.counter_over_power.value == pytest.approx(1.0, abs=0.001)
    assert found.counter_over_power.low < 1.0 < found.counter_over_power.high
    assert found.energy_refresh_s.value == pytest.approx(0.1, rel=0.01)
    assert "too short" in found.settling_s.reason


def test_what_was_before_the_first_idling_is_not_looked_at(nvml: Simulation) -> None:
    """A load program that loads its libraries works the device for a moment, which it does not report."""
    started_s = usual().busy_s[0, 0] - IDLE_SEC
    early_s = np.concatenate((started_s - 2.0 + np.arange(200) / 100, usual().times_s))
    early_w = np.concatenate((np.linspace(70.0, 600.0, 200), usual().power_w))
    nothing = np.full(200, np.nan)
    found = estimate(
        LoadTrace(
            times_s=early_s,
            power_w=early_w,
            energy_j=np.concatenate((nothing, usual().energy_j)),
            busy_s=usual().busy_s,
        )
    )
    assert found.idle_w.value == pytest.approx(IDLE_W, abs=0.01)
    assert found.averaging_window_s.value == pytest.approx(1.0, rel=0.01)


def changed(**columns: object) -> LoadTrace:
    return msgspec.structs.replace(usual(), **columns)


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        (lambda: changed(others_busy=True), "another process"),
        (lambda: changed(busy_s=np.empty((0, 2))), "no load"),
        (lambda: changed(power_w=usual().power_w * np.nan), "no reading of power"),
        (lambda: changed(power_w=usual().power_w * 0 + 80), "80 W without it, 80 W with it"),
        (lambda: changed(power_limit_w=520.0), "reached the limit of 520 W"),
        (lambda: changed(throttle_reasons=usual().throttle_reasons * 0 + 4), "power cap"),
        (lambda: changed(times_s=usual().times_s * 6, busy_s=usual().busy_s * 6), "answered every 60 ms"),
        (lambda: changed(busy_s=usual().busy_s[1:] - usual().busy_s[0, 0]), "before the load"),
        (lambda: changed(power_w=usual().power_w + foreign_w(), power_limit_w=None), "something else drew power"),
    ],
    ids=["others", "no load", "no power", "unmoved", "limit", "throttled", "seldom", "no idling", "foreign load"],
)  # fmt: skip
def test_what_cannot_be_relied_on_is_not_told(
    nvml: Simulation, trace: Callable[[], LoadTrace], reason: str
) -> None:
    """Each of these gives a reason in the place of all values."""
    found = estimate(trace())
    assert reason in found.reason
    assert all(getattr(found, name) == Estimate(reason=found.reason) for name in VALUES)


def test_a_load_that_ended_before_it_began_is_none() -> None:
    """A damaged log may say so."""
    some = np.full(10, 100.0)
    columns = dict.fromkeys(("power_w", "energy_j", "temperature_c", "throttle_reasons"), some)
    trace = LoadTrace.of(np.arange(10), **columns, busy_ns=[(5, 3)], others_busy=False, power_limit_mw=None)
    assert "no load" in estimate(trace).reason


def foreign_w() -> np.ndarray:
    """Somebody else's load, that comes and goes by itself."""
    return np.repeat(np.random.default_rng(1).uniform(0, 900, 140), 50)[: len(usual().times_s)]


@pytest.mark.parametrize(
    ("seconds", "settled_s"), [(1.0, pytest.approx(np.log(40), abs=0.1)), (60.0, None)], ids=["soon", "late"]
)
def test_a_temperature_that_settles_and_no_counter(
    nvml: Simulation, seconds: float, settled_s: float | None
) -> None:
    """Within a degree of where it goes, where it then stands still for long; what needs a counter has a reason."""
    found = estimate(heated(seconds))
    assert found.settling_s.value == settled_s
    if settled_s is None:
        assert "still changed" in found.settling_s.reason and 20 < found.settling_s.low < 45
    assert "no energy counter" in found.counter_over_power.reason


def heated(time_constant_s: float) -> LoadTrace:
    """A GPU that warms by 40 degrees in a constant load of 45 s."""
    trace = constant()
    began_s = trace.busy_s[0, 0]
    heat_c = 80 - 40 * np.exp(-np.maximum(trace.times_s - began_s, 0.0) / time_constant_s)
    return msgspec.structs.replace(trace, temperature_c=heat_c, energy_j=trace.energy_j * np.nan)


@lru_cache(1)
def constant() -> LoadTrace:
    idle, *steps = load_schedule(12.0)
    return traced(gpu(refresh=(0.1, 0.03)), hz=25.0, schedule=[idle, LoadStep(1.0, 45.0), *steps[1:]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "reason"), [(-1.0, "ran backwards"), (0.0, "stood still")], ids=["backwards", "still"]
)
def test_a_counter_that_tells_nothing(nvml: Simulation, factor: float, reason: str) -> None:
    """Its two values have the reason."""
    found = estimate(changed(energy_j=usual().energy_j * factor))
    assert reason in found.counter_over_power.reason and reason in found.energy_refresh_s.reason


@pytest.mark.parametrize("seconds", [20.0, 60.0, 120.0])
def test_the_schedule_takes_as_long_as_it_is_told(seconds: float) -> None:
    """It begins and ends with idling."""
    schedule = load_schedule(seconds)
    assert sum(step.seconds for step in schedule) == pytest.approx(seconds, rel=0.1)
    assert schedule[0].level == schedule[-1].level == 0.0


def test_a_gpu_is_loaded_by_a_program_only_where_the_scenario_says_so(nvml: Simulation) -> None:
    """One that follows a curve says that it cannot."""
    with pytest.raises(ValueError, match="load_w"):
        nvml.set_load("GPU-nowhere", 1.0)
