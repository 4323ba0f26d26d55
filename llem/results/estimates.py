"""What was found out of readings: a value and its 95 % interval, or the reason why there is none."""

from collections.abc import Sequence

import msgspec
import numpy as np

from llem.results import student_t

LEVEL = 0.95


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A value with its interval. Without a value there may still be the most or the least that it can be."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    @classmethod
    def around(cls, value: float, half_width: float) -> "Estimate":
        """As far on both sides."""
        return cls(value=value, low=value - half_width, high=value + half_width)

    @classmethod
    def of_parts(cls, value: float, parts: Sequence[float], *, common: float) -> "Estimate":
        """A value of all readings, as far off as the same value of parts of them differs from part to part, and by what is `common` to all parts."""
        error = float(np.std(parts, ddof=1) / np.sqrt(len(parts)))
        return cls.around(value, student_t.quantile(LEVEL, len(parts) - 1) * error + common)
