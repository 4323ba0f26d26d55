"""Intervals of percentiles from the order of the values alone."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from llem.results.percentiles import _binomial_sums, interval_ranks, least_count


def test_so_many_values_are_needed() -> None:
    """59 for the 95th percentile, 299 for the 99th."""
    assert (least_count(0.95), least_count(0.99)) == (59, 299)
    assert [interval_ranks(58, 0.95), interval_ranks(298, 0.99)] == [None, None]
    assert (interval_ranks(59, 0.95) or (0, 0))[1] == 58
    assert (interval_ranks(299, 0.99) or (0, 0))[1] == 298


@pytest.mark.parametrize(("share", "count"), [(0.95, 59), (0.95, 500), (0.99, 299), (0.99, 1_000)])
def test_an_interval_holds_the_percentile_as_often_as_it_says(share: float, count: int) -> None:
    """Of 2,000 draws of lognormal values 94 to 98 in a hundred."""
    low, high = interval_ranks(count, share) or (0, 0)
    drawn = np.random.default_rng(7).standard_normal((2_000, count), np.float32)
    drawn.partition((low, high), axis=1)
    found = np.exp(drawn[:, (low, high)])
    truth = np.exp(NormalDist().inv_cdf(share))
    covered = float(np.mean((found[:, 0] <= truth) & (truth <= found[:, 1])))
    assert 0.94 <= covered <= 0.98


@pytest.mark.parametrize("share", [0.95, 0.99])
def test_many_values_give_a_narrow_interval_around_the_percentile(share: float) -> None:
    """Of a million: about twice two standard deviations of the binomial distribution."""
    low, high = interval_ranks(1_000_000, share) or (0, 0)
    deviation = (1_000_000 * share * (1 - share)) ** 0.5
    assert low < 1_000_000 * share < high
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.01)


def ranks_one_by_one(count: int, share: float) -> tuple[int, int]:
    """From the binomial distribution, each probability by its formula."""
    probabilities = [
        math.comb(count, below) * share**below * (1 - share) ** (count - below) for below in range(count)
    ]
    fewer = [0.0, *itertools.accumulate(probabilities)]
    above = next((number for number in range(count) if fewer[number] >= 0.975), count)
    below = max(number for number in range(count) if fewer[number] <= fewer[above] - 0.95)
    return below - 1, above - 1


@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("count", [59, 1_000, 10**6])
def test_fewer_and_fewer_values_below_grow_from_nothing_to_all(share: float, count: int) -> None:
    """Of many values only those numbers are listed that ever occur."""
    first, fewer = _binomial_sums(count, share)
    assert (fewer[0], fewer[-1]) == (0.0, pytest.approx(1.0))
    assert (np.diff(fewer) >= 0).all() and len(fewer) < 12_000
    assert np.interp(0.5, fewer, first + np.arange(len(fewer))) == pytest.approx(count * share, abs=1.0)


@pytest.mark.parametrize("share", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("more", [0, 1, 17, 100, 300])
def test_ranks_are_those_of_the_binomial_distribution(share: float, more: int) -> None:
    """Exactly."""
    count = least_count(share) + more
    assert interval_ranks(count, share) == ranks_one_by_one(count, share)
