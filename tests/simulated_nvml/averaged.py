"""The table of averaged power in docs/accuracy.md: python -m tests.simulated_nvml.averaged"""

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from llem.meters.base import Clock
from llem.meters.nvml import NvmlMeter, resolve_gpus
from llem.results.averaged_power import AveragedReadings, FloatArray
from llem.results.power import energy_between_j, integral_uncertainty_j
from llem.units import MW_PER_W, NS_PER_S
from tests.simulated_nvml.build import installed
from tests.simulated_nvml.scenario import Gpu, Row, Scenario, ending, random_walk, square, uuid_of
from tests.simulated_nvml.window import CURVES

HEAD = (
    "| refresh of the 1 s average | window | telescoped, worst | its bound, median and worst | trapezoid, worst | its bound, median |",
    "|---|---|---|---|---|---|",
)
REFRESHES_MS = (20, 50, 100, 250)
WINDOWS_S = (5.0, 10.0, 30.0, 60.0)
HZ = 50.0
OPENED_S, IDLE_W, GUARD_S = 3.0, 70.0, 1.6
LIMIT_W = 700.0
RANDOM = 30


class Found(NamedTuple):
    """Energies of one window in joules, and how far each may be from the truth."""

    true_j: float
    telescoped_j: float
    bound_j: float
    trapezoid_j: float
    trapezoid_bound_j: float

    @property
    def error(self) -> float:
        return abs(self.telescoped_j / self.true_j - 1)


def curves() -> dict[str, tuple[Row, ...]]:
    """Those of the other table, and random ones: half of them walks, half of them square waves."""
    rng = random.Random(13)
    walks = {f"walk {seed}": random_walk(80.0, 690.0, seed=seed, steps=200) for seed in range(RANDOM // 2)}
    squares = {
        f"square {number}": square(
            rng.uniform(300, 690), rng.uniform(60, 250), period_s=rng.choice((0.1, 0.4, rng.uniform(0.05, 5)))
        )
        for number in range(RANDOM // 2)
    }
    return CURVES | walks | squares


def measure(curve: tuple[Row, ...], *, refresh_ms: float, window_s: float, phase_s: float) -> Found:
    """A window over a load that ends with it, on a GPU that tells nothing but a 1 s average."""
    at_sec, power_w, true_j = readings_of(curve, refresh_ms=refresh_ms, window_s=window_s, phase_s=phase_s)
    readings = AveragedReadings()
    readings.add(at_sec, power_w)
    telescoped = readings.telescoped(
        duration_sec=window_s, averaged_sec=1.0, guard_sec=GUARD_S, power_limit_w=LIMIT_W
    )
    trapezoid_j = energy_between_j(at_sec, power_w, start_sec=0.0, end_sec=window_s)
    bound_j = integral_uncertainty_j(
        at_sec, power_w, start_sec=0.0, end_sec=window_s, power_window_sec=1.0, power_limit_w=LIMIT_W
    )
    return Found(true_j, telescoped.energy_j, telescoped.uncertainty_j, trapezoid_j, bound_j)


def readings_of(
    curve: tuple[Row, ...],
    *,
    refresh_ms: float,
    window_s: float,
    phase_s: float,
    after_s: float = GUARD_S + 0.2,
    delay_s: float = 0.0,
) -> tuple[FloatArray, FloatArray, float]:
    """Seconds from the window's start and watts, until so long after it, and the joules that were drawn in it."""
    end_s = OPENED_S + window_s
    gpu = Gpu(
        uuid=uuid_of(0),
        curve=ending(curve, end_s=end_s, idle_w=IDLE_W, idle_s=60.0),
        counter_tick_ms=0.0,
        fields=frozenset(),
        refresh=(refresh_ms / 1000, phase_s),
        delay_s=delay_s,
    )
    with installed(Scenario(gpus=[gpu])) as nvml:
        opened_ns = nvml.clock.now_ns() + round(OPENED_S * NS_PER_S)
        at_sec, power_w = _readings(nvml.clock, opened_ns, until_s=window_s + after_s)
        true_j = nvml.true_energy_j(0, opened_ns, opened_ns + round(window_s * NS_PER_S))
    return at_sec, power_w, true_j


def _readings(clock: Clock, opened_ns: int, *, until_s: float) -> tuple[FloatArray, FloatArray]:
    """Seconds from the window's start, and watts, read at a steady rate."""
    meter, due_ns, readings = NvmlMeter(resolve_gpus(None), clock=clock), clock.now_ns(), []
    while due_ns < opened_ns + until_s * NS_PER_S:
        readings.append(meter.read()[0])
        due_ns += round(NS_PER_S / HZ)
        clock.sleep_s(max(0, due_ns - clock.now_ns()) / NS_PER_S)
    meter.close()
    at_sec = (np.array([reading.at_ns for reading in readings], np.float64) - opened_ns) / NS_PER_S
    return at_sec, np.array([reading.power_mw for reading in readings], np.float64) / MW_PER_W


def found(refresh_ms: float, window_s: float) -> dict[str, Found]:
    """All curves."""
    rng = random.Random(round(refresh_ms * 1000 + window_s))
    return {
        name: measure(
            curve, refresh_ms=refresh_ms, window_s=window_s, phase_s=rng.uniform(0, refresh_ms / 1000)
        )
        for name, curve in curves().items()
    }


def table() -> Iterator[str]:
    """A line for every refresh time and window."""
    yield from HEAD
    for refresh_ms in REFRESHES_MS:
        for window_s in WINDOWS_S:
            yield _line(refresh_ms, window_s, list(found(refresh_ms, window_s).values()))


def _line(refresh_ms: float, window_s: float, windows: list[Found]) -> str:
    bounds = [each.bound_j / each.true_j for each in windows]
    trapezoids = [abs(each.trapezoid_j / each.true_j - 1) for each in windows]
    trapezoid_bounds = [each.trapezoid_bound_j / each.true_j for each in windows]
    figures = (
        _percent(max(each.error for each in windows)),
        f"{_percent(np.median(bounds))}, {_percent(max(bounds))}",
        _percent(max(trapezoids)),
        _percent(np.median(trapezoid_bounds)),
    )
    return f"| {' | '.join((f'{refresh_ms} ms', f'{window_s:g} s', *figures))} |"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


if __name__ == "__main__":
    print("\n".join(table()))
