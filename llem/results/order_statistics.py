"""Between which of its own values a percentile lies, whatever the distribution, if the values are independent of each other.

How many values are below the true percentile is binomial. Source: David and Nagaraja, Order Statistics (2003), 7.1.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_DEVIATIONS = 12  # of the binomial distribution, beyond which nothing is left


def least_count(share: float, level: float = LEVEL) -> int:
    """With so many values the largest one is above the percentile, with this probability."""
    return math.ceil(math.log(1 - level) / math.log(share))


@functools.lru_cache(maxsize=1024)
def interval_ranks(count: int, share: float, level: float = LEVEL) -> tuple[int, int] | None:
    """The places of two values, from 0 in ascending order, between which the percentile lies with at least this probability.

    `share` of the distribution, 0.9 or more, is below the percentile. None for too few values.
    """
    if count < least_count(share, level):
        return None
    first, fewer = _binomial_sums(count, share)
    outside = 1 - level
    # as few as possible above, where the tail is half of what may be outside; where it never is, the largest
    above = min(int(np.searchsorted(fewer, 1 - outside / 2)), count - first)
    below = int(np.searchsorted(fewer, fewer[above] - level, side="right")) - 1
    return first + below - 1, first + above - 1


def _binomial_sums(count: int, share: float) -> tuple[int, NDArray[np.float64]]:
    """A number, and from it on for each number the probability that fewer values are below the percentile."""
    reach = _DEVIATIONS * (math.sqrt(count * share * (1 - share)) + 1)
    first, last = max(0, math.floor(count * share - reach)), min(count, math.ceil(count * share + reach))
    numbers = np.arange(first, last)
    steps = np.log((count - numbers) / (numbers + 1)) + math.log(share / (1 - share))
    logarithms = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logarithms - logarithms.max())
    return first, np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
