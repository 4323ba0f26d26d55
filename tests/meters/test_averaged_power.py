"""Energy from a 1 s average of power, on simulated GPUs that tell nothing else."""

from pathlib import Path

import numpy as np
import pytest

from llem.results.averaged_power import SEEN_APART, AveragedReadings, refresh_period_sec
from tests.conftest import mostly_slow
from tests.simulated_nvml.averaged import (
    CURVES,
    GUARD_S,
    REFRESHES_MS,
    Found,
    found,
    measure,
    readings_of,
    table,
)
from tests.simulated_nvml.build import Simulation

AVERAGED = {"averaged_sec": 1.0, "power_limit_w": 700.0}


def assert_close(windows: dict[str, Found], *, most: float) -> None:
    for name, window in windows.items():
        assert window.error <= most, name
        assert abs(window.telescoped_j - window.true_j) <= window.bound_j, name
        assert window.bound_j <= window.trapezoid_bound_j, name


@pytest.mark.parametrize("refresh_ms", mostly_slow(REFRESHES_MS, every=2))
def test_ten_seconds_are_known_to_one_percent(nvml: Simulation, refresh_ms: float) -> None:
    """Whatever the curve and however seldom the average is renewed; the truth lies within the bound, which is closer than the trapezoid's."""
    windows = found(refresh_ms, 10.0)
    assert_close(windows, most=0.01)
    assert max(window.bound_j / window.true_j for window in windows.values()) <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("window_s", [5.0, 30.0, 60.0])
@pytest.mark.parametrize("refresh_ms", REFRESHES_MS)
def test_windows_of_other_lengths(nvml: Simulation, refresh_ms: float, window_s: float) -> None:
    """Short ones are known to 2 %, longer ones better than those of 10 s."""
    windows = found(refresh_ms, window_s)
    assert_close(windows, most=0.02 if window_s < 10 else 0.01)
    if window_s >= 30:
        assert max(window.bound_j / window.true_j for window in windows.values()) <= 0.01


@pytest.mark.parametrize("window_s", [9.999, 10.0, 10.001, 12.345])
def test_a_window_need_not_be_a_multiple_of_the_average(nvml: Simulation, window_s: float) -> None:
    """What of the last average lies after the window is idle power, and taken off."""
    window = measure(CURVES["square"], refresh_ms=100, window_s=window_s, phase_s=0.03)
    assert window.error <= 0.01


@pytest.mark.parametrize("refresh_ms", [30, 101])
def test_refreshes_out_of_step_with_the_average(nvml: Simulation, refresh_ms: float) -> None:
    """A second is no whole number of these: what lies between refreshes is interpolated, and the bound says so."""
    window = measure(CURVES["square"], refresh_ms=refresh_ms, window_s=10.0, phase_s=0.013)
    assert window.error <= 0.01
    assert abs(window.telescoped_j - window.true_j) <= window.bound_j <= 0.05 * window.true_j


@pytest.mark.parametrize(("known_s", "within_s"), [(0.04, 0.0), (0.05, 0.01)], ids=["known", "known nearly"])
def test_a_sensor_that_tells_late(nvml: Simulation, known_s: float, within_s: float) -> None:
    """Its readings are put back by what a calibration found, and what that does not know widens the bound."""
    at_sec, power_w, true_j = readings_of(
        CURVES["square"], refresh_ms=100, window_s=10.0, phase_s=0.03, after_s=2.0, delay_s=0.04
    )
    energy = readings(at_sec, power_w).telescoped(
        duration_sec=10.0, guard_sec=1.8, delay_sec=known_s, delay_within_sec=within_s, **AVERAGED
    )
    assert abs(energy.energy_j - true_j) <= energy.uncertainty_j <= 0.02 * true_j


@pytest.mark.slow
def test_the_documented_table_is_what_is_measured(nvml: Simulation) -> None:
    """docs/accuracy.md shows this very table."""
    documented = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text()
    assert "\n".join(table()) in documented


def readings(at_sec: np.ndarray, power_w: np.ndarray, *, pieces: int = 1) -> AveragedReadings:
    collected = AveragedReadings()
    for some in np.array_split(np.arange(len(at_sec)), pieces):
        collected.add(at_sec[some], power_w[some])
    return collected


def steady(until_sec: float) -> tuple[np.ndarray, np.ndarray]:
    at_sec = np.arange(-1.0, until_sec, 0.02)
    return at_sec, np.full(len(at_sec), 200.0)


def test_a_power_that_never_changes(nvml: Simulation) -> None:
    """No refresh is seen at all: 200 W for 10 s are 2,000 J."""
    energy = readings(*steady(11.8)).telescoped(duration_sec=10.0, guard_sec=GUARD_S, **AVERAGED)
    assert energy is not None and energy.energy_j == pytest.approx(2000.0)


def test_pieces_are_as_good_as_the_whole(nvml: Simulation) -> None:
    """A long run is read some time at once."""
    at_sec, _ = steady(11.8)
    power_w = np.floor(at_sec * 10) % 7 * 50.0 + 100.0
    whole, cut = (
        readings(at_sec, power_w, pieces=pieces).telescoped(duration_sec=10.0, guard_sec=GUARD_S, **AVERAGED)
        for pieces in (1, 13)
    )
    assert cut == pytest.approx(whole)


@pytest.mark.parametrize(
    ("until_sec", "guard_sec"),
    [(10.9, GUARD_S), (11.8, 0.0), (11.8, 1.0)],
    ids=["no readings", "no guard", "short"],
)
def test_without_a_guard_there_is_no_such_energy(until_sec: float, guard_sec: float) -> None:
    """What was averaged over the end of the load has to be told from what came after it."""
    collected = readings(*steady(until_sec))
    assert collected.telescoped(duration_sec=10.0, guard_sec=guard_sec, **AVERAGED) is None


def test_without_readings_there_is_none() -> None:
    """Nothing was read, or nothing before the window."""
    assert AveragedReadings().telescoped(duration_sec=10.0, guard_sec=GUARD_S, **AVERAGED) is None
    at_sec, power_w = steady(11.8)
    late = readings(at_sec[60:], power_w[60:])
    assert late.telescoped(duration_sec=10.0, guard_sec=GUARD_S, **AVERAGED) is None


def test_a_device_without_a_limit_has_no_bound() -> None:
    """The energy is known all the same."""
    energy = readings(*steady(11.8)).telescoped(
        duration_sec=10.0, guard_sec=GUARD_S, averaged_sec=1.0, power_limit_w=None
    )
    assert energy is not None and energy.uncertainty_j is None


def test_refreshes_are_told_apart_from_readings_only_where_there_are_more_readings() -> None:
    """At one and a half readings a refresh the time between readings is all that is known."""
    every = np.arange(20.0)
    assert refresh_period_sec(SEEN_APART * every, 1.0) == 1.0
    assert refresh_period_sec(1.6 * every, 1.0) == pytest.approx(1.6)
    assert refresh_period_sec(1.6 * every[:3], 1.0) == 1.0
