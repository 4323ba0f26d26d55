"""Percentiles: exact ones of more values than are held in memory, and between which of its own values one lies.

The pieces of the values are walked several times, and only those near a percentile are sorted. Between which values a percentile lies is known whatever
the distribution, if the values are independent of each other: how many are below the true one is binomial. Source: David and Nagaraja, Order Statistics
(2003), 7.1.
"""

import functools
import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Ints = NDArray[np.int64]
# All values, none of them NaN, in pieces; called anew for each walk.
Pieces = Callable[[], Iterable[FloatArray]]
HELD_VALUES = 2**17  # that are sorted at once
HELD_BYTES = 2**22  # of a spool
_READ_VALUES = 2**15
_DIGIT_BITS = 16
_SIGN = np.uint64(2**63)
LEVEL = 0.95  # of what a percentile lies between
_DEVIATIONS = 12  # of the binomial distribution, beyond which nothing is left


class Spool:
    """Values that are kept in pieces, by name: in memory as long as they are few, then in a file that has no name.

    They are added once, and walked as often as one likes.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115 -- closed with the spool
        self._places: dict[str, list[tuple[int, int]]] = {}
        weakref.finalize(self, self._file.close)

    def add(self, name: str, values: FloatArray) -> None:
        """Some more under a name."""
        places = self._places.setdefault(name, [])
        for start in range(0, len(values), _READ_VALUES):
            part = values[start : start + _READ_VALUES]
            places.append((self._file.seek(0, os.SEEK_END), part.nbytes))
            self._file.write(part.tobytes())

    def count(self, name: str) -> int:
        """Values under a name."""
        return sum(size for _, size in self._places.get(name, ())) // 8

    def pieces(self, name: str) -> Iterator[FloatArray]:
        """Those under a name, in the order in which they came."""
        for place, size in self._places.get(name, ()):
            self._file.seek(place)
            yield np.frombuffer(self._file.read(size), np.float64)


def percentiles(pieces: Pieces, shares: Sequence[float]) -> list[float]:
    """Values below which so many per cent lie, between two neighbours as numpy's default has it, to the last digit."""
    last = sum(map(len, pieces())) - 1
    places = [share / 100 * last for share in shares]
    neighbours = [(math.floor(place), math.ceil(place)) for place in places]
    ranks = sorted({*chain.from_iterable(neighbours)})
    found = dict(zip(ranks, ranked(pieces, np.array(ranks)).tolist(), strict=True))
    return [
        _between(found[lower], found[upper], place - lower)
        for (lower, upper), place in zip(neighbours, places, strict=True)
    ]


def _between(low: float, high: float, share: float) -> float:
    """As numpy does it, from the nearer of both."""
    step = high - low
    return low + step * share if share < 0.5 else high - step * (1 - share)


def ranked(pieces: Pieces, ranks: Ints) -> FloatArray:
    """What would stand at some places, ascending ones, if all values were sorted."""
    if sum(map(len, pieces())) <= HELD_VALUES:
        return np.sort(np.concatenate(list(pieces())))[ranks]
    lowest, highest = _extremes(pieces)
    if lowest == highest:
        return np.full(len(ranks), next(filter(len, pieces()))[0])
    shift = max(0, (highest - lowest).bit_length() - _DIGIT_BITS)
    counts = _histogram(pieces, lowest, shift)
    ends = np.cumsum(counts)
    digits = np.searchsorted(ends, ranks, side="right")
    found = []
    for digit in np.unique(digits).tolist():
        first = lowest + (digit << shift)
        inside = partial(_inside, pieces, first, min(first + (1 << shift) - 1, highest))
        found.append(ranked(inside, ranks[digits == digit] - (ends - counts)[digit]))
    return np.concatenate(found)


def _extremes(pieces: Pieces) -> tuple[int, int]:
    """The least and the largest key."""
    ends = [(piece.min(), piece.max()) for piece in pieces() if len(piece)]
    lowest, highest = _keys(np.array([min(low for low, _ in ends), max(high for _, high in ends)])).tolist()
    return lowest, highest


def _histogram(pieces: Pieces, lowest: int, shift: int) -> Ints:
    """How many values there are by the leading bits of their distance from the lowest."""
    counts = np.zeros(2**_DIGIT_BITS, np.int64)
    for piece in pieces():
        digits = (_keys(piece) - np.uint64(lowest)) >> np.uint64(shift)
        counts += np.bincount(digits.astype(np.int64), minlength=len(counts))
    return counts


def _inside(pieces: Pieces, first: int, last: int) -> Iterator[FloatArray]:
    """The values with keys from one to another."""
    for piece in pieces():
        keys = _keys(piece)
        yield piece[(keys >= np.uint64(first)) & (keys <= np.uint64(last))]


def _keys(values: FloatArray) -> NDArray[np.uint64]:
    """Integers in the order of the values: their bits, all turned in a negative one."""
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


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
