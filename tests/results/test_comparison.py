"""Comparisons of runs: intervals that cover, verdicts that can be relied on, and figures of which nothing can be said."""

import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results import student_t
from llem.results.batch_means import PARTS
from llem.results.comparison import (
    Comparison,
    Verdict,
    adjusted,
    arithmetic_mean_of_runs,
    compare,
    mean_of_runs,
    outliers,
    within_runs,
)
from tests.simulated_studies import figures

# Worked out with mpmath 1.3 and 40 digits, from the regularised incomplete beta function: degrees of freedom -> what 90, 95 and 99 % lie within.
LEVELS = (0.9, 0.95, 0.99)
QUANTILES = {
    1: (6.313751514675045, 12.70620473617469, 63.65674116287152),
    1.5: (3.705180820096752, 6.016663104427928, 17.8203105144628),
    2: (2.919985580353726, 4.302652729749462, 9.924843200918289),
    2.7: (2.463888936270851, 3.392148383173751, 6.533128433408453),
    3: (2.353363434801824, 3.182446305283708, 5.840909309733355),
    4: (2.131846786326651, 2.776445105197793, 4.604094871349992),
    4.33: (2.086010602252776, 2.694952670042616, 4.373080422825935),
    7: (1.894578605090008, 2.364624251592785, 3.499483297350493),
    12.9: (1.771983802370334, 2.162072279634474, 3.01616497466753),
    30: (1.697260886593958, 2.042272456301238, 2.749995653567225),
    99.5: (1.66031234330733, 1.984093610990624, 2.626146672063148),
    300: (1.649948673937634, 1.967903011261087, 2.592316410847792),
    1000: (1.646378817285465, 1.962339080826408, 2.580754698065951),
}
# The same -> the probability of a value at least so far from 0 as these.
FAR = (0.1, 1.0, 2.5, 6.0)
PROBABILITIES = {
    1: (0.9365489651388929, 0.5, 0.2422378831816868, 0.1051369134225069),
    2.7: (0.9272983352515441, 0.3983243472207725, 0.09707941444293467, 0.01243736829813918),
    4: (0.9251558409394533, 0.3739009663000589, 0.06676654481198815, 0.00388253704696051),
    30: (0.9210096117902712, 0.3253086154260299, 0.01811564906806669, 1.394276876720474e-6),
    1000: (0.9203643690236041, 0.3175524180846723, 0.0125785678010908, 2.755369173377469e-9),
}


@pytest.mark.parametrize("degrees", QUANTILES)
def test_quantiles_of_t_are_those_of_the_tables(degrees: float) -> None:
    """Within a billionth, for whole and fractional degrees of freedom."""
    found = [student_t.quantile(level, degrees) for level in LEVELS]
    assert found == pytest.approx(QUANTILES[degrees], rel=1e-9)


@pytest.mark.parametrize("degrees", PROBABILITIES)
def test_probabilities_of_t_are_those_of_the_tables(degrees: float) -> None:
    """Within a billionth, the smallest ones too."""
    found = [student_t.two_sided_p(t, degrees) for t in FAR]
    assert found == pytest.approx(PROBABILITIES[degrees], rel=1e-9, abs=0)


def test_the_table_of_quantiles_is_as_it_is_made() -> None:
    """`python -m llem.results.student_t` prints it."""
    assert resources.files("llem.projections").joinpath("student_t.sql").read_text() == student_t.as_sql()


def test_results_load_no_library_of_statistics() -> None:
    """numpy and a page of our own do."""
    program = "import sys, llem.results; print(*{'scipy', 'statsmodels', 'pandas'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


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


def verdicts(numbers: range, **study: Any) -> list[Verdict]:
    """Of the second cell over the first, in studies on a machine that drifts; those in sequential order have no pairs."""
    paired = study.get("order") != "sequential"
    return [compare(*figures(number, **study), paired=paired).verdict for number in numbers]


def share_told_apart(found: Sequence[Verdict]) -> float:
    """Of all, those with a difference."""
    return statistics.fmean(verdict in ("higher", "lower") for verdict in found)


def test_interval_covers_the_true_ratio() -> None:
    """Of 1,000 studies of five blocks on a machine that drifts, 93 to 97 in a hundred cover it."""
    found = [compare(*figures(number, ratios=(1.0, 1.1)), paired=True) for number in range(1_000)]
    covered = statistics.fmean(each.ratio_low < 1.1 < each.ratio_high for each in found)
    assert 0.93 <= covered <= 0.97


def test_equal_cells_are_told_apart_in_five_studies_of_a_hundred() -> None:
    """Of 400 studies in a drawn order 3 to 7.5 in a hundred; measured one cell after the other, more than 20."""
    assert 0.03 <= share_told_apart(verdicts(range(400))) <= 0.075
    assert share_told_apart(verdicts(range(400), order="sequential")) > 0.2


def test_true_difference_of_three_percent_is_found() -> None:
    """In at least 80 of 100 studies of five blocks with a spread of 1 %."""
    assert statistics.fmean(each == "higher" for each in verdicts(range(400), ratios=(1.0, 1.03))) >= 0.8


def test_a_regression_of_five_percent_is_found_and_none_is_not_invented() -> None:
    """Worse in at least 95 of 100 studies of five blocks, and where nothing changed in at most 5."""
    assert statistics.fmean(each == "higher" for each in verdicts(range(400), ratios=(1.0, 1.05))) >= 0.95
    assert statistics.fmean(each == "higher" for each in verdicts(range(400))) <= 0.05


def false_alarms(numbers: range) -> tuple[float, float]:
    """Shares of studies of ten equal cells in which any is told from the first, with Holm's p and with raw p."""
    alarms, raw = [], []
    for number in numbers:
        first, *others = figures(number, ratios=[1.0] * 10)
        table = [compare(first, other, paired=True) for other in others]
        raw.append(share_told_apart([each.verdict for each in table]) > 0)
        alarms.append(share_told_apart([each.verdict for each in adjusted(table)]) > 0)
    return statistics.fmean(alarms), statistics.fmean(raw)


@pytest.mark.slow
def test_nine_equal_cells_are_told_apart_no_more_often_than_promised() -> None:
    """Some false alarm in at most 6 of 100 studies, where raw p gives 28."""
    alarms, raw = false_alarms(range(2_000))
    assert alarms <= 0.06
    assert raw > 0.25


def test_holm_multiplies_by_what_is_left() -> None:
    """The smallest of three p counts thrice, the next twice, and none is smaller than the one before."""
    table = [
        Comparison(method="welch", runs=3, reference_runs=3, ratio=2.0, p=p) for p in (0.04, 0.01, 0.021)
    ]
    assert [each.p_adjusted for each in adjusted(table)] == pytest.approx([0.042, 0.03, 0.042])


def test_holm_makes_nothing_more_than_certain() -> None:
    """Two of three that may well be by chance are so with a probability of 1."""
    table = [Comparison(method="welch", runs=3, reference_runs=3, ratio=1.1, p=p) for p in (0.4, 0.9, 0.8)]
    assert [each.p_adjusted for each in adjusted(table)] == [1.0, 1.0, 1.0]


def test_holm_begins_with_the_least() -> None:
    """Of two, one of which cannot be by chance: that one is doubled, the other stands."""
    sure, likely = (Comparison(method="welch", runs=3, reference_runs=3, ratio=1.1, p=p) for p in (0.0, 0.04))
    for order in ((sure, likely), (likely, sure)):
        found = {each.p: each.p_adjusted for each in adjusted(order)}
        assert found == {0.0: 0.0, 0.04: 0.04}


def test_what_holm_leaves_unclear_says_how_many_runs_would_do() -> None:
    """A figure that is told apart alone, and not among ten, has its number too; one that stays told apart has none."""
    lower = compare([1.0, 1.0, 1.0], [0.925, 0.93, 0.96], paired=True)
    assert lower.verdict == "lower"
    assert adjusted([lower])[0].repeats_needed is None
    among_others = adjusted([lower] * 10)[0]
    assert among_others.verdict == "unclear"
    assert among_others.repeats_needed is not None and among_others.repeats_needed > 3


def test_a_mean_of_differences_may_be_of_any_sign() -> None:
    """Student's interval around the arithmetic mean, none of one run or without spread."""
    mean, low, high = arithmetic_mean_of_runs([-1.0, 0.0, 4.0])
    assert mean == pytest.approx(1.0)
    assert (low, high) == (pytest.approx(1 - 6.5724, abs=1e-3), pytest.approx(1 + 6.5724, abs=1e-3))
    assert arithmetic_mean_of_runs([2.0]) == (2.0, None, None)
    assert arithmetic_mean_of_runs([2.0, 2.0]) == (2.0, None, None)


def test_a_mean_over_runs_is_that_of_their_logarithms() -> None:
    """With Student's interval of it, none of one run or without spread."""
    found = mean_of_runs([math.exp(power) for power in (-1.0, 0.0, 4.0)])
    assert found == pytest.approx([math.exp(power) for power in (1.0, 1 - 6.57241, 1 + 6.57241)], rel=1e-4)
    assert mean_of_runs([2.0]) == (pytest.approx(2.0), None, None)
    assert mean_of_runs([2.0, 2.0]) == (pytest.approx(2.0), None, None)


def test_two_runs_have_an_interval() -> None:
    """Of one degree of freedom; one run has none, and so have two alike."""
    half = 12.706_204_736
    assert arithmetic_mean_of_runs([1.0, 3.0]) == pytest.approx((2.0, 2.0 - half, 2.0 + half))
    found = mean_of_runs([1.0, math.exp(2.0)])
    assert found == pytest.approx((math.exp(1.0), math.exp(1.0 - half), math.exp(1.0 + half)))
    for mean in (arithmetic_mean_of_runs, mean_of_runs):
        assert mean([3.0]) == mean([3.0, 3.0]) == (pytest.approx(3.0), None, None)


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
        ([1.0, 2.0], [2.0, math.inf], "a figure of 0 or less has no ratio"),
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


def powers(*logarithms: float) -> list[float]:
    return [math.exp(each) for each in logarithms]


def test_pairs_are_compared_by_their_differences() -> None:
    """Of 0.1, 0.2 and 0.3, by Student's t of two degrees of freedom, whose probability has a closed form."""
    found = compare(powers(1.0, 2.0, 3.0), powers(1.1, 2.2, 3.3), paired=True)
    error = 0.1 / math.sqrt(3)
    half, t = 4.302_652_73 * error, 0.2 / error
    assert (found.method, found.runs, found.reference_runs, found.reason) == ("paired", 3, 3, None)
    assert (found.reference, found.value, found.ratio) == pytest.approx(powers(2.0, 2.2, 0.2))
    assert (found.ratio_low, found.ratio_high) == pytest.approx(powers(0.2 - half, 0.2 + half))
    assert found.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert (found.verdict, found.within_margin) == ("unclear", False)
    needed = found.repeats_needed
    assert needed is not None
    narrow = [
        student_t.quantile(0.95, runs - 1) * 0.1 / math.sqrt(runs) <= math.log(1.02)
        for runs in (needed - 1, needed)
    ]
    assert narrow == [False, True]


def test_others_are_compared_by_their_variances() -> None:
    """Of 0.02 and 0.08, two runs each: Welch's degrees of freedom are 1.47."""
    found = compare(powers(0.0, 0.2), powers(0.1, 0.5), paired=False)
    half = student_t.quantile(0.95, 0.0025 / 0.0017) * math.sqrt(0.05)
    assert found.method == "welch"
    assert (found.ratio_low, found.ratio_high) == pytest.approx(powers(0.2 - half, 0.2 + half))
    assert found.p == pytest.approx(student_t.two_sided_p(0.2 / math.sqrt(0.05), 0.0025 / 0.0017))


def test_a_margin_holds_the_interval_of_twice_the_probability() -> None:
    """Of 0 with a spread of 0.1 over three pairs it reaches to 2.92 errors; just beyond that it is equivalent."""
    reaches = 2.919_985_58 * 0.1 / math.sqrt(3)
    for margin, verdict in ((reaches * 0.999, "unclear"), (reaches * 1.001, "equivalent")):
        found = compare(powers(0, 0, 0), powers(-0.1, 0.0, 0.1), paired=True, margin=math.expm1(margin))
        assert found.verdict == verdict
    exact = math.expm1(0.25)
    for change, verdict in (
        (0.25, "equivalent"),
        (-0.25, "equivalent"),
        (0.2500001, "higher"),
        (-0.2500001, "lower"),
    ):
        assert (
            compare([1.0, 1.0], powers(change, change), paired=True, margin=exact * (1 + 1e-9)).verdict
            == verdict
        )


def test_what_differs_too_much_needs_more_runs_than_anybody_has() -> None:
    """A thousand and more are no number."""
    assert compare(powers(0, 0, 0), powers(-1, 0, 1), paired=True).repeats_needed is None
    few = compare(powers(0, 0, 0), powers(-1e-4, 0, 1e-4), paired=True)
    assert few.repeats_needed == 3
    # 2.447 times 0.02 over the root of seven is 0.0185, and of six runs it is 2.571 times that: 0.0210
    assert compare(powers(0, 0, 0), powers(-0.02, 0, 0.02), paired=True).repeats_needed == 7


def test_an_outlier_is_far_by_its_modified_z() -> None:
    """0.6745 distances to the median, over the median of these, above 14.8; of four values none is."""
    edge = 14.8 / 0.6745
    assert outliers([-1.0, -1.0, 0.0, 1.0, edge * 1.001]) == [4]
    assert outliers([-1.0, -1.0, 0.0, 1.0, edge * 0.999]) == []
    assert outliers([-0.6745, -0.6745, 0.0, 0.6745, 14.8]) == []
    assert outliers([-1.0, 1.0, 0.0, 99.0]) == []


def test_the_interval_within_two_runs_is_that_of_two_samples() -> None:
    """Of shares of 0.03 and 0.04 over ten parts each, by Welch and Satterthwaite."""
    shares = 0.03**2 / 10, 0.04**2 / 10
    degrees = sum(shares) ** 2 / ((shares[0] ** 2 + shares[1] ** 2) / 9)
    half = student_t.quantile(0.95, degrees) * math.sqrt(sum(shares))
    assert within_runs(2.0, (0.03, 0.04), parts=10) == pytest.approx(
        (2 * math.exp(-half), 2 * math.exp(half))
    )
    assert within_runs(2.0, (0.03, 0.0), parts=10) is not None


def test_outliers_are_marked() -> None:
    """One value far from the others, none among equal ones, none among too few."""
    assert outliers([1.0, 1.01, 0.99, 1.02, 3.0]) == [4]
    assert outliers([1.0, 1.0, 1.0, 1.0, 3.0]) == []
    assert outliers([1.0, 1.0001, 3.0, 0.9999]) == []


def test_the_interval_within_two_runs_holds_their_true_ratio() -> None:
    """Of runs whose parts are independent, in 95 of 100 of 1,000 pairs; without any spread there is none."""
    random = np.random.default_rng(3)
    held = 0
    for _ in range(1000):
        parts = random.normal(100, 5, (2, PARTS)) * [[1.0], [1.1]]
        means, deviations = parts.mean(axis=1), parts.std(axis=1, ddof=1)
        ratio, cvs = means[1] / means[0], deviations / means
        interval = within_runs(ratio, (cvs[0], cvs[1]), parts=PARTS)
        assert interval is not None
        held += interval[0] <= 1.1 <= interval[1]
    assert 930 <= held <= 970
    assert within_runs(1.0, (0.0, 0.0), parts=PARTS) is None
