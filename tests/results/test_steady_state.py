"""Where throughput and power stood still."""

import numpy as np
import pytest

from llem.results import PowerSamples, SteadyState, find_steady_state
from llem.results.steady_state import Curve, TokenTimes, longest_run


def tokens_at(*rates: tuple[float, float, float]) -> np.ndarray:
    """Times of tokens at a steady rate per stretch: rows of (from, to, tokens per second)."""
    return np.concatenate([np.arange(start + 0.5 / rate, end, 1 / rate) for start, end, rate in rates])


def constant_power(power_w: float = 100.0, seconds: float = 120.0) -> PowerSamples:
    at_sec = np.arange(0.0, seconds + 0.05, 0.1)
    return PowerSamples(at_sec=at_sec, power_w=np.full(len(at_sec), power_w))


def found(
    tokens: np.ndarray | Curve, *power: PowerSamples, end_sec: float = 120.0, **options: float
) -> SteadyState:
    return find_steady_state(start_sec=0.0, end_sec=end_sec, token_times_sec=tokens, power=power, **options)


def test_a_steady_run_is_steady_from_end_to_end() -> None:
    """Constant throughput and power give the whole window."""
    assert found(tokens_at((0, 120, 50)), constant_power()) == SteadyState(span_sec=(0.0, 120.0))


def test_a_slow_start_is_left_out() -> None:
    """Half the throughput in the first 40 s: the span begins when the rolling mean has left them behind."""
    span = found(tokens_at((0, 40, 25), (40, 120, 50)), constant_power()).span_sec
    assert span is not None
    assert span[0] == pytest.approx(40.0, abs=2.0)
    assert span[1] == 120.0


def test_standing_still_is_not_steady() -> None:
    """Eighty seconds without a token are no steady throughput, however even."""
    span = found(tokens_at((0, 40, 50)), constant_power()).span_sec
    assert span is not None
    assert span == pytest.approx((0.0, 40.0), abs=2.0)


def test_power_alone_can_end_the_steady_state() -> None:
    """Constant throughput under power that doubles at 70 s is steady up to there."""
    at_sec = np.arange(0.0, 120.05, 0.1)
    doubling = PowerSamples(at_sec=at_sec, power_w=np.where(at_sec < 70, 100.0, 200.0))
    span = found(tokens_at((0, 120, 50)), doubling).span_sec
    assert span is not None
    assert span[0] == 0.0
    assert span[1] == pytest.approx(70.0, abs=2.0)


def test_tokens_that_come_in_chunks_are_steady_as_their_tokens_are() -> None:
    """Chunks that come half as often and bring twice as much are no change of throughput."""
    at_sec = tokens_at((0, 60, 10), (60, 120, 5))
    chunks = TokenTimes(at_sec=at_sec, tokens=np.repeat([1, 2], [600, 300]))
    assert found(chunks, constant_power()).span_sec == (0.0, 120.0)
    assert chunks.until(np.array([0.0, 60.0, 120.0])).tolist() == [0.0, 600.0, 1200.0]
    assert TokenTimes(at_sec=at_sec[::-1]).until(np.array([0.0, 60.0, 120.0])).tolist() == [0.0, 600.0, 900.0]


def test_a_drift_is_steady_only_within_the_tolerance() -> None:
    """Power that climbs by 60 % over two minutes is steady within 50 %, and nowhere within 1 %."""
    at_sec = np.arange(0.0, 120.05, 0.1)
    climbing = PowerSamples(at_sec=at_sec, power_w=100.0 + at_sec / 2)
    wide = found(tokens_at((0, 120, 50)), climbing, tolerance=0.5)
    narrow = found(tokens_at((0, 120, 50)), climbing, tolerance=0.01)
    assert wide.span_sec == (0.0, 120.0)
    assert narrow.span_sec is None


@pytest.mark.parametrize(
    ("tokens", "power", "end_sec", "reason"),
    [
        (tokens_at((0, 120, 50)), [], 120.0, "power was not sampled"),
        (np.array([]), [constant_power()], 120.0, "times of tokens are unknown"),
        (tokens_at((0, 20, 50)), [constant_power()], 20.0, "measured for 20.0 s, less than 30.0 s"),
        (tokens_at((0, 20, 50), (20, 40, 10), (40, 60, 50)), [constant_power()], 60.0, "less than 30.0 s"),
    ],
)
def test_no_steady_state_has_a_reason(
    tokens: np.ndarray, power: list[PowerSamples], end_sec: float, reason: str
) -> None:
    """Without power, without tokens, too short or too uneven: None and why."""
    steady = found(tokens, *power, end_sec=end_sec)
    assert steady.span_sec is None
    assert steady.reason is not None
    assert reason in steady.reason
    assert steady.restless == (end_sec == 60.0)


def test_a_run_of_just_the_least_duration_can_be_steady() -> None:
    """30 s are not less than 30 s, and two samples of power are a curve; one is none."""
    ends = PowerSamples(at_sec=[0.0, 30.0], power_w=[100.0, 100.0])
    assert found(tokens_at((0, 30, 50)), ends, end_sec=30.0).span_sec == (0.0, 30.0)
    once = PowerSamples(at_sec=[0.0], power_w=[100.0])
    assert "power was not sampled" in str(found(tokens_at((0, 30, 50)), ends, once, end_sec=30.0).reason)


@pytest.mark.parametrize("late_sec", [0.0, 1e6])
def test_a_steady_state_does_not_depend_on_when_the_clock_began(late_sec: float) -> None:
    """Its span is where it was, and what is too short stays so."""
    tokens, power = tokens_at((0, 120, 50)), constant_power()
    late = PowerSamples(at_sec=np.asarray(power.at_sec) + late_sec, power_w=power.power_w)
    told = {"token_times_sec": tokens + late_sec, "power": [late]}
    steady = find_steady_state(start_sec=late_sec, end_sec=late_sec + 120.0, **told)
    assert steady.span_sec == (late_sec, late_sec + 120.0)
    brief = find_steady_state(start_sec=late_sec, end_sec=late_sec + 20.0, **told)
    assert brief.reason == "no steady state: measured for 20.0 s, less than 30.0 s"


def test_the_rolling_mean_needs_its_own_length() -> None:
    """Less than 10 s are too short for it, however little is asked for."""
    brief = found(tokens_at((0, 9, 50)), constant_power(), end_sec=9.0, min_duration_sec=1.0)
    assert brief.reason == "no steady state: measured for 9.0 s, less than 10.0 s"
    assert found(tokens_at((0, 10, 50)), constant_power(), end_sec=10.0, min_duration_sec=1.0).span_sec


def test_a_restless_run_says_how_long_it_stood_still() -> None:
    """The tolerance, the longest span and what was asked for; nothing at all is 0 s."""
    uneven = found(tokens_at((0, 20, 50), (20, 40, 10), (40, 60, 50)), constant_power(), end_sec=60.0)
    assert uneven.reason is not None
    assert "within 5% for 21.0 s at most, less than 30.0 s" in uneven.reason
    at_sec = np.arange(0.0, 60.05, 0.1)
    nothing = PowerSamples(at_sec=at_sec, power_w=np.zeros(len(at_sec)))
    assert "for 0.0 s at most" in str(found(tokens_at((0, 60, 50)), nothing, end_sec=60.0).reason)


@pytest.mark.parametrize(
    ("row", "run"),
    [
        ([1.0, 3.0], (0, 1)),
        ([1.0, 3.5], (0, 0)),
        ([1.0, 9.0, 1.0], (0, 0)),
        ([9.0, 1.0, 2.0], (1, 2)),
        ([0.0, 1.0], (1, 1)),
        ([-1.0], (0, -1)),
    ],
)
def test_a_run_may_differ_by_the_whole_spread(row: list[float], run: tuple[int, int]) -> None:
    """Three times is within three times; of runs that are equally long the first counts; zero belongs to none."""
    assert longest_run(np.array([row]), spread=3.0) == run


def test_several_devices_are_steady_together() -> None:
    """The sum of their power counts."""
    assert found(tokens_at((0, 120, 50)), constant_power(50.0), constant_power(70.0)).span_sec == (0.0, 120.0)


def brute_force(rows: np.ndarray, spread: float) -> int:
    lengths = [
        last - first + 1
        for first in range(rows.shape[1])
        for last in range(first, rows.shape[1])
        if (rows[:, first : last + 1] > 0).all()
        and (rows[:, first : last + 1].max(axis=1) <= spread * rows[:, first : last + 1].min(axis=1)).all()
    ]
    return max(lengths, default=0)


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_run_is_the_longest(seed: int) -> None:
    """The search finds what trying every run finds."""
    rows = np.random.default_rng(seed).integers(0, 12, size=(2, 25)).astype(float)
    first, last = longest_run(rows, spread=3.0)
    assert last - first + 1 == brute_force(rows, 3.0)
