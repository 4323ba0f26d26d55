"""Energy from samples of power: trapezoids between samples, power at the edges interpolated."""

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
