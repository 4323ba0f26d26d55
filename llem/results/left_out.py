"""What samples say that are left out of a series, between two that are in it: enough for sums and extremes, and for no moment between."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class LeftOut(NamedTuple):
    """Of each sample of a series: what lies between it and the one before; 0 where nothing was left out there."""

    samples: NDArray[np.int64]
    longest_sec: Floats  # between two of all of them
    trapezoids_j: Floats
    half_steps_j: Floats
    highest_w: Floats
    falls: NDArray[np.int64]  # of the energy counter
    throttled_sec: Floats
    throttle_bits: NDArray[np.int64]

    @property
    def any(self) -> NDArray[np.bool_]:
        """Whether something was."""
        return self.samples > 0

    def of(self, chosen: NDArray[Any] | slice) -> Self:
        """Of some samples."""
        columns: Iterable[Any] = (column[chosen] for column in self)
        return type(self)(*columns)

    def after(self, samples: int) -> Self:
        """The same after so many others, before which nothing was left out."""
        columns: Iterable[Any] = (
            np.concatenate((np.zeros(samples, column.dtype), column)) for column in self
        )
        return type(self)(*columns)
