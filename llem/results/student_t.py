"""Estimates with intervals, and Student's t distribution, which these are of: also of a fractional number of degrees of freedom.

The distribution is worked out from the incomplete beta function alone. Sources: its continued fraction and Lentz's way to
evaluate it (Press et al., Numerical Recipes, 6.4 and 5.2); NIST DLMF 8.17 for the identities.

`python -m llem.results.student_t` prints llem/projections/student_t.sql, because DuckDB has no such function.
"""

import functools
import math
import sys
import textwrap
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import msgspec
import numpy as np

LEVEL = 0.95  # of intervals, where nobody asks for another
MAX_TERMS = 10_000
MAX_STEPS = 100
TINY = 1e-300
RELATIVE_ERROR = 1e-14
TABLE_LEVELS = {"q90": 0.9, "q95": 0.95, "q99": 0.99}
TABLE_DEGREES = 200


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out of readings: a value with its 95 % interval, or the reason why there is none.

    Without a value there may still be the most or the least that it can be.
    """

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
        return cls.around(value, quantile(LEVEL, len(parts) - 1) * error + common)


def two_sided_p(t: float, degrees: float) -> float:
    """The probability of a value at least as far from 0 as t."""
    if math.isinf(t):
        return 0.0
    return incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


@functools.lru_cache(maxsize=1024)  # a table of comparisons asks for few, many times
def quantile(level: float, degrees: float) -> float:
    """The t within which a share `level` of the distribution lies, both sides of 0 together.

    Newton's steps from the normal distribution's quantile, which is smaller: p is convex there, so no step goes too far.
    """
    outside = 1 - level
    t = NormalDist().inv_cdf(1 - outside / 2)
    for _ in range(MAX_STEPS):
        step = (two_sided_p(t, degrees) - outside) / (2 * density(t, degrees))
        t += step
        if abs(step) <= RELATIVE_ERROR * t:
            break
    return t


def density(t: float, degrees: float) -> float:
    """The probability density at t."""
    half = (degrees + 1) / 2
    scale = math.lgamma(half) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    return math.exp(scale - half * math.log1p(t * t / degrees))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, for x from 0 to 1."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # where the fraction of the mirrored function converges faster
        return 1 - _front(b, a, 1 - x) * _fraction(b, a, 1 - x)
    return _front(a, b, x) * _fraction(a, b, x)


def _front(a: float, b: float, x: float) -> float:
    exponent = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(exponent) / a


def _fraction(a: float, b: float, x: float) -> float:
    """Lentz: the ratio of two neighbouring approximations is multiplied up until it is 1."""
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < RELATIVE_ERROR:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY


def as_sql() -> str:
    """The view of quantiles for users of SQL."""
    columns = ",\n".join(
        f"unnest([\n{_quantiles(level)}]::DOUBLE[]) AS {name}" for name, level in TABLE_LEVELS.items()
    )
    return f"{_VIEW}SELECT unnest(range(1, {TABLE_DEGREES + 1})) AS df,\n{columns};\n"


_VIEW = """-- Made by `python -m llem.results.student_t`; do not edit.

CREATE VIEW student_t AS -- quantiles of Student's t distribution, for intervals: mean plus and minus so many standard errors
-- df: degrees of freedom: runs, or pairs of runs, less one
-- q90: 90 % of the distribution lie within this, both sides of 0 together
-- q95: the same of 95 %
-- q99: the same of 99 %
"""


def _quantiles(level: float) -> str:
    numbers: Iterator[str] = (f"{quantile(level, degrees):.12g}" for degrees in range(1, TABLE_DEGREES + 1))
    return textwrap.fill(", ".join(numbers), width=150)


if __name__ == "__main__":
    sys.stdout.write(as_sql())
