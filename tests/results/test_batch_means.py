"""Means of ten parts of one run's values."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from llem.results.batch_means import BatchMeans, batch_means
from llem.results.percentiles import Pieces


def stream(*parts: Sequence[float]) -> Pieces:
    """The values of one process, in pieces."""
    return partial(iter, [np.array(part, np.float64) for part in parts])


def test_independent_values_have_a_small_spread_and_no_correlation() -> None:
    """10,000 values with 20 % of spread: parts of 1,000 differ by 0.6 %."""
    found = batch_means([stream(np.random.default_rng(1).normal(100, 20, 10_000).tolist())])
    assert found.cv == pytest.approx(0.2 / 1_000**0.5, rel=0.6)
    assert abs(found.lag1 or 0) < 0.6


def test_values_that_grow_have_neighbours_that_are_alike() -> None:
    """Ten steps: a spread, and 0.7, which is what ten values in a line have."""
    found = batch_means([stream([float(number) for number in range(1, 101)])])
    assert found == pytest.approx((float(np.arange(5.5, 100, 10).std(ddof=1)) / 50.5, 0.7))


def test_pieces_do_not_matter() -> None:
    """Parts are cut where they are due."""
    values = np.random.default_rng(2).lognormal(size=257).tolist()
    whole, cut = (
        batch_means([stream(values)]),
        batch_means([stream(values[:3], [], values[3:90], values[90:])]),
    )
    assert cut == whole


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], BatchMeans()),
        ([5.0] * 19, BatchMeans()),
        ([0.0] * 20, BatchMeans()),
        ([0.1] * 35, BatchMeans(cv=0.0)),
    ],
)
def test_too_few_or_equal_values_say_little(values: list[float], found: BatchMeans) -> None:
    """No spread is one of 0, without a correlation."""
    assert batch_means([stream(values)]) == found
