"""What a load in step with a sensor that sees a part of the time could hide, worked out by hand."""

import pytest

from llem.results.power import hidden_j

SEEN = {"duration_sec": 10.0, "least_w": 100.0, "most_w": 500.0}


@pytest.mark.parametrize(
    ("energy_j", "seen_share", "shifts", "expected_j"),
    [
        (2_000.0, 0.25, 0, 0.75 * (5_000 - 2_000)),
        (4_000.0, 0.25, 0, 0.75 * (4_000 - 1_000)),
        (2_000.0, 0.25, 100, 3 * 0.5 * 400 * 10 / 10),
        (2_000.0, 0.9, 100, 3 * 0.1 * 400 * 10 / 10),
        (2_000.0, 0.25, 1, 0.75 * (5_000 - 2_000)),
        (2_000.0, 1.0, 0, 0.0),
    ],
    ids=["low", "high", "shifted", "shifted, mostly seen", "shifted once", "all seen"],
)
def test_what_is_not_seen_lies_between_the_least_and_the_most_power(
    energy_j: float, seen_share: float, shifts: int, expected_j: float
) -> None:
    """The farther end where the load keeps step; three standard deviations of the mean where it is shifted, if these are less."""
    assert hidden_j(energy_j, seen_share=seen_share, shifts=shifts, **SEEN) == pytest.approx(expected_j)
