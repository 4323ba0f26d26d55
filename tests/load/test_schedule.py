"""Schedules: the arrivals that were asked for, the same for the same seed, known before the first is sent."""

import itertools
import math
import statistics
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem.errors import PlanError
from llem.load.schedule import Arrival, arrivals_ns, schedule_sha256, slots_ns, trace_ns

ARRIVALS: tuple[Arrival, ...] = ("constant", "poisson", "gamma")


def arrivals(arrival: Arrival = "poisson", **asked: float) -> list[int]:
    """A hundred arrivals a second for 100 s, unless something else is asked."""
    defaults = {"rate_per_s": 100.0, "seed": 1, "requests": 0, "min_duration_s": 100.0}
    return list(arrivals_ns(arrival, **(defaults | asked)))  # type: ignore[arg-type]


def gaps(due_ns: list[int]) -> list[float]:
    """Times between two arrivals, in s."""
    return [(later - earlier) / 1e9 for earlier, later in itertools.pairwise(due_ns)]


def ks_p_value(found: list[float], rate_per_s: float) -> float:
    """Of the Kolmogorov-Smirnov test against an exponential distribution (Kolmogorov's asymptotic series)."""
    ordered, count = sorted(found), len(found)
    expected = [1 - math.exp(-rate_per_s * gap) for gap in ordered]
    distance = max(
        max(share - rank / count, (rank + 1) / count - share) for rank, share in enumerate(expected)
    )
    size = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * size * size) for k in range(1, 101)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    arrival=st.sampled_from(ARRIVALS),
    rate_per_s=st.floats(0.1, 1_000),
    burstiness=st.floats(0.05, 20),
    ramp_s=st.floats(0, 5),
    seed=st.integers(0, 2**63 - 1),
    requests=st.integers(0, 50),
    min_duration_s=st.floats(0, 3),
)
def test_a_schedule_is_pure_ascending_and_as_long_as_asked(
    arrival: Arrival,
    rate_per_s: float,
    burstiness: float,
    ramp_s: float,
    seed: int,
    requests: int,
    min_duration_s: float,
) -> None:
    """The same arguments give the same arrivals, which never go back, and are all that the duration and the number ask for."""
    asked = {
        "rate_per_s": rate_per_s,
        "burstiness": burstiness,
        "ramp_s": ramp_s,
        "seed": seed,
        "requests": requests,
        "min_duration_s": min_duration_s,
    }
    found = arrivals(arrival, **asked)
    assert found == arrivals(arrival, **asked) == sorted(found)
    assert len(found) >= requests
    assert all(due_ns <= min_duration_s * 1e9 + 1 for due_ns in found[requests:])
    cut = arrivals(arrival, **asked, max_duration_s=min_duration_s / 2)
    assert cut == [due_ns for due_ns in found if due_ns <= min_duration_s / 2 * 1e9 + 1][: len(cut)]


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_the_rate_is_held(arrival: Arrival) -> None:
    """Over 10,000 arrivals, to what their spread allows: four standard deviations of the count, none for constant ones."""
    due_ns = arrivals(arrival)
    assert abs(len(due_ns) - 10_000) <= (0 if arrival == "constant" else 4 * math.sqrt(10_000))


def test_poisson_arrivals_are_exponential() -> None:
    """A Kolmogorov-Smirnov test of 10,000 gaps does not tell them apart; constant ones it does."""
    assert ks_p_value(gaps(arrivals()), 100.0) > 0.05
    assert ks_p_value(gaps(arrivals("constant")), 100.0) < 1e-6


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_the_gamma_distribution(burstiness: float) -> None:
    """The coefficient of variation of the gaps is one over its root; the mean stays."""
    found = gaps(arrivals("gamma", burstiness=burstiness))
    mean_s = statistics.fmean(found)
    assert statistics.pstdev(found) / mean_s == pytest.approx(burstiness**-0.5, rel=0.08)
    assert mean_s == pytest.approx(0.01, rel=0.06)


def test_a_ramp_rises_linearly() -> None:
    """A quarter of the requests of a ramp come in its first half, and after it the rate is the full one."""
    due_ns = arrivals("constant", ramp_s=40.0)
    within = [due for due in due_ns if due < 40e9]
    assert len(within) == pytest.approx(2_000, abs=1)
    assert sum(due < 20e9 for due in within) == pytest.approx(500, abs=1)
    assert len(due_ns) - len(within) == pytest.approx(6_000, abs=1)


def test_another_seed_is_another_schedule() -> None:
    """And the digest of the arrivals tells them apart."""
    first, second = arrivals(seed=1), arrivals(seed=2)
    assert schedule_sha256(first) != schedule_sha256(second)
    assert schedule_sha256(first) == schedule_sha256(array("q", first))


def test_the_digest_is_that_of_little_endian_integers() -> None:
    """Whoever has the arrivals can work it out: SHA-256 of 0 and 1,000 in eight bytes each."""
    assert schedule_sha256([0, 1_000]) == ("fc93aac95955aaff94937dff155c2396658a385b2f599e78c24341b12fd422f5")


def test_slots_of_a_closed_loop_are_spread_over_the_ramp() -> None:
    """Without a ramp all begin at once."""
    assert list(slots_ns(4, ramp_s=2.0)) == [0, 500_000_000, 1_000_000_000, 1_500_000_000]
    assert list(slots_ns(3, ramp_s=0)) == [0, 0, 0]


def test_a_trace_is_stretched_and_cut() -> None:
    """Its first request is due at once, the others as far behind it as in the trace, times the scale."""
    assert list(trace_ns([5_000, 5_010, 6_000], time_scale=1.0)) == [0, 10_000_000, 1_000_000_000]
    assert list(trace_ns([5_000, 5_010, 6_000], time_scale=0.5, max_duration_s=0.1)) == [0, 5_000_000]
    assert list(trace_ns([], time_scale=1.0)) == []


def test_more_requests_than_anybody_waits_for_are_refused() -> None:
    """Before they are drawn."""
    with pytest.raises(PlanError, match=r"1e\+06 requests/s for 100 s, expected at most 10000000 requests"):
        arrivals(rate_per_s=1e6)
