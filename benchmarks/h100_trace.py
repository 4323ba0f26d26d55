"""Samples in the shape of a recorded H100 trace, at 100 Hz with seeded noise: the data of every benchmark of the log.

Only the busy part of the trace is used, to and fro, so that no column is zero or constant for long. What the trace has every
250 ms is interpolated; what it lacks is derived: the energy counter is the sum of power and time, the average a mean
over the last second, and clocks, throttle reasons and power limit change in episodes.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llem_events import SAMPLE_COLUMNS

TRACE = Path(__file__).with_name("data") / "h100_qwen3-8b_serving_4hz.csv"
PERIOD_NS = 10_000_000
AVERAGED = 100  # samples in the driver's mean
BUSY_FROM_MS = 15_253
MIB = 2**20

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def chunks(total: int, *, chunk: int = 1_000_000, seed: int = 0) -> Iterator[dict[str, Ints]]:
    """`total` samples as columns named in SAMPLE_COLUMNS; the same seed and chunk give the same samples."""
    source = Source(seed)
    for start in range(0, total, chunk):
        yield source.take(min(chunk, total - start))


class Source:
    """A device under load; each `take` goes on where the last one ended."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._trace = _busy_trace()
        self._taken = 0
        self._last_ns = 5_000_000_000_000
        self._energy_mj = 8.0e9
        self._memory_steps = 0
        self._before = np.full(AVERAGED - 1, 400_000, np.int64)

    def take(self, count: int) -> dict[str, Ints]:
        """The next `count` samples."""
        at_ns, elapsed_ns = self._times(count)
        position = self._position(count)
        power_mw = self._power(position)
        average_mw = self._average(power_mw)
        energy = self._energy_mj + np.cumsum(power_mw * (elapsed_ns / 1e9))
        self._energy_mj = float(energy[-1])
        columns = {
            "at_ns": at_ns,
            "power_mw": power_mw,
            "power_average_mw": average_mw,
            "energy_mj": energy.astype(np.int64),
            "temperature_c": self._rounded(54 + (average_mw - 415_000) / 8e3, spread=0.4),
            "gpu_utilisation_pct": self._rounded(self._at(position, "gpu_util_pct"), spread=0.8, highest=100),
            "memory_utilisation_pct": self._rounded(self._at(position, "mem_util_pct"), spread=1.2),
            "memory_used_bytes": self._memory_used(count),
            "sm_clock_mhz": self._sm_clock(power_mw),
            "memory_clock_mhz": self._episodes(count, [2619, 2619, 1593, 2619], seconds=1),
            "throttle_reasons": 2
            | self._episodes(count, [0, 4, 0, 32], seconds=3)
            | (4 * (power_mw > 445_000)),
            "power_limit_mw": self._episodes(count, [700_000, 650_000, 600_000, 550_000], seconds=5),
        }
        self._taken += count
        return {name: columns[name] for name in SAMPLE_COLUMNS}

    def _times(self, count: int) -> tuple[Ints, Ints]:
        """A timer's wake-ups: on a grid, late by some tens of microseconds, never early."""
        grid = 5_000_000_000_000 + PERIOD_NS * np.arange(self._taken + 1, self._taken + 1 + count)
        late = np.minimum(20_000 + self._rng.exponential(40_000, count), 0.9 * PERIOD_NS)
        at_ns = grid + late.astype(np.int64)
        elapsed_ns = np.diff(at_ns, prepend=self._last_ns)
        self._last_ns = int(at_ns[-1])
        return at_ns, elapsed_ns

    def _position(self, count: int) -> Floats:
        """Milliseconds in the trace: to and fro at a speed that changes, so that no two passes are alike."""
        at_s = np.arange(self._taken, self._taken + count) * (PERIOD_NS / 1e9)
        first, last = self._trace["t_ms"][[0, -1]]
        travelled_ms = 1e3 * (at_s + 9 * np.sin(at_s / 61) + 4 * np.sin(at_s / 17))
        phase = np.mod(travelled_ms, 2 * (last - first))
        return first + np.minimum(phase, 2 * (last - first) - phase)

    def _at(self, position: Floats, column: str) -> Floats:
        return np.interp(position, self._trace["t_ms"], self._trace[column])

    def _power(self, position: Floats) -> Ints:
        watts = self._at(position, "power_w") + self._rng.normal(0, 1.5, len(position))
        return (1e3 * watts).astype(np.int64)

    def _average(self, power_mw: Ints) -> Ints:
        longer = np.concatenate((self._before, power_mw))
        sums = np.cumsum(longer)
        self._before = longer[-len(self._before) :]
        sums[AVERAGED:] -= sums[:-AVERAGED].copy()
        return sums[AVERAGED - 1 :] // AVERAGED

    def _rounded(self, values: Floats, *, spread: float, highest: int = 10**6) -> Ints:
        noisy = np.rint(values + self._rng.normal(0, spread, len(values)))
        return np.clip(noisy, 1, highest).astype(np.int64)

    def _memory_used(self, count: int) -> Ints:
        """2 MiB pages taken and given back some three times a second."""
        steps = self._rng.integers(-3, 4, count) * (self._rng.random(count) < 0.03)
        level = self._memory_steps + np.cumsum(steps)
        self._memory_steps = int(level[-1])
        return (74_153 + 2 * np.abs(level)) * MIB

    def _sm_clock(self, power_mw: Ints) -> Ints:
        """Dips become likelier and deeper with power, as in the trace."""
        strain = np.clip((power_mw - 380_000) / 70_000, 0, 1)
        dips = self._rng.random(len(power_mw)) < 0.15 * strain
        depth = np.array([15, 15, 15, 45, 60, 165, 300])[self._rng.integers(0, 7, len(power_mw))]
        return 1830 - dips * depth

    def _episodes(self, count: int, values: list[int], *, seconds: float) -> Ints:
        """Values that hold for some time, `seconds` on average, and then change."""
        changes = np.cumsum(self._rng.random(count) < PERIOD_NS / 1e9 / seconds)
        choices = self._rng.integers(0, len(values), changes[-1] + 1)
        return np.array(values)[choices][changes]


def _busy_trace() -> dict[str, Floats]:
    with TRACE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["t_ms"]) >= BUSY_FROM_MS]
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
