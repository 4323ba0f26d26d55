"""Arithmetic in which not measured stays not measured."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Numerator over denominator; None where either is unknown or the denominator is not positive."""
    if numerator is None or denominator is None or denominator <= 0:
        return None
    return numerator / denominator


def as_printed(value: float) -> Fraction:
    """The decimal that stands on screen and in files for a figure, exactly."""
    return Fraction(repr(float(value)))


def total(values: Iterable[float | None]) -> float | None:
    """Sum of the figures as printed, rounded once: 0.1 + 0.2 is 0.3; None where any is unknown or there is none."""
    addends = list(values)
    known = [value for value in addends if value is not None]
    if not known or len(known) < len(addends):
        return None
    if len(known) == 1 or not all(map(math.isfinite, known)):
        return float(sum(known))
    return float(sum(map(as_printed, known)))


def total_count(counts: Iterable[int | None]) -> int | None:
    """Sum of whole numbers; None where any is unknown or there is none."""
    summed = total(counts)
    return None if summed is None else int(summed)


def mean(values: Iterable[float | None]) -> float | None:
    """Sum over number; None where any value is unknown or there is none."""
    addends = list(values)
    known = [value for value in addends if value is not None]
    if not known or len(known) < len(addends):
        return None
    return float(sum(map(as_printed, known)) / len(known))


def root_of_squares(deviations: Iterable[float | None]) -> float | None:
    """Standard deviation of a sum of independent quantities; None where any is unknown or there is none."""
    known = list(deviations)
    if len(known) == 1:
        return known[0]
    variance = total(None if deviation is None else deviation**2 for deviation in known)
    return None if variance is None else math.sqrt(variance)


def largest(values: Iterable[float | None]) -> float | None:
    """The largest known value."""
    return max((value for value in values if value is not None), default=None)


def any_true(flags: Sequence[bool | None]) -> bool | None:
    """True where any flag is; else None where any is unknown or there is none; else False."""
    if any(flags):
        return True
    return None if not flags or None in flags else False


def weighted_mean(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Mean of the known values of (value, weight) pairs; None where there is none or a weight is unknown."""
    known = [(value, weight) for value, weight in pairs if value is not None]
    if len(known) == 1:
        return known[0][0]
    weighted = total(None if weight is None else value * weight for value, weight in known)
    return ratio(weighted, total(weight for _, weight in known))
