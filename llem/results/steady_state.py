"""The longest span in which throughput and power stood still."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from llem.results.power import cumulative_energy_j

FloatArray = NDArray[np.float64]
MAX_STEPS = 10_000  # the search is quadratic in them


class SteadyState(msgspec.Struct, frozen=True, kw_only=True):
    """A span in seconds on the clock of the samples, or the reason why there is none."""

    span_sec: tuple[float, float] | None = None
    reason: str | None = None
    restless: bool = False  # long enough for a steady state, but without one: a doubt about the figures


@runtime_checkable
class Curve(Protocol):
    """What only grows in time, as far as it is known."""

    @property
    def count(self) -> int:
        """Known moments."""

    def until(self, edges_sec: FloatArray) -> FloatArray:
        """How much there was up to each of some ascending moments; only differences mean anything."""


class TokenTimes(msgspec.Struct, frozen=True, kw_only=True):
    """When tokens came, in seconds, and how many at each moment; None: one."""

    at_sec: ArrayLike
    tokens: ArrayLike | None = None

    @property
    def count(self) -> int:
        """Moments."""
        return int(np.size(self.at_sec))

    def until(self, edges_sec: FloatArray) -> FloatArray:
        """Tokens before each moment."""
        after = np.searchsorted(edges_sec, np.asarray(self.at_sec, dtype=np.float64), side="right")
        tokens = None if self.tokens is None else np.asarray(self.tokens, np.float64)
        return np.cumsum(np.bincount(after, tokens, len(edges_sec) + 1)[:-1], dtype=np.float64)


class PowerSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Power of one device in watts at ascending times in seconds."""

    at_sec: ArrayLike
    power_w: ArrayLike

    @property
    def count(self) -> int:
        """Samples."""
        return int(np.size(self.at_sec))

    def until(self, edges_sec: FloatArray) -> FloatArray:
        """Joules up to each moment."""
        return cumulative_energy_j(self.at_sec, self.power_w, edges_sec=edges_sec)


def find_steady_state(
    *,
    start_sec: float,
    end_sec: float,
    token_times_sec: ArrayLike | Curve,
    power: Sequence[Curve],
    tolerance: float = 0.05,
    min_duration_sec: float = 30.0,
    rolling_sec: float = 10.0,
    step_sec: float = 1.0,
) -> SteadyState:
    """Longest span in which the rolling means of throughput and of all devices' power stay within the tolerance.

    Within means that some centre exists from which every rolling mean differs by at most `tolerance` of it.
    """
    tokens = token_times_sec if isinstance(token_times_sec, Curve) else TokenTimes(at_sec=token_times_sec)
    reason = _unsuitable(
        tokens, power, duration_sec=end_sec - start_sec, min_duration_sec=max(min_duration_sec, rolling_sec)
    )
    if reason:
        return SteadyState(reason=reason)
    step = max(step_sec, (end_sec - start_sec) / MAX_STEPS)
    edges = np.arange(start_sec, end_sec + step / 1000, step)
    energy_j = sum((device.until(edges) for device in power), np.zeros_like(edges))
    curves = np.stack([tokens.until(edges), energy_j])
    width = max(1, round(rolling_sec / step))
    rolling = curves[:, width:] - curves[:, :-width]
    first, last = longest_run(rolling, spread=(1 + tolerance) / (1 - tolerance))
    span = (float(edges[first]), float(edges[last + width])) if last >= first else (0.0, 0.0)
    if span[1] - span[0] < min_duration_sec:
        return SteadyState(reason=_too_short(span[1] - span[0], tolerance, min_duration_sec), restless=True)
    return SteadyState(span_sec=span)


def longest_run(rows: FloatArray, *, spread: float) -> tuple[int, int]:
    """First and last column of the longest run in which each row's largest value is at most `spread` times its smallest.

    A run is as good as its worst pair, so a new column ends only those that began before its last conflict. Columns
    with a value of zero or less belong to no run; without any run, last is below first.
    """
    best, first = (0, -1), 0
    for last, column in enumerate(rows.T):
        before, now = rows[:, first:last], column[:, np.newaxis]
        conflicts = np.flatnonzero((np.maximum(before, now) > spread * np.minimum(before, now)).any(axis=0))
        if (column <= 0).any():
            first = last + 1
        elif len(conflicts):
            first += int(conflicts[-1]) + 1
        if last - first > best[1] - best[0]:
            best = (first, last)
    return best


def _unsuitable(
    tokens: Curve, power: Sequence[Curve], *, duration_sec: float, min_duration_sec: float
) -> str | None:
    if not power or any(device.count < 2 for device in power):
        return "no steady state: power was not sampled"
    if not tokens.count:
        return "no steady state: times of tokens are unknown"
    if duration_sec < min_duration_sec:
        return f"no steady state: measured for {duration_sec:.1f} s, less than {min_duration_sec:.1f} s"
    return None


def _too_short(found_sec: float, tolerance: float, min_duration_sec: float) -> str:
    return (
        f"no steady state: throughput and power stayed within {tolerance:.0%} for {found_sec:.1f} s at most, "
        f"less than {min_duration_sec:.1f} s"
    )
