"""From times of tokens to statistics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results import LatencyMeasurements, LatencyStatistics, latency_statistics
from llem.results.latency import SERIES, STATISTICS
from llem_events.events import Request

MS = 1_000_000
values_ms = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=50)


def request(*token_ms: float, end_ms: float = 100.0, **fields: object) -> Request:
    times = [round(1000 * MS + at * MS) for at in token_ms]
    facts: dict[str, object] = {
        "request_id": 0,
        "batch_index": 0,
        "batch_size": 1,
        "arrival_ns": 1000 * MS,
        "start_ns": 1001 * MS,
        "first_token_ns": times[0] if times else None,
        "end_ns": 1000 * MS + round(end_ms * MS),
        "input_tokens": 3,
        "output_tokens": len(times),
        "token_times_ns": times,
        "finish_reason": "length",
    }
    return Request(**facts | fields)  # type: ignore[arg-type]


def test_intervals_are_kept_whole_and_trimmed() -> None:
    """Trimmed leaves out each request's first and last interval; no interval spans two requests."""
    measured = LatencyMeasurements.from_requests([request(10, 12, 15, 19, 24), request(50, 60, 80)])
    assert measured.itl_full_ms == [2.0, 3.0, 4.0, 5.0, 10.0, 20.0]
    assert measured.itl_trimmed_ms == [3.0, 4.0]
    assert measured.excluded_tokens == 4
    assert measured.ttft_ms == [10.0, 50.0]
    assert measured.e2e_ms == [100.0, 100.0]
    assert (measured.request_count, measured.total_output_tokens) == (2, 8)


@pytest.mark.parametrize("token_ms", [(), (5.0,), (5.0, 6.0), (5.0, 6.0, 7.0)])
def test_short_requests_have_no_trimmed_interval(token_ms: tuple[float, ...]) -> None:
    """Up to three tokens there is nothing between the first and the last interval."""
    measured = LatencyMeasurements.from_requests([request(*token_ms), request(10, 11, 13, 16)])
    assert measured.itl_trimmed_ms == [2.0]
    assert len(measured.itl_full_ms) == max(0, len(token_ms) - 1) + 3
    assert len(measured.ttft_ms) == (2 if token_ms else 1)


@pytest.mark.parametrize("finish_reason", ["error", "stopped"])
def test_requests_that_did_not_finish_have_no_latency(finish_reason: str) -> None:
    """Failed and stopped requests are left out of every series."""
    measured = LatencyMeasurements.from_requests([request(1, 2, finish_reason=finish_reason), request(3, 4)])
    assert (measured.ttft_ms, measured.request_count, measured.total_output_tokens) == ([3.0], 1, 2)


def test_no_request_gives_no_value() -> None:
    """Statistics of no process are None; of no value, None with a count of 0."""
    assert latency_statistics([]) is None
    assert latency_statistics([LatencyMeasurements.from_requests([])]) == LatencyStatistics()


@given(st.lists(values_ms, min_size=1, max_size=5))
def test_statistics_are_numpys_over_all_values(parts: list[list[float]]) -> None:
    """Mean, median, percentiles by linear interpolation, smallest and largest of the concatenated values."""
    statistics = latency_statistics([LatencyMeasurements(itl_full_ms=part) for part in parts])
    joined = np.concatenate(parts)
    assert statistics is not None
    assert statistics.itl_mean_ms == pytest.approx(np.mean(joined))
    assert statistics.itl_median_ms == pytest.approx(np.median(joined))
    assert statistics.itl_p95_ms == pytest.approx(np.percentile(joined, 95))
    assert statistics.itl_p99_ms == pytest.approx(np.percentile(joined, 99))
    assert (statistics.itl_min_ms, statistics.itl_max_ms) == (joined.min(), joined.max())
    assert statistics.itl_samples == len(joined)
    assert statistics.ttft_mean_ms is None


def test_itl_is_every_gap_and_itl_trimmed_the_predecessors() -> None:
    """Gaps of 1, 2, 3 and 6 ms: the mean of all is 3, without the first and the last 2.5."""
    statistics = latency_statistics([LatencyMeasurements.from_requests([request(10, 11, 13, 16, 22)])])
    assert statistics is not None
    assert (statistics.itl_mean_ms, statistics.itl_samples) == (3.0, 4)
    assert (statistics.itl_trimmed_mean_ms, statistics.itl_trimmed_samples) == (2.5, 2)


@given(st.lists(st.lists(st.integers(0, 10**12), max_size=8).map(sorted), max_size=6))
def test_intervals_equal_those_taken_request_by_request(streams: list[list[int]]) -> None:
    """One pass over all requests gives what a loop over requests gives."""
    measured = LatencyMeasurements.from_columns(
        arrival_ns=[0] * len(streams),
        first_token_ns=[None] * len(streams),
        end_ns=[0] * len(streams),
        token_times_ns=streams,
        output_tokens=0,
    )
    each = [[interval / MS for interval in np.diff(stream).tolist()] for stream in streams]
    assert measured.itl_full_ms == [value for intervals in each for value in intervals]
    assert measured.itl_trimmed_ms == [value for intervals in each for value in intervals[1:-1]]


def test_statistics_are_those_of_the_series() -> None:
    """Every series has seven fields, and no field is of another."""
    kinds = [*(f"{kind}_ms" for kind in (*STATISTICS, "min", "max")), "samples"]
    listed = [f"{series.name}_{kind}" for series in SERIES for kind in kinds]
    assert list(LatencyStatistics.__struct_fields__) == listed
