"""The table of docs/accuracy.md: python -m tests.simulated_nvml.accuracy"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.simulated_nvml.build import installed
from tests.simulated_nvml.scenario import Gpu, Row, Scenario, uuid_of
from tests.simulated_nvml.window import CURVES, Window, measure

HEAD = (
    "| power curve | counter, 100 ms tick | counter, 10 ms tick | instant power | 1 s average, no counter | its bound |",
    "|---|---|---|---|---|---|",
)
AVERAGE_S = 1.0
WINDOW_S = 12.0
HZ = 20.0
IN_STEP = ((0.0, 600.0), (0.075, 600.0), (0.075, 100.0), (0.1, 100.0))  # with the sensor's own period
SEEN = (0.25, 0.1)  # share of a period, seconds: the sensor sees the last quarter of each


def _window(gpu: Gpu) -> Window:
    with installed(Scenario(gpus=[gpu])) as nvml:
        return measure(nvml, gpu, clock=nvml.clock, window_s=WINDOW_S, hz=HZ)


def _error(measured_j: float | None, true_j: float) -> str:
    return "none" if measured_j is None else f"{100 * abs(measured_j / true_j - 1):.2f} %"


def average_bound_j(window: Window) -> float:
    """The most that integrating a trailing average can be wrong, from the range of power alone.

    The average carries energy from before the window in and energy of its end out; each is weighed from 0 to 1 over the
    average's length A, so together they differ by at most A/2 x range. The trapezoid of a curve whose slope is at most
    range/A errs by at most step/4 x slope over the window.
    """
    per_range_s = AVERAGE_S / 2 + WINDOW_S / HZ / 4 / AVERAGE_S
    return per_range_s * (window.highest_w - window.lowest_w)


class Windows(NamedTuple):
    """The same load with two kinds of counter, and with none and only a 1 s average of power."""

    slow: Window
    fast: Window
    blind: Window


def windows(curve: tuple[Row, ...], *, seen: tuple[float, float] | None = None) -> Windows:
    """Measure a curve three times."""
    slow = Gpu(uuid=uuid_of(0), curve=curve, seen=seen, counter_tick_ms=100.0)
    fast = Gpu(uuid=uuid_of(0), curve=curve, seen=seen, counter_tick_ms=10.0)
    blind = Gpu(uuid=uuid_of(0), curve=curve, seen=seen, counter_tick_ms=0.0, fields=frozenset())
    return Windows(*map(_window, (slow, fast, blind)))


def _line(name: str, found: Windows, *, bound: str) -> str:
    slow, fast, blind = found
    figures = (
        _error(slow.counted_j, slow.true_j),
        _error(fast.counted_j, fast.true_j),
        _error(slow.integrated_j, slow.true_j),
        _error(blind.integrated_j, blind.true_j),
    )
    return f"| {' | '.join((name, *figures, bound))} |"


def table() -> Iterator[str]:
    """Errors over 12 s of simulated time at 20 Hz, one line per curve."""
    yield from HEAD
    for name, curve in CURVES.items():
        found = windows(curve)
        yield _line(name, found, bound=f"{100 * average_bound_j(found.blind) / found.blind.true_j:.1f} %")
    yield _line("bursts in step, a quarter seen", windows(IN_STEP, seen=SEEN), bound="none")


if __name__ == "__main__":
    print("\n".join(table()))
