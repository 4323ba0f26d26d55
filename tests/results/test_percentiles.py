"""Percentiles of values that come in pieces are numpy's to the last digit, however few values are sorted at once."""

import numpy as np
import pytest

from llem.results import percentiles
from llem.results.percentiles import FloatArray

SHARES = (0, 50, 95, 99, 99.9, 100)
RNG = np.random.default_rng(0)
VALUES = {
    "one": np.array([3.5]),
    "two": np.array([2.0, 1.0]),
    "latencies": RNG.lognormal(3, 1, 2_000),
    "both signs": RNG.normal(0, 1, 2_001),
    "many alike": RNG.integers(-3, 3, 999) / 7,
    "all alike": np.full(1_000, 0.1),
    "both zeros": np.zeros(100) * RNG.choice([-1, 1], 100),
    "all magnitudes": RNG.normal(0, 1, 1_000) * 10.0 ** RNG.integers(-300, 300, 1_000),
    "neighbours": 1.0 + RNG.integers(0, 50, 1_000) * np.finfo(np.float64).eps,
}


@pytest.mark.parametrize("held", [1, 100, percentiles.HELD_VALUES])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_they_are_numpys(values: FloatArray, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any values, some pieces of which are empty."""
    monkeypatch.setattr(percentiles, "HELD_VALUES", held)
    pieces = [np.empty(0), *np.array_split(values, 7)]
    assert percentiles.percentiles(lambda: pieces, SHARES) == np.percentile(values, SHARES).tolist()


def test_values_that_are_all_alike_need_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of one, some of them empty."""
    monkeypatch.setattr(percentiles, "HELD_VALUES", 1)
    pieces = [np.empty(0), *[np.array([5.0])] * 3]
    assert percentiles.percentiles(lambda: pieces, (0, 50, 100)) == [5.0, 5.0, 5.0]
