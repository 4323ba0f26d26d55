"""Energy from samples of power."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results import cumulative_energy_j, energy_between_j
from llem.results.power import uncertainty_of_j


def test_a_ramp_is_integrated_exactly() -> None:
    """Trapezoids with interpolated edges are exact for linear power: from 2.5 s to 4.5 s of 10 W/s it is 70 J."""
    at_sec = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    power_w = [10.0 * second for second in at_sec]
    assert energy_between_j(at_sec, power_w, start_sec=2.5, end_sec=4.5) == pytest.approx(70.0)


@pytest.mark.parametrize("window", [(0.2, 0.8), (0.5, 1.5), (7.0, 9.0)])
def test_fewer_than_two_samples_are_no_measurement(window: tuple[float, float]) -> None:
    """Such a window has no energy; it is not zero."""
    assert energy_between_j([0.0, 1.0, 2.0], [5.0, 5.0, 5.0], start_sec=window[0], end_sec=window[1]) is None


def test_two_samples_at_the_edges_are_a_measurement() -> None:
    """A window from one sample to the next has both."""
    assert energy_between_j([0.0, 1.0, 2.0], [5.0, 7.0, 5.0], start_sec=0.0, end_sec=1.0) == 6.0


@pytest.mark.parametrize(
    ("window_sec", "limit_w", "bound_j"),
    [(0.0, None, 5.0), (0.0, 400.0, 5.0), (0.5, None, None), (0.5, 400.0, 105.0), (0.5, 0.0, 5.0)],
)
def test_averaged_power_carries_energy_over_the_edges(
    window_sec: float, limit_w: float | None, bound_j: float | None
) -> None:
    """Half the averaging time at the limit, beside the steps; of a device without a limit nobody knows how much."""
    assert uncertainty_of_j(5.0, power_window_sec=window_sec, power_limit_w=limit_w) == bound_j


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=30), st.floats(0.01, 0.99))
def test_energies_of_two_parts_are_the_energy_of_the_whole(power_w: list[float], share: float) -> None:
    """Cutting a window anywhere loses and adds nothing."""
    at_sec = np.arange(len(power_w), dtype=float)
    edges_sec = [0.0, share * at_sec[-1], at_sec[-1]]
    whole = sum((before + after) / 2 for before, after in pairwise(power_w))
    assert cumulative_energy_j(at_sec, power_w, edges_sec=edges_sec)[-1] == pytest.approx(whole)
