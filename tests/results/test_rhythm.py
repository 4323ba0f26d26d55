"""When a sensor renews its value, from when readings saw it change; and what a window or a filter shows of a load. Of numbers with a known answer."""

import math

import numpy as np
import pytest

from llem.results.sensor_response import Load, rhythm, sensor_response
from llem.results.student_t import Estimate

PERIOD_S, BETWEEN_S = 0.1, 0.01
NUMBERS = np.arange(200)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers for each test, whichever ran before."""
    return np.random.default_rng(1)


def test_a_steady_rhythm_places_every_change(rng: np.random.Generator) -> None:
    """Readings see each up to half the time between two of them off; together they tell the moments to a tenth of that."""
    true_s = 3.0 + PERIOD_S * NUMBERS
    seen_s = true_s + rng.uniform(-BETWEEN_S / 2, BETWEEN_S / 2, len(true_s))
    placed_s, refresh = rhythm(seen_s, BETWEEN_S)
    assert np.abs(placed_s - true_s).max() < BETWEEN_S / 5
    assert refresh.low < PERIOD_S < refresh.high and refresh.high - refresh.low < 1e-4


def test_changes_that_are_missed_leave_the_rhythm() -> None:
    """A value may be the same twice."""
    true_s = np.delete(PERIOD_S * NUMBERS, [20, 60, 61, 150])
    placed_s, refresh = rhythm(true_s, BETWEEN_S)
    assert placed_s == pytest.approx(true_s) and refresh.value == pytest.approx(PERIOD_S)


def test_a_rhythm_may_begin_anywhere() -> None:
    """Whichever part of a period the first change is late by."""
    for phase in (0.0, 0.25, 0.5, 0.75):
        true_s = 3.0 + PERIOD_S * (NUMBERS + phase)
        seen_s = true_s + np.where(NUMBERS % 3, -BETWEEN_S / 3, BETWEEN_S / 3)
        placed_s, refresh = rhythm(seen_s, BETWEEN_S)
        assert np.abs(placed_s - true_s).max() < BETWEEN_S / 5
        assert refresh.value == pytest.approx(PERIOD_S, rel=1e-3)


def test_a_rhythm_that_wanders_has_a_time_and_no_places(rng: np.random.Generator) -> None:
    """Each waits a tenth of a second after the one before, give or take 8 ms: the interval is Student's of the mean."""
    seen_s = np.cumsum(rng.normal(PERIOD_S, 0.008, len(NUMBERS)))
    placed_s, refresh = rhythm(seen_s, BETWEEN_S)
    assert placed_s is seen_s
    assert refresh.low < PERIOD_S < refresh.high
    assert (refresh.high - refresh.low) / 2 == pytest.approx(1.97 * 0.008 / math.sqrt(199), rel=0.15)


def test_changes_at_random_keep_no_rhythm(rng: np.random.Generator) -> None:
    """They are left where they were seen."""
    seen_s = np.cumsum(0.05 + rng.exponential(0.1, 400))
    placed_s, refresh = rhythm(seen_s, BETWEEN_S)
    assert placed_s is seen_s and refresh == Estimate(reason="its changes keep no rhythm")


def test_a_value_that_is_new_at_every_reading_has_only_a_longest_time() -> None:
    """Half as much again as between two readings."""
    seen_s = PERIOD_S * NUMBERS
    placed_s, refresh = rhythm(seen_s, PERIOD_S)
    assert placed_s is seen_s and refresh.value is None
    assert refresh.high == pytest.approx(1.5 * PERIOD_S) and "every 100 ms, or more often" in refresh.reason


LOAD = Load.of([(1.0, 3.0), (4.0, 5.0)])


def test_a_load_is_added_up() -> None:
    """Two seconds, then one."""
    assert LOAD.at_sec.tolist() == [1, 3, 4, 5] and LOAD.busy_sec.tolist() == [0, 2, 2, 3]


@pytest.mark.parametrize(
    ("at_s", "window_s", "delay_s", "share"),
    [
        (3, 2, 0, 1.0),
        (3, 4, 0, 0.5),
        (4, 2, 0, 0.5),
        (5, 4, 0, 0.75),
        (5, 2, 2, 1.0),
        (1, 1, 0, 0.0),
        (9, 1, 0, 0.0),
    ],
)
def test_a_window_shows_its_share_of_the_load(
    at_s: float, window_s: float, delay_s: float, share: float
) -> None:
    """Of the window that ends `delay_s` before."""
    assert LOAD.mean(np.array([float(at_s)]), window_s, delay_s).tolist() == [pytest.approx(share)]


@pytest.mark.parametrize(
    ("at_s", "seen"),
    [
        (0.5, 0.0),
        (1.0, 0.0),
        (2.0, 1 - math.exp(-2)),
        (3.0, 1 - math.exp(-4)),
        (3.5, (1 - math.exp(-4)) * math.exp(-1)),
        (4.5, 1 + ((1 - math.exp(-4)) * math.exp(-2) - 1) * math.exp(-1)),
    ],
)
def test_a_filter_follows_the_load_exponentially(at_s: float, seen: float) -> None:
    """With a time constant of half a second; told late, the same later."""
    moments = np.array([at_s, at_s + 0.25])
    found = LOAD.filtered(moments, 0.5, 0.0)[0], LOAD.filtered(moments, 0.5, 0.25)[1]
    assert found == pytest.approx((seen, seen))


@pytest.mark.parametrize(("changes", "told"), [(39, False), (40, True)])
def test_forty_changes_are_needed(changes: int, told: bool) -> None:
    """With fewer the load does not show."""
    values = np.full(200, 5.0)
    values[1 : 1 + changes] = np.arange(changes) % 2
    values[1 + changes :] = values[changes]
    found = sensor_response(np.arange(200) * BETWEEN_S, values, LOAD)
    assert ("the load does not show in it" in (found.reason or "")) is not told
