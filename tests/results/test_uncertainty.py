"""The bounds of an energy's error: known answers, and the truth inside them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results.power import counter_uncertainty_j, energy_between_j, integral_uncertainty_j

SPAN = {"start_sec": 1.0, "end_sec": 11.0}


def test_a_counter_errs_by_a_tick() -> None:
    """100 ms at 700 W are 70 J, whatever the window."""
    assert counter_uncertainty_j(tick_sec=0.1, highest_power_w=700.0) == pytest.approx(70.0)


@pytest.mark.parametrize(("tick_sec", "highest_power_w"), [(None, 700.0), (0.1, None)])
def test_an_unknown_tick_or_power_bounds_nothing(
    tick_sec: float | None, highest_power_w: float | None
) -> None:
    """It is None, not 0."""
    assert counter_uncertainty_j(tick_sec=tick_sec, highest_power_w=highest_power_w) is None


def test_a_step_between_samples_counts_half() -> None:
    """One step of 400 W, seen 0.5 s apart: 100 J; steps up to the window and from its end on do not count."""
    at_sec = np.arange(0.0, 12.5, 0.5)
    power_w = np.where(at_sec < 6.0, 100.0, 500.0)
    power_w[1] = power_w[-2] = 9999.0
    assert integral_uncertainty_j(at_sec, power_w, **SPAN) == pytest.approx(100.0)


def test_two_samples_bound_what_is_between_them_and_one_bounds_nothing() -> None:
    """A step of 200 W that lasts 12 s: 1,200 J."""
    at_sec, power_w = [0.0, 12.0], [100.0, 300.0]
    assert integral_uncertainty_j(at_sec, power_w, **SPAN) == pytest.approx(1_200.0)
    assert integral_uncertainty_j(at_sec[:1], power_w[:1], **SPAN) is None


def test_an_average_adds_what_crosses_the_edges() -> None:
    """Constant 1 s averages with a limit of 700 W: half a second of it."""
    at_sec = np.arange(0.0, 12.5, 0.5)
    bound = integral_uncertainty_j(
        at_sec, np.full(len(at_sec), 300.0), **SPAN, power_window_sec=1.0, power_limit_w=700.0
    )
    assert bound == pytest.approx(350.0)


def test_an_average_without_a_limit_bounds_nothing() -> None:
    """What the power was between the averages is then unknown; so it is without samples."""
    at_sec, power_w = [0.0, 6.0, 12.0], [1.0, 1.0, 1.0]
    assert integral_uncertainty_j(at_sec, power_w, **SPAN, power_window_sec=1.0) is None
    assert integral_uncertainty_j([0.0], [1.0], **SPAN) is None


@given(st.lists(st.floats(0.0, 700.0), min_size=26, max_size=26), st.integers(0, 3))
def test_the_truth_of_a_polygon_lies_inside(power_w: list[float], first: int) -> None:
    """A curve whose corners are half a second apart, sampled at every corner or so, is known to within the bound."""
    corners_sec = np.arange(26) * 0.5
    truth_j = energy_between_j(corners_sec, power_w, **SPAN)
    samples_sec = corners_sec + 0.1 * first
    samples_w = np.interp(samples_sec, corners_sec, power_w)
    measured_j = energy_between_j(samples_sec, samples_w, **SPAN)
    at_corners = integral_uncertainty_j(corners_sec, power_w, **SPAN)
    assert truth_j is not None and measured_j is not None and at_corners is not None
    assert abs(measured_j - truth_j) <= 2 * at_corners + 1e-6
