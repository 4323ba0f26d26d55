"""Two groups of runs compared in one figure: the ratio with its interval, and whether it is higher, lower, equivalent or unclear.

The unit is the run: a figure of each run enters once, as its logarithm. Runs of the same blocks are compared in pairs (Student's t of
the differences); others by Welch's test, in which a drift between the groups counts as a difference.
Source: Kalibera and Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013), for ratios with intervals.
"""

import bisect
import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from llem.results import student_t

LEVEL = 0.95
MARGIN = 0.02
LEAST_RUNS = 3  # of two an interval can be had that says next to nothing
MAX_REPEATS = 1000
NO_ERROR = 1e-12  # of the difference: what rounding leaves of equal values
# of a modified z, from the median of the distances to the median; hyperfine marks the same ones
OUTLIER_Z = 14.8
Z_SCALE = 0.6745
LEAST_FOR_OUTLIERS = 5  # of fewer, one is easily far from two that happen to agree
Verdict = Literal["higher", "lower", "equivalent", "unclear"]


class Spread(NamedTuple):
    """A difference of logarithms: its best value, its standard error and how many degrees of freedom that has."""

    difference: float
    error: float
    degrees: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a group over that of the reference; None where nothing can be said, with the reason."""

    method: Literal["paired", "welch", "none"]
    runs: int  # of the group; in pairs, how many pairs
    reference_runs: int
    reference: float | None = None  # geometric mean over runs
    value: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None  # for all comparisons of a table (Holm)
    verdict: Verdict = "unclear"
    within_margin: bool = False  # the interval of twice the error probability lies within the margin
    reason: str | None = None
    # runs of each until the interval is as narrow as the margin; adjusted() leaves it where the verdict is unclear
    repeats_needed: int | None = None


def compare(
    reference: Sequence[float | None],
    values: Sequence[float | None],
    *,
    paired: bool,
    level: float = LEVEL,
    margin: float = MARGIN,
) -> Comparison:
    """Compare one figure of two groups; in pairs, both have one length and the same place means the same block.

    `margin` is the share below which a difference does not matter.
    """
    said = Comparison(method="none", runs=len(values), reference_runs=len(reference))
    if reason := _no_ratio([*reference, *values]):
        return replace(said, reason=reason)
    before, after = _logarithms(reference), _logarithms(values)
    said = replace(said, reference=_geometric_mean(before), value=_geometric_mean(after))
    said = replace(said, ratio=_geometric_mean(after) / _geometric_mean(before))
    if min(len(before), len(after)) < 2:
        return replace(said, reason="one run each" if len(before) == len(after) else "one run on one side")
    said = replace(said, method="paired" if paired else "welch")
    return _judged(
        said, _paired(before, after) if paired else _welch(before, after), level=level, margin=margin
    )


def adjusted(comparisons: Sequence[Comparison], *, level: float = LEVEL) -> list[Comparison]:
    """The comparisons of one table, with p and verdict for all of them together (Holm 1979)."""
    ranked = sorted(
        (place for place, each in enumerate(comparisons) if each.p is not None),
        key=lambda place: comparisons[place].p or 0.0,
    )
    result, least = list(comparisons), 0.0
    for rank, place in enumerate(ranked):
        each = comparisons[place]
        least = max(least, min(1.0, (len(ranked) - rank) * (each.p or 0.0)))
        verdict = _verdict(each, least, level)
        needed = each.repeats_needed if verdict == "unclear" else None
        result[place] = replace(each, p_adjusted=least, verdict=verdict, repeats_needed=needed)
    return result


def within_runs(
    ratio: float, cvs: tuple[float, float], *, parts: int, level: float = LEVEL
) -> tuple[float, float] | None:
    """The interval of the ratio of two runs' means, by how far the means of so many parts spread within each; None without any spread.

    What differs from run to run is not in it. Two samples, by Welch and Satterthwaite; a small spread of a share is that of its logarithm.
    """
    shares = [cv**2 / parts for cv in cvs]
    if sum(shares) == 0:
        return None
    degrees = sum(shares) ** 2 / sum(share**2 / (parts - 1) for share in shares)
    half = student_t.quantile(level, degrees) * math.sqrt(sum(shares))
    return ratio * math.exp(-half), ratio * math.exp(half)


def mean_of_runs(
    values: Sequence[float], *, level: float = LEVEL
) -> tuple[float, float | None, float | None]:
    """The geometric mean of a figure over runs, and its interval; None for one run, and without spread. Values are above 0."""
    logarithms = _logarithms(values)
    mean = statistics.fmean(logarithms)
    if len(logarithms) < 2 or (deviation := statistics.stdev(logarithms)) == 0:
        return math.exp(mean), None, None
    half = student_t.quantile(level, len(logarithms) - 1) * deviation / math.sqrt(len(logarithms))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def arithmetic_mean_of_runs(
    values: Sequence[float], *, level: float = LEVEL
) -> tuple[float, float | None, float | None]:
    """The same of a figure that may be 0 or negative, such as a difference: its mean, and Student's interval of it."""
    mean = statistics.fmean(values)
    if len(values) < 2 or (deviation := statistics.stdev(values)) == 0:
        return mean, None, None
    half = student_t.quantile(level, len(values) - 1) * deviation / math.sqrt(len(values))
    return mean, mean - half, mean + half


def outliers(values: Sequence[float]) -> list[int]:
    """Places of values far from the others, by the modified z score; they are marked, never dropped."""
    if len(values) < LEAST_FOR_OUTLIERS:
        return []
    middle = statistics.median(values)
    scale = statistics.median(abs(value - middle) for value in values)
    if scale == 0:
        return []
    return [place for place, value in enumerate(values) if Z_SCALE * abs(value - middle) / scale > OUTLIER_Z]


def _no_ratio(values: Sequence[float | None]) -> str | None:
    if not values or any(value is None for value in values):
        return "not measured in every run"
    if any(value is not None and not 0 < value < math.inf for value in values):
        return "a figure of 0 or less has no ratio"
    return None


def _logarithms(values: Sequence[float | None]) -> list[float]:
    return [math.log(value) for value in values if value is not None]


def _geometric_mean(logarithms: Sequence[float]) -> float:
    return math.exp(statistics.fmean(logarithms))


def _paired(before: Sequence[float], after: Sequence[float]) -> Spread:
    differences = [b - a for a, b in zip(before, after, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return Spread(statistics.fmean(differences), error, len(differences) - 1)


def _welch(before: Sequence[float], after: Sequence[float]) -> Spread:
    """Welch and Satterthwaite: each group has a variance of its own."""
    shares = [statistics.variance(group) / len(group) for group in (before, after)]
    difference = statistics.fmean(after) - statistics.fmean(before)
    weights = [share**2 / (len(group) - 1) for share, group in zip(shares, (before, after), strict=True)]
    degrees = sum(shares) ** 2 / sum(weights) if sum(weights) else len(before) + len(after) - 2
    return Spread(difference, math.sqrt(sum(shares)), degrees)


def _judged(said: Comparison, spread: Spread, *, level: float, margin: float) -> Comparison:
    """The comparison with what its spread says."""
    difference, error, degrees = spread
    if error <= NO_ERROR * abs(difference):
        within = abs(difference) <= math.log1p(margin)
        verdict: Verdict = "equivalent" if within else "higher" if difference > 0 else "lower"
        return replace(said, verdict=verdict, within_margin=within, reason="no spread seen")
    half = student_t.quantile(level, degrees) * error
    narrow = student_t.quantile(2 * level - 1, degrees) * error  # two one-sided tests
    p = student_t.two_sided_p(difference / error, degrees)
    said = replace(
        said,
        ratio_low=math.exp(difference - half),
        ratio_high=math.exp(difference + half),
        p=p,
        within_margin=abs(difference) + narrow <= math.log1p(margin),
    )
    return replace(said, verdict=_verdict(said, p, level), repeats_needed=_needed(spread, level, margin))


def _verdict(comparison: Comparison, p: float, level: float) -> Verdict:
    if p <= 1 - level:
        return "higher" if (comparison.ratio or 1.0) > 1 else "lower"
    return "equivalent" if comparison.within_margin else "unclear"


def _needed(spread: Spread, level: float, margin: float) -> int | None:
    """Runs of each group at which the interval is no wider than the margin to each side, were the spread the same."""
    deviation = spread.error * math.sqrt(spread.degrees + 1)

    def is_narrow(runs: int) -> bool:
        return student_t.quantile(level, runs - 1) * deviation / math.sqrt(runs) <= math.log1p(margin)

    runs = bisect.bisect_left(range(MAX_REPEATS), True, lo=LEAST_RUNS, key=is_narrow)
    return runs if runs < MAX_REPEATS else None
