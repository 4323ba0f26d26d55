"""The NVML meter against the simulated GPU's own account of its energy."""

import time
from pathlib import Path

import pytest

from llem.meters.base import Clock
from tests.delays import best_of_rounds, delays
from tests.simulated_nvml.accuracy import IN_STEP, SEEN, average_bound_j, table, windows
from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.scenario import Gpu, Scenario, uuid_of
from tests.simulated_nvml.window import CURVES, measure

TICKS_MS = (10.0, 20.0, 100.0)


@pytest.mark.parametrize("tick_ms", TICKS_MS)
@pytest.mark.parametrize("curve", CURVES)
def test_counts_energy_to_one_percent_and_a_tick(nvml: Simulation, curve: str, tick_ms: float) -> None:
    """Over 12 s of simulated time the counter's difference is the true energy, whatever the curve."""
    gpu = Gpu(uuid=uuid_of(0), curve=CURVES[curve], counter_tick_ms=tick_ms)
    nvml.install(Scenario(gpus=[gpu]))
    window = measure(nvml, gpu, clock=nvml.clock)
    assert abs(window.counted_j - window.true_j) <= 0.01 * window.true_j + window.highest_w * tick_ms / 1000


@pytest.mark.parametrize("tick_ms", TICKS_MS)
def test_reading_edges_after_a_tick_removes_the_tick_error(nvml: Simulation, tick_ms: float) -> None:
    """Even a window of 1 s at 100 ms, which could be 10 % wrong, is within 1.5 %."""
    gpu = Gpu(uuid=uuid_of(0), curve=CURVES["ramp"], counter_tick_ms=tick_ms)
    nvml.install(Scenario(gpus=[gpu]))
    window = measure(nvml, gpu, clock=nvml.clock, window_s=1.0)
    assert window.counted_j == pytest.approx(window.true_j, rel=0.015)


@pytest.mark.parametrize("tick_ms", TICKS_MS)
def test_measures_the_tick(nvml: Simulation, tick_ms: float) -> None:
    """The time between two changes of the counter is found within 10 %."""
    gpu = Gpu(uuid=uuid_of(0), counter_tick_ms=tick_ms)
    nvml.install(Scenario(gpus=[gpu]))
    assert measure(nvml, gpu, clock=nvml.clock, window_s=0.1).tick_ns == pytest.approx(tick_ms * 1e6, rel=0.1)


@pytest.mark.parametrize("curve", CURVES)
def test_integrates_instant_power(nvml: Simulation, curve: str) -> None:
    """Power sampled at 20 Hz and integrated is the second opinion: within 5 % on every curve."""
    gpu = Gpu(uuid=uuid_of(0), curve=CURVES[curve])
    nvml.install(Scenario(gpus=[gpu]))
    window = measure(nvml, gpu, clock=nvml.clock)
    assert window.integrated_j == pytest.approx(window.true_j, rel=0.05)


def test_part_time_sampling_misleads_power_but_not_the_counter(nvml: Simulation) -> None:
    """A sensor that sees a quarter of the time can be far off on a load in step with it; the counter is not."""
    slow, fast, _ = windows(IN_STEP, seen=SEEN)
    assert slow.counted_j == pytest.approx(slow.true_j, rel=0.01)
    assert fast.counted_j == pytest.approx(fast.true_j, rel=0.01)
    assert slow.integrated_j < 0.5 * slow.true_j


@pytest.mark.parametrize("curve", CURVES)
def test_averaged_power_stays_within_its_bound(nvml: Simulation, curve: str) -> None:
    """Without a counter and with a 1 s average the error is larger, and no larger than what is stated."""
    blind = windows(CURVES[curve]).blind
    assert blind.counted_j is None
    assert abs(blind.integrated_j - blind.true_j) <= average_bound_j(blind) + 0.001 * blind.true_j


def test_the_documented_table_is_what_is_measured(nvml: Simulation) -> None:
    """docs/accuracy.md shows this very table."""
    documented = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text()
    assert "\n".join(table()) in documented


@pytest.mark.slow
@best_of_rounds
def test_counts_energy_in_real_time(nvml: Simulation) -> None:
    """The same over 3 s of the real clock, with the machine's own delays."""
    gpu = Gpu(uuid=uuid_of(0), curve=CURVES["square"])
    nvml.install(Scenario(gpus=[gpu]), simulated_time=False)
    window = measure(nvml, gpu, clock=Clock(time.monotonic_ns, time.sleep), window_s=3.0)
    with delays():
        assert abs(window.counted_j - window.true_j) <= 0.01 * window.true_j + window.highest_w * 0.1
