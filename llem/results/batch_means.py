"""How far a figure wanders within one run: means of ten equal parts of its values in their order, and whether neighbours are alike.

Values of one run follow each other and are not independent: their number says nothing about how well the run's mean is known, the
spread of the means of long parts does. Source: Law, Simulation Modeling and Analysis (2015), 9.5.3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llem.results.percentiles import FloatArray, Pieces

PARTS = 10
LEAST_VALUES = 2 * PARTS
NO_SPREAD = 1e-12  # of the mean: what rounding leaves of equal values


class BatchMeans(NamedTuple):
    """What the means of the parts say; None where they say nothing."""

    cv: float | None = None  # their standard deviation over their mean
    lag1: float | None = None  # correlation of each with the next: near 0 where the parts are long enough


def batch_means(streams: Sequence[Pieces]) -> BatchMeans:
    """Of processes that ran side by side, the values of each in their order."""
    sums = np.zeros((2, PARTS))
    for stream in streams:
        sums += _of_parts(stream)
    counts, totals = sums
    if counts.sum() < LEAST_VALUES or not counts.all():
        return BatchMeans()
    means = totals / counts
    mean, deviation = float(means.mean()), float(means.std(ddof=1))
    if mean <= 0:
        return BatchMeans()
    if deviation <= NO_SPREAD * mean:
        return BatchMeans(cv=0.0)
    off = means - mean
    return BatchMeans(deviation / mean, float(off[:-1] @ off[1:] / (off @ off)))


def _of_parts(stream: Pieces) -> FloatArray:
    """How many values each part has, and their sum."""
    count, done = sum(map(len, stream())), 0
    sums = np.zeros((2, PARTS))
    for piece in stream():
        part = np.arange(done, done + len(piece)) * PARTS // count
        sums[0] += np.bincount(part, minlength=PARTS)
        np.add.at(sums[1], part, piece)  # one after the other: how they are cut into pieces does not round
        done += len(piece)
    return sums
