"""How far an energy can be from the truth: bounds that follow from how it was measured, not from trust in a sensor.

They hold for a counter and a sensor that see all of the time, and for a power that is monotonic between two samples.
"""

import numpy as np
from numpy.typing import ArrayLike


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
