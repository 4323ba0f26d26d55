"""Sensors of simulated GPUs, calibrated by a load that a program puts on them."""

import random
from collections.abc import Callable

import pytest

from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.calibrated import Sensor, averaging, calibrated, low_pass, part_time


def assert_found(sensor: Sensor) -> None:
    found = calibrated(sensor)
    assert found.reason is None and found.averages == "boxcar"
    assert found.power_refresh_s.value == pytest.approx(sensor.refresh_s, rel=0.1)
    assert found.delay_s.value == pytest.approx(sensor.delay_s, abs=0.01)
    assert found.seen_share.value == pytest.approx(sensor.seen_share, abs=0.05)
    if sensor.seen_share == 1:
        assert found.averaging_window_s.value == pytest.approx(sensor.window_s, rel=0.05)


@pytest.mark.parametrize("kind", [averaging, part_time])
def test_a_sensor_is_found_again(nvml: Simulation, kind: Callable[[random.Random], Sensor]) -> None:
    """Refresh within 10 %, window within 5 %, delay within 10 ms, the share of time that it sees within 5 points."""
    assert_found(kind(random.Random(1)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [averaging, part_time])
def test_fifty_sensors_are_found_again(nvml: Simulation, kind: Callable[[random.Random], Sensor]) -> None:
    """Whatever their refresh, window, delay and share."""
    for seed in range(100, 125):
        assert_found(kind(random.Random(seed)))


def test_a_low_pass_is_called_so(nvml: Simulation) -> None:
    """It is no mean over a window, so it has none."""
    found = calibrated(low_pass(random.Random(1)))
    assert (found.averages, found.averaging_window_s.value) == ("other", None)


@pytest.mark.slow
def test_every_low_pass_is_called_so(nvml: Simulation) -> None:
    """Whatever its time constant."""
    for seed in range(100, 120):
        assert calibrated(low_pass(random.Random(seed))).averages == "other"


def test_a_gpu_is_loaded_by_a_program_only_where_the_scenario_says_so(nvml: Simulation) -> None:
    """One that follows a curve says that it cannot."""
    with pytest.raises(ValueError, match="load_w"):
        nvml.set_load("GPU-nowhere", 1.0)
