"""The NVML meter against the simulated GPU's own account of its energy."""

import time
from itertools import pairwise
from typing import NamedTuple

import pytest

from llem.meters.clock import Clock
from llem.meters.nvml import NvmlMeter
from llem.meters.nvml_gpus import resolve_gpus
from llem_events.reading import Reading
from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.scenario import (
    Gpu,
    Row,
    Scenario,
    constant,
    ramp,
    random_walk,
    recorded,
    square,
    uuid_of,
)

CURVES: dict[str, tuple[Row, ...]] = {
    "constant": constant(350.0),
    "square": square(650.0, 90.0, period_s=0.7),
    "ramp": ramp(60.0, 690.0, period_s=3.3),
    "random walk": random_walk(80.0, 690.0, seed=7),
    "recorded trace": recorded(),
}
TICKS_MS = (10.0, 20.0, 100.0)


class Window(NamedTuple):
    """What the meter said of a window, and the truth."""

    counted_j: float
    integrated_j: float
    true_j: float
    tick_ns: int
    highest_w: float


def measure(nvml: Simulation, gpu: Gpu, *, clock: Clock, window_s: float = 12.0, hz: float = 20.0) -> Window:
    """Open a window, sample at a steady rate, close it."""
    meter = NvmlMeter(resolve_gpus(None), clock=clock)
    clock.sleep_s(0.137)  # the window opens anywhere in the curve
    (opened,), samples = meter.read_edge(), []
    due_ns = clock.now_ns()
    while due_ns < opened.at_ns + window_s * 1e9:
        samples.append(meter.read()[0])
        due_ns += round(1e9 / hz)
        clock.sleep_s(max(0, due_ns - clock.now_ns()) / 1e9)
    (closed,) = meter.read_edge()
    (metered,) = meter.devices()
    assert meter.faults() == []
    meter.close()
    counted_j = (closed.energy_mj - opened.energy_mj) / 1000 if closed.energy_mj and opened.energy_mj else 0.0
    true_j = nvml.true_energy_j(0, opened.at_ns, closed.at_ns)
    spanned_j = nvml.true_energy_j(0, samples[0].at_ns, samples[-1].at_ns)
    highest_w = max(watts for _, watts in gpu.curve)
    return Window(
        counted_j, _integral_j(samples) * true_j / spanned_j, true_j, metered.counter_tick_ns or 0, highest_w
    )


def _integral_j(samples: list[Reading]) -> float:
    pairs = [(b.at_ns - a.at_ns, ((a.power_mw or 0) + (b.power_mw or 0)) / 2) for a, b in pairwise(samples)]
    return sum(span_ns * power_mw for span_ns, power_mw in pairs) / 1e12


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
    in_step = ((0.0, 600.0), (0.075, 600.0), (0.075, 100.0), (0.1, 100.0))
    gpu = Gpu(uuid=uuid_of(0), curve=in_step, seen=(0.25, 0.1))
    nvml.install(Scenario(gpus=[gpu]))
    window = measure(nvml, gpu, clock=nvml.clock)
    assert window.counted_j == pytest.approx(window.true_j, rel=0.01)
    assert window.integrated_j < 0.5 * window.true_j


@pytest.mark.slow
def test_counts_energy_in_real_time(nvml: Simulation) -> None:
    """The same over 10 s of the real clock, with the machine's own delays."""
    gpu = Gpu(uuid=uuid_of(0), curve=CURVES["square"])
    nvml.install(Scenario(gpus=[gpu]), simulated_time=False)
    window = measure(nvml, gpu, clock=Clock(time.monotonic_ns, time.sleep), window_s=10.0)
    assert abs(window.counted_j - window.true_j) <= 0.01 * window.true_j + window.highest_w * 0.1
