"""Coefficients are those of numpy's least squares, and their errors those of leaving out one block after another."""

import numpy as np
import pytest

from llem.results.least_squares import fit

STARTS = (0, 3, 7, 8, 12, 20)


def rows(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Thirty rows of two columns of very different sizes."""
    rng = np.random.default_rng(seed)
    design = rng.uniform(1, 2, (30, 2)) * [1e3, 1e-3]
    return design, design @ np.array([2e-3, 5e3]) + rng.normal(0, 1, 30)


def test_a_fit_is_that_of_numpy_and_of_the_jackknife() -> None:
    """Blocks may have any number of rows."""
    design, observed = rows()
    found = fit(design, observed, starts=STARTS)
    assert found is not None
    whole, *_ = np.linalg.lstsq(design, observed, rcond=None)
    ends = [*STARTS[1:], len(observed)]
    without = []
    for first, end in zip(STARTS, ends, strict=True):
        left = np.r_[0:first, end : len(observed)]
        without.append(np.linalg.lstsq(design[left], observed[left], rcond=None)[0])
    apart = np.array(without) - np.mean(without, axis=0)
    errors = np.sqrt(5 / 6 * (apart**2).sum(axis=0))
    assert found.coefficients == pytest.approx(whole, rel=1e-8)
    assert found.errors == pytest.approx(errors, rel=1e-6)
    assert found.degrees == 4


@pytest.mark.parametrize(("blocks", "told"), [(2, False), (3, True)])
def test_more_blocks_than_columns_are_needed(blocks: int, told: bool) -> None:
    """With as many, nothing is left to tell errors by."""
    design, observed = rows()
    assert (fit(design, observed, starts=STARTS[:blocks]) is not None) is told


@pytest.mark.parametrize("column", [np.zeros(30), np.ones(30) * 1.5, np.r_[np.zeros(20), np.ones(10)]])
def test_columns_that_cannot_be_told_apart_have_no_fit(column: np.ndarray) -> None:
    """Of nothing, in one proportion all the time, or so without some block."""
    design, observed = rows()
    for other in (design[:, 0] * 0 + 3.0, design[:, 0]):
        both = np.stack([other, other if column[0] == 1.5 else column], axis=1)
        assert fit(both, observed, starts=STARTS) is None
