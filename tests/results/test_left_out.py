"""What is said of samples that are left out of a series."""

import numpy as np

from llem.results.left_out import LeftOut


def test_samples_are_left_out_between_two() -> None:
    """Where any are; of some of a series, and of it after others before which none are."""
    counts = np.array([0, 2, 1])
    left_out = LeftOut(counts, *[counts * 0.5] * 4, counts, counts * 0.5, counts)
    assert left_out.any.tolist() == [False, True, True]
    assert left_out.of(slice(1, None)).samples.tolist() == [2, 1]
    assert left_out.of(np.array([True, False, True])).longest_sec.tolist() == [0.0, 0.5]
    after = left_out.after(2)
    assert after.samples.tolist() == [0, 0, 0, 2, 1] and after.samples.dtype == counts.dtype
    assert after.highest_w.tolist() == [0.0, 0.0, 0.0, 1.0, 0.5]
