"""Energy from power that a driver averages over a second, and how far it can be from the truth: of a load that is known."""

import numpy as np
import pytest

from llem.results.averaged_power import AveragedReadings

IDLE_W, LOAD_W, DURATION_S = 100.0, 300.0, 10.3


def averaged_w(at_sec: np.ndarray) -> np.ndarray:
    """The mean of the last second: idle, then the load for its time, then idle again."""
    loaded_sec = np.clip(at_sec, 0, DURATION_S) - np.clip(at_sec - 1, 0, DURATION_S)
    return IDLE_W + (LOAD_W - IDLE_W) * loaded_sec + 0.01 * np.sin(at_sec)


@pytest.mark.parametrize(
    ("refresh_s", "limit_w", "delays", "energy_j", "uncertainty_j"),
    [
        (0.1, 400.0, {}, 3090.010929, 8.682376019),
        (0.13, 400.0, {}, 3084.415102, 53.28849257),
        (0.1, 400.0, {"delay_sec": 0.05, "delay_within_sec": 0.01}, 3086.010813, 16.33122765),
        (0.13, 400.0, {"delay_sec": 0.05, "delay_within_sec": 0.01}, 3088.010462, 64.41215061),
        (0.1, 4_000.0, {}, 3090.010929, 12.18266902),
    ],
    ids=["in step", "out of step", "in step and late", "out of step and late", "a high limit"],
)
def test_the_energy_of_a_known_load_and_its_bound_stay_what_they_were(
    refresh_s: float, limit_w: float, delays: dict[str, float], energy_j: float, uncertainty_j: float
) -> None:
    """The truth, 3,090 J, lies within the bound, which neither grows nor shrinks unnoticed; readings come in pieces."""
    at_sec = np.arange(-3.0, 14.0, 0.02)
    late_sec = delays.get("delay_sec", 0.0)
    told_w = averaged_w(np.floor((at_sec - 0.003) / refresh_s) * refresh_s - late_sec)
    readings = AveragedReadings()
    for piece in zip(np.array_split(at_sec, 7), np.array_split(told_w, 7), strict=True):
        readings.add(*piece)
    found = readings.telescoped(
        duration_sec=DURATION_S, averaged_sec=1.0, guard_sec=2.5, power_limit_w=limit_w, **delays
    )
    assert found is not None and found.uncertainty_j is not None
    assert abs(found.energy_j - LOAD_W * DURATION_S) <= found.uncertainty_j
    assert (found.energy_j, found.uncertainty_j) == pytest.approx((energy_j, uncertainty_j), rel=1e-6)
