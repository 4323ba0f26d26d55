"""A histogram keeps no number, and its quantiles are those of the numbers, to a sixteenth."""

from hypothesis import given
from hypothesis import strategies as st

from llem.measure.sampler import Histogram


@given(st.lists(st.integers(0, 2**62), min_size=1), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_quantiles_are_those_of_the_numbers(numbers: list[int], share: float) -> None:
    """Never below the number of that rank, and above it by a sixteenth at most."""
    histogram = Histogram()
    for number in numbers:
        histogram.add(number)
    exact = sorted(numbers)[min(len(numbers) - 1, int(len(numbers) * share))]
    quantile = histogram.quantile(share)
    assert quantile is not None and exact <= quantile <= exact + exact // 16


def test_a_day_of_samples_takes_kilobytes() -> None:
    """Its size depends on how many sizes of numbers there are, not on how many numbers."""
    histogram = Histogram()
    for number in range(200_000):
        histogram.add(number * 1000)
    assert len(histogram) < 600
