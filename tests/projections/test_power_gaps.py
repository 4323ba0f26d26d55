"""Power that was not read is not made up."""

import numpy as np
import pytest

from llem.projections.derive.held import Held, HeldSamples
from llem.projections.derive.samples import DeviceSamples
from llem.projections.derive.source import POSSIBLE, Device

START_NS = 5_000_000_000
DURATION_SEC = 10.0


def samples_of(at_sec: np.ndarray, power_w: np.ndarray) -> DeviceSamples:
    columns = {name: np.full(len(at_sec), np.nan) for name in POSSIBLE} | {"power_w": power_w}
    span = (START_NS, START_NS + round(DURATION_SEC * 1e9))
    at_ns = START_NS + np.round(at_sec * 1e9).astype(np.int64)
    device = Device(0, "GPU-0")
    held = Held([], [HeldSamples(device, "segment", at_ns, columns)], {})
    return DeviceSamples(held, device, span)


def every_100_ms(*, until_sec: float) -> np.ndarray:
    return np.arange(-1.0, until_sec, 0.1)


def test_power_up_to_the_edges_is_integrated() -> None:
    """100 W for 10 s are 1000 J, also where the last sample comes just before the edge."""
    at_sec = every_100_ms(until_sec=9.9)
    assert samples_of(at_sec, np.full(len(at_sec), 100.0)).integrated_energy_j == pytest.approx(1000.0)


def test_power_that_ends_within_the_window_gives_no_energy() -> None:
    """The device was lost after 6 s; its rows go on without power, and count as a gap."""
    at_sec = every_100_ms(until_sec=12.0)
    found = samples_of(at_sec, np.where(at_sec < 6.0, 100.0, np.nan))
    assert found.integrated_energy_j is None
    assert found.max_gap_sec == pytest.approx(4.1, abs=0.11)


def test_a_gap_within_the_window_is_bridged_and_told() -> None:
    """Two seconds without power between equal powers: the energy is interpolated, the gap is known to the verdict."""
    at_sec = every_100_ms(until_sec=12.0)
    found = samples_of(at_sec, np.where((at_sec > 3.0) & (at_sec < 5.0), np.nan, 100.0))
    assert found.integrated_energy_j == pytest.approx(1000.0)
    assert found.max_gap_sec == pytest.approx(2.0, abs=0.21)


def test_without_any_power_the_rows_count() -> None:
    """A device with a counter alone is watched as well as its rows are close."""
    at_sec = every_100_ms(until_sec=12.0)
    found = samples_of(at_sec, np.full(len(at_sec), np.nan))
    assert found.integrated_energy_j is None
    assert found.max_gap_sec == pytest.approx(0.1, abs=0.01)


def test_slow_sampling_may_leave_its_own_period_at_the_edges() -> None:
    """At one sample in 2 s, an edge 2 s from a sample is as well known as anything between."""
    at_sec = np.arange(1.0, 9.5, 2.0)
    assert samples_of(at_sec, np.full(len(at_sec), 50.0)).integrated_energy_j == pytest.approx(500.0)
