"""What is said of samples that are left out of a series."""

import numpy as np
import pytest

from llem.results.power import EnergyCurve, LeftOut, Rhythm, half_steps_j


def test_samples_are_left_out_between_two() -> None:
    """Where any are; of some of a series, and of it after others before which none are."""
    counts = np.array([0, 2, 1])
    left_out = LeftOut(counts, *[counts * 0.5] * 4, counts, counts * 0.5, counts)
    assert left_out.any.tolist() == [False, True, True]
    assert left_out.of(slice(1, None)).samples.tolist() == [2, 1]
    assert left_out.of(np.array([True, False, True])).longest_sec.tolist() == [0.0, 0.5]
    after = left_out.after(2)
    assert after.samples.tolist() == [0, 0, 0, 2, 1] and after.samples.dtype == counts.dtype
    assert after.highest_w.tolist() == [0.0, 0.0, 0.0, 1.0, 0.5]


AT_S = np.array([0.0, 1.0, 2.5, 3.0, 4.0, 5.0, 6.0])
POWER_W = np.array([100.0, 200.0, 150.0, 300.0, 250.0, 250.0, 50.0])
# without the samples at 2.5, 3 and 4 s, which are added up at 5 s
SEEN = np.array([0, 1, 5, 6])
THINNED = LeftOut(
    samples=np.array([0, 0, 3, 0]),
    longest_sec=np.array([0, 0, 1.5, 0]),
    trapezoids_j=np.array([0, 0, 262.5 + 112.5 + 275 + 250, 0]),
    half_steps_j=np.array([0, 0, (50 * 1.5 + 150 * 0.5 + 50) / 2, 0]),
    highest_w=np.array([0, 0, 300.0, 0]),
    falls=np.array([0, 0, 2, 0]),
    throttled_sec=np.zeros(4),
    throttle_bits=np.zeros(4, np.int64),
)


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_what_is_left_out_between_two_counts_as_if_it_were_there(cut: int) -> None:
    """Energy, half steps and rhythm of a thinned series are those of the whole, in however many pieces it comes."""
    edges_s = [0.0, 0.5, 1.0, 5.0, 5.5, 7.0]
    whole, thinned, rhythm = EnergyCurve(edges_s), EnergyCurve(edges_s), Rhythm()
    whole.add(AT_S, POWER_W)
    for part in (slice(0, cut), slice(cut, None)):
        thinned.add(AT_S[SEEN][part], POWER_W[SEEN][part], THINNED.of(part))
        rhythm.add(AT_S[SEEN][part], POWER_W[SEEN][part], THINNED.of(part))
    assert thinned.found().tolist() == pytest.approx(whole.found().tolist())
    assert whole.found()[-1] == pytest.approx(150 + 262.5 + 112.5 + 275 + 250 + 150 + 50)
    assert (rhythm.count, rhythm.first_sec, rhythm.last_sec, rhythm.fell) == (7, 0.0, 6.0, True)


def test_half_steps_of_what_is_left_out_are_told() -> None:
    """Of the steps that touch the span."""
    told = {"start_sec": 0.0, "end_sec": 6.0}
    thinned_j = half_steps_j(AT_S[SEEN], POWER_W[SEEN], left_out=THINNED, **told)
    assert thinned_j == half_steps_j(AT_S, POWER_W, **told) == (100 + 75 + 75 + 50 + 200) / 2


def test_a_value_may_fall_where_nobody_looks() -> None:
    """Or between two pieces; one that stays as it is has not fallen."""
    rising = np.array([1.0, 2.0, 2.0, 3.0])
    for values, left_out, fell in (
        (rising, THINNED, True),
        (rising, THINNED._replace(falls=np.zeros(4, np.int64)), False),
        (rising[::-1].copy(), None, True),
        (rising, None, False),
    ):
        rhythm = Rhythm()
        rhythm.add(AT_S[SEEN], values, left_out)
        assert rhythm.fell is fell
        assert rhythm.first_value == values[0]
    pieces = Rhythm()
    pieces.add(np.array([0.0]), np.array([5.0]))
    pieces.add(np.array([1.0]), np.array([4.0]))
    assert pieces.fell and pieces.period_sec == 1.0
    level = Rhythm()
    for at_s in (0.0, 1.0):
        level.add(np.array([at_s]), np.array([5.0]))
    assert not level.fell


def test_samples_that_are_left_out_are_alike() -> None:
    """Three seconds of a hundred samples are a rhythm of 30 ms, whatever the few that are seen keep."""
    counts = np.array([0, 99, 0])
    left_out = LeftOut(counts, *[np.zeros(3)] * 4, counts * 0, np.zeros(3), counts * 0)
    rhythm = Rhythm()
    rhythm.add(np.array([0.0, 3.0, 4.0]), np.ones(3), left_out)
    assert rhythm.period_sec == pytest.approx(0.03) and rhythm.count == 102
