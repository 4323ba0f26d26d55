"""Arithmetic in which not measured stays not measured."""

import math
from collections.abc import Iterable, Sequence


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Numerator over denominator; None where either is unknown or the denominator is not positive."""
    if numerator is None or denominator is None or denominator <= 0:
        return None
    return numerator / denominator


def total(values: Iterable[float | None]) -> float | None:
    """Exactly rounded sum, the same in every order; None where any value is unknown or there is none."""
    known = list(values)
    if not known or any(value is None for value in known):
        return None
    return math.fsum(value for value in known if value is not None)


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
