"""A window measured on one simulated GPU: what the meter says of it, and the truth."""

from itertools import pairwise
from typing import NamedTuple

from llem.meters.base import Clock
from llem.meters.nvml import NvmlMeter, resolve_gpus
from llem_events.events import EnergyEdge, Reading
from tests.simulated_nvml.build import Simulation
from tests.simulated_nvml.scenario import Gpu, Row, constant, ramp, random_walk, recorded, square

CURVES: dict[str, tuple[Row, ...]] = {
    "constant": constant(350.0),
    "square": square(650.0, 90.0, period_s=0.7),
    "ramp": ramp(60.0, 690.0, period_s=3.3),
    "random walk": random_walk(80.0, 690.0, seed=7),
    "recorded trace": recorded(),
}


class Window(NamedTuple):
    """Joules by the counter, by integrated power, and in truth."""

    counted_j: float | None
    integrated_j: float
    true_j: float
    tick_ns: int | None
    highest_w: float
    lowest_w: float


def measure(nvml: Simulation, gpu: Gpu, *, clock: Clock, window_s: float = 12.0, hz: float = 20.0) -> Window:
    """Open a window anywhere in the curve, sample at a steady rate, close it."""
    meter = NvmlMeter(resolve_gpus(None), clock=clock)
    clock.sleep_s(0.137)
    (opened,) = meter.read_edge()
    samples = _samples(meter, clock, until_ns=opened.at_ns + round(window_s * 1e9), period_ns=round(1e9 / hz))
    (closed,), (metered,) = meter.read_edge(), meter.devices()
    assert meter.faults() == []
    meter.close()
    true_j = nvml.true_energy_j(0, opened.at_ns, closed.at_ns)
    sampled_j = nvml.true_energy_j(0, samples[0].at_ns, samples[-1].at_ns)
    return Window(
        counted_j=_difference_j(opened, closed),
        integrated_j=_integral_j(samples) + true_j - sampled_j,  # the samples' own span is what is compared
        true_j=true_j,
        tick_ns=metered.counter_tick_ns,
        highest_w=max(watts for _, watts in gpu.curve),
        lowest_w=min(watts for _, watts in gpu.curve),
    )


def _samples(meter: NvmlMeter, clock: Clock, *, until_ns: int, period_ns: int) -> list[Reading]:
    samples, due_ns = [], clock.now_ns()
    while due_ns < until_ns:
        samples.append(meter.read()[0])
        due_ns += period_ns
        clock.sleep_s(max(0, due_ns - clock.now_ns()) / 1e9)
    return samples


def _difference_j(opened: EnergyEdge, closed: EnergyEdge) -> float | None:
    if opened.energy_mj is None or closed.energy_mj is None:
        return None
    return (closed.energy_mj - opened.energy_mj) / 1000


def _integral_j(samples: list[Reading]) -> float:
    pairs = [(b.at_ns - a.at_ns, ((a.power_mw or 0) + (b.power_mw or 0)) / 2) for a, b in pairwise(samples)]
    return sum(span_ns * power_mw for span_ns, power_mw in pairs) / 1e12
