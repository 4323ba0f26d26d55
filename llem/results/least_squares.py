"""Least squares with standard errors that hold where the spread differs from row to row: blocks of rows are left out in turn.

The delete-one-block jackknife: Efron, The Jackknife, the Bootstrap and Other Resampling Plans (SIAM 1982). Rows of one block may have to
do with each other, such as those of one run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ALIKE = 1e-6  # of the product of the columns' squares: 1 where they have nothing to do with each other, 0 where one follows from others


class Fit(NamedTuple):
    """A coefficient for each column, its standard error, and the degrees of freedom for Student's t."""

    coefficients: Floats
    errors: Floats
    degrees: int


def fit(design: Floats, observed: Floats, *, starts: Sequence[int]) -> Fit | None:
    """The coefficients with which the columns of `design` come closest to `observed`; `starts` are the first rows of the blocks.

    None where columns cannot be told apart, or could not be without some block.
    """
    scale = np.abs(design).max(axis=0)
    blocks, columns = len(starts), design.shape[1]
    if blocks <= columns or not scale.all():
        return None
    scaled = design / scale
    squares = np.add.reduceat(scaled[:, :, None] * scaled[:, None, :], starts)
    products = np.add.reduceat(scaled * observed[:, None], starts)
    # the whole, then without each block
    squares = np.concatenate([squares.sum(axis=0)[None], squares.sum(axis=0) - squares])
    products = np.concatenate([products.sum(axis=0)[None], products.sum(axis=0) - products])
    if are_alike(squares):
        return None
    found = np.linalg.solve(squares, products[:, :, None])[:, :, 0]
    deviations = found[1:] - found[1:].mean(axis=0)
    errors = np.sqrt((blocks - 1) / blocks * (deviations**2).sum(axis=0))
    return Fit(found[0] / scale, errors / scale, blocks - columns)


def are_alike(squares: Floats) -> bool:
    """Whether in any of these matrices of squares and products a column follows from the others."""
    sizes = np.prod(np.diagonal(squares, axis1=1, axis2=2), axis=1)
    return bool((sizes <= 0).any() or (np.linalg.det(squares) <= ALIKE * sizes).any())
