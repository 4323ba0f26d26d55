"""Energy from samples of power: trapezoids between samples, power at the edges interpolated; and how far an energy can be from the truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def cumulative_energy_j(at_sec: ArrayLike, power_w: ArrayLike, *, edges_sec: ArrayLike) -> FloatArray:
    """Energy in joules from the first edge to each edge; ascending times, power constant beyond the samples."""
    at, power, edges = (np.asarray(values, dtype=np.float64) for values in (at_sec, power_w, edges_sec))
    grid = np.union1d(at, edges)
    on_grid = np.interp(grid, at, power)
    trapezoids = np.diff(grid) * (on_grid[1:] + on_grid[:-1]) / 2
    summed = np.concatenate(([0.0], np.cumsum(trapezoids)))[np.searchsorted(grid, edges)]
    return summed - summed[:1]


def energy_between_j(
    at_sec: Sequence[float], power_w: Sequence[float], *, start_sec: float, end_sec: float
) -> float | None:
    """Energy in joules of a window; None where fewer than two samples lie in it or at its edges."""
    at = np.asarray(at_sec, dtype=np.float64)
    if np.count_nonzero((at >= start_sec) & (at <= end_sec)) < 2:
        return None
    return float(cumulative_energy_j(at, power_w, edges_sec=(start_sec, end_sec))[-1])


def counter_uncertainty_j(*, tick_sec: float | None, highest_power_w: float | None) -> float | None:
    """Joules in one tick at the highest power: each edge is read at most a tick after the counter's last change."""
    return None if tick_sec is None or highest_power_w is None else tick_sec * highest_power_w


def integral_uncertainty_j(
    at_sec: ArrayLike,
    power_w: ArrayLike,
    *,
    start_sec: float,
    end_sec: float,
    power_window_sec: float = 0.0,
    power_limit_w: float | None = None,
) -> float | None:
    """Half of every step between two samples, for as long as it lasts; and for averaged power what crosses the edges.

    Between samples p and q the true mean lies between p and q, the trapezoid takes their middle: |p - q| / 2 times the
    time between them. An average over the last A seconds carries energy in at one edge and out at the other, each
    weighed from 0 to 1 over A: together at most A / 2 times the range of the power, here 0 to the device's limit.
    None without samples, or for averaged power without a limit.
    """
    at, power = np.asarray(at_sec, np.float64), np.asarray(power_w, np.float64)
    if len(at) < 2 or (power_window_sec and power_limit_w is None):
        return None
    touched = (at[1:] > start_sec) & (at[:-1] < end_sec)
    steps_j = np.abs(np.diff(power)) / 2 * np.diff(at)
    return float(steps_j[touched].sum()) + power_window_sec / 2 * (power_limit_w or 0.0)
