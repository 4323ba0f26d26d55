"""Comparisons of runs: intervals that cover, verdicts that can be relied on, and figures of which nothing can be said."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results import student_t
from llem.results.comparison import Comparison, adjusted, compare, outliers

# scipy.stats.t.ppf(1 - (1 - level) / 2, df), scipy 1.16
QUANTILES = {
    (0.95, 1): 12.706204736174694,
    (0.95, 2): 4.302652729749462,
    (0.95, 4): 2.7764451051977934,
    (0.90, 4): 2.13184678632665,
    (0.99, 9): 3.2498355415921263,
    (0.95, 30): 2.0422724563012373,
    (0.95, 1000): 1.9623390808264074,
}


@pytest.mark.parametrize(("level", "degrees"), QUANTILES)
def test_quantiles_of_t_are_those_of_the_tables(level: float, degrees: int) -> None:
    """Within a billionth of what scipy gives."""
    assert student_t.quantile(level, degrees) == pytest.approx(QUANTILES[level, degrees], rel=1e-9)


def test_closed_forms_of_t() -> None:
    """One degree of freedom is Cauchy's distribution, two have a root."""
    for t in (0.01, 0.3, 1.0, 7.0, 1e4):
        assert student_t.two_sided_p(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi, rel=1e-9)
        assert student_t.two_sided_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6, abs=1e-13)


@given(st.floats(0.5, 0.999), st.floats(1, 1000))
def test_quantile_is_where_the_probability_is(level: float, degrees: float) -> None:
    """p of the quantile is what lies outside, also for fractions of a degree of freedom."""
    assert student_t.two_sided_p(student_t.quantile(level, degrees), degrees) == pytest.approx(
        1 - level, rel=1e-9
    )


def studies(
    number: int, *, blocks: int = 5, true_ratio: float = 1.0, drift: float = 0.0, seed: int = 1
) -> list[tuple[list[float], list[float]]]:
    """Figures of two cells with a spread of 1 % a run; both drift alike from block to block."""
    random = np.random.default_rng(seed)
    warmth = drift * (1 - np.exp(-np.arange(blocks) / 1.5))
    noise = random.normal(0, 0.01, (number, 2, blocks))
    figures = np.exp(warmth + noise) * np.array([1.0, true_ratio])[:, None]
    return [(first.tolist(), second.tolist()) for first, second in figures]


def test_interval_covers_the_true_ratio() -> None:
    """Of 1,000 paired studies of five blocks that warm up by 3 %, 93 to 97 in a hundred cover it."""
    found = [compare(a, b, paired=True) for a, b in studies(1_000, true_ratio=1.1, drift=0.03)]
    covered = statistics.fmean(each.ratio_low < 1.1 < each.ratio_high for each in found)
    assert 0.93 <= covered <= 0.97


def test_true_difference_of_three_percent_is_found() -> None:
    """In at least 80 of 100 studies of five blocks with a spread of 1 %."""
    found = [compare(a, b, paired=True) for a, b in studies(400, true_ratio=1.03, drift=0.03)]
    assert statistics.fmean(each.verdict == "higher" for each in found) >= 0.8


def test_equal_cells_are_told_apart_no_more_often_than_promised() -> None:
    """Nine comparisons of equal cells: some false alarm in at most 6 of 100 studies, where raw p gives 29."""
    random = np.random.default_rng(2)
    alarms, raw = [], []
    for _ in range(400):
        cells = np.exp(random.normal(0, 0.01, (10, 5))).tolist()
        table = [compare(cells[0], cell, paired=True) for cell in cells[1:]]
        raw.append(any(each.verdict in ("higher", "lower") for each in table))
        alarms.append(any(each.verdict in ("higher", "lower") for each in adjusted(table)))
    assert statistics.fmean(alarms) <= 0.06
    assert statistics.fmean(raw) > 0.15


def test_holm_multiplies_by_what_is_left() -> None:
    """The smallest of three p counts thrice, the next twice, and none is smaller than the one before."""
    table = [
        Comparison(method="welch", runs=3, reference_runs=3, ratio=2.0, p=p) for p in (0.04, 0.01, 0.021)
    ]
    assert [each.p_adjusted for each in adjusted(table)] == pytest.approx([0.042, 0.03, 0.042])


def test_figures_that_hardly_differ_are_equivalent() -> None:
    """An interval within the margin says so; the same spread around a larger difference does not."""
    close = compare([1.0, 1.001, 0.999, 1.0], [1.0, 0.999, 1.001, 1.0], paired=False)
    assert (close.verdict, close.within_margin) == ("equivalent", True)
    far = compare([1.0, 1.001, 0.999, 1.0], [1.1, 1.101, 1.099, 1.1], paired=False)
    assert (far.verdict, far.within_margin) == ("higher", False)


@pytest.mark.parametrize(
    ("reference", "values", "reason"),
    [
        ([1.0], [2.0], "one run each"),
        ([1.0, 2.0], [2.0], "one run on one side"),
        ([1.0, None], [2.0, 3.0], "not measured in every run"),
        ([], [], "not measured in every run"),
        ([1.0, 0.0], [2.0, 3.0], "a figure of 0 or less has no ratio"),
        ([1.0, math.nan], [2.0, 3.0], "a figure of 0 or less has no ratio"),
    ],
)
def test_what_cannot_be_compared_is_unclear_with_its_reason(
    reference: list[float | None], values: list[float | None], reason: str
) -> None:
    """No interval, no p, and no verdict but unclear."""
    found = compare(reference, values, paired=False)
    assert (found.verdict, found.reason, found.p, found.ratio_low) == ("unclear", reason, None, None)


def test_values_without_spread_are_said_to_have_none() -> None:
    """Nothing is divided by zero; the ratio itself says which."""
    same, twice = compare([1.0, 1.0], [1.0, 1.0], paired=True), compare([1.0, 2.0], [2.0, 4.0], paired=True)
    assert (same.verdict, same.reason, same.p) == ("equivalent", "no spread seen", None)
    assert (twice.verdict, twice.reason, twice.ratio) == ("higher", "no spread seen", pytest.approx(2.0))


def test_unclear_says_how_many_runs_would_do() -> None:
    """So many runs of the same spread make the interval as narrow as the margin."""
    found = compare([1.0, 1.02, 0.98], [1.01, 1.0, 1.02], paired=True)
    assert found.verdict == "unclear"
    assert found.repeats_needed is not None
    assert found.repeats_needed > 3


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6), st.floats(0.5, 2), st.booleans())
def test_ratio_lies_in_its_interval_and_turns_round(values: list[float], factor: float, paired: bool) -> None:
    """Exchanging the groups gives the reciprocal of everything."""
    others = [value * factor * (1 + 0.01 * place) for place, value in enumerate(values)]
    there, back = compare(values, others, paired=paired), compare(others, values, paired=paired)
    assert there.ratio == pytest.approx(1 / back.ratio)
    if there.ratio_low is not None:
        assert there.ratio_low <= there.ratio <= there.ratio_high
        assert there.ratio_low == pytest.approx(1 / back.ratio_high)
        assert there.p == pytest.approx(back.p)


def test_outliers_are_marked() -> None:
    """One value far from the others, none among equal ones, none among too few."""
    assert outliers([1.0, 1.01, 0.99, 1.02, 3.0]) == [4]
    assert outliers([1.0, 1.0, 1.0, 1.0, 3.0]) == []
    assert outliers([1.0, 1.0001, 3.0, 0.9999]) == []
