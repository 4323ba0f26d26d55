"""From times of tokens to statistics."""

from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results import LatencyMeasurements, LatencyStatistics, latency_statistics
from llem.results.latency import (
    INTERVALS,
    OF_REQUEST,
    SERIES,
    STATISTICS,
    WITH_INTERVALS,
    LatencyValues,
    joined,
)
from llem.results.percentiles import Pieces, interval_ranks
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
    values = np.concatenate(parts)
    assert statistics is not None
    assert statistics.itl_mean_ms == pytest.approx(np.mean(values))
    assert statistics.itl_median_ms == pytest.approx(np.median(values))
    assert statistics.itl_p95_ms == pytest.approx(np.percentile(values, 95))
    assert statistics.itl_p99_ms == pytest.approx(np.percentile(values, 99))
    assert (statistics.itl_min_ms, statistics.itl_max_ms) == (values.min(), values.max())
    assert statistics.itl_samples == len(values)
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
    assert measured.warmup_requests_excluded == 0


def test_statistics_are_those_of_the_series() -> None:
    """Every series has seven fields, some percentiles an interval, and no other field is of a series."""
    kinds = [*(f"{kind}_ms" for kind in (*STATISTICS, "min", "max")), "samples"]
    listed = [f"{series.name}_{kind}" for series in SERIES for kind in kinds]
    ends = [
        f"{name}_{statistic}_{end}_ms"
        for name in WITH_INTERVALS
        for statistic in INTERVALS
        for end in ("low", "high")
    ]
    means = ["batch_means_cv", "batch_means_lag1"]
    assert list(LatencyStatistics.__struct_fields__) == listed + ends + means


@pytest.mark.parametrize("column", ["first_token_ns", "end_ns"])
def test_columns_of_other_lengths_are_an_error(column: str) -> None:
    """A request without one of its times is nobody's."""
    columns = {"arrival_ns": [0, 1], "first_token_ns": [1, 2], "end_ns": [2, 3], "token_times_ns": [[], []]}
    with pytest.raises(ValueError, match=r"longer|shorter"):
        LatencyMeasurements.from_columns(**columns | {column: [5]}, output_tokens=0)


@pytest.mark.parametrize("reason", ["length", "eos", "finished", "error", "odd"])
def test_a_request_that_ran_to_its_end_has_latencies(reason: str) -> None:
    """Whether it was as long as was asked, or its model or its server ended it."""
    measured = LatencyMeasurements.from_requests([request(10, 11, 13, finish_reason=reason)])
    assert measured.request_count == len(measured.e2e_ms) == (reason in ("length", "eos", "finished"))


def values_of(*requests: Request) -> LatencyValues:
    """The values of these requests as a table would give them."""
    raw = LatencyMeasurements.from_requests(requests)
    inner, outer = list(raw.itl_trimmed_ms), list(raw.itl_full_ms)
    for gap in inner:
        outer.remove(gap)
    return LatencyValues(
        requests=len(raw.e2e_ms),
        outer_gaps=len(outer),
        of_request_ms=dict.fromkeys(OF_REQUEST, pieces())
        | {"ttft": pieces(raw.ttft_ms), "e2e": pieces(raw.e2e_ms)},
        inner_gaps_ms=pieces(inner),
        outer_gaps_ms=pieces(outer),
        chunk_gaps_ms=pieces(),
        e2e_of_processes_ms=[pieces(raw.e2e_ms)],
    )


def pieces(*parts: Sequence[float]) -> Pieces:
    """Values that can be walked as often as one likes."""
    return partial(iter, [np.array(part, np.float64) for part in parts])


FIRST, SECOND = request(10, 11, 13, 16, 22), request(5, 9, 17, end_ms=40.0)


def test_values_in_pieces_have_the_statistics_of_their_requests() -> None:
    """Whether values are kept as lists or come in pieces, of one process or of two, the figures are the same."""
    raw = [LatencyMeasurements.from_requests([one]) for one in (FIRST, SECOND)]
    whole = latency_statistics(raw)
    assert values_of(FIRST, SECOND).statistics() == whole
    assert joined([values_of(FIRST), values_of(SECOND)]).statistics() == whole
    assert joined([values_of(FIRST), values_of()]).statistics() == latency_statistics(raw[:1])


def test_between_chunks_is_what_is_between_tokens_and_between_larger_pieces() -> None:
    """Where every piece was a token, both are the same."""
    tokens = msgspec.structs.replace(
        values_of(FIRST, SECOND), of_request_ms=dict.fromkeys(OF_REQUEST, pieces([3.0, 5.0]))
    )
    plain = tokens.statistics()
    for name in ("mean", "median", "p95", "p99", "min", "max"):
        assert getattr(plain, f"inter_chunk_{name}_ms") == getattr(plain, f"itl_{name}_ms") is not None
    found = msgspec.structs.replace(tokens, chunk_gaps_ms=pieces([10.0], [20.0])).statistics()
    gaps_ms = [*LatencyMeasurements.from_requests([FIRST, SECOND]).itl_full_ms, 10.0, 20.0]
    assert (found.inter_chunk_samples, found.inter_chunk_max_ms) == (len(gaps_ms), 20.0)
    assert found.inter_chunk_mean_ms == pytest.approx(np.mean(gaps_ms))
    assert (found.itl_samples, found.itl_max_ms) == (plain.itl_samples, plain.itl_max_ms) == (6, 8.0)


def test_measurements_of_values_keep_counts_and_statistics() -> None:
    """The values stay where they are; means come from the statistics, as they come from values where these are kept."""
    kept = LatencyMeasurements.of_values(
        values_of(FIRST, SECOND), output_tokens=8, warmup_requests_excluded=3
    )
    assert (kept.request_count, kept.total_output_tokens, kept.excluded_tokens) == (2, 8, 4)
    assert (kept.warmup_requests_excluded, kept.ttft_ms, kept.itl_full_ms) == (3, [], [])
    raw = LatencyMeasurements.from_requests([FIRST, SECOND])
    assert (kept.ttft_mean_ms, kept.e2e_mean_ms) == (raw.ttft_mean_ms, raw.e2e_mean_ms) == (7.5, 70.0)
    assert (LatencyMeasurements().ttft_mean_ms, LatencyMeasurements().e2e_mean_ms) == (None, None)


def test_statistics_of_several_processes_have_what_can_be_joined() -> None:
    """Means by their counts, extremes, counts; percentiles of two sets of values cannot be known from theirs."""
    own = LatencyMeasurements.of_values(values_of(FIRST), output_tokens=5, warmup_requests_excluded=0)
    raw, none = (
        LatencyMeasurements.from_requests([SECOND]),
        LatencyMeasurements(statistics=LatencyStatistics()),
    )
    assert latency_statistics([own]) == own.statistics
    both = latency_statistics([own, raw, none])
    assert both is not None
    assert (both.itl_mean_ms, both.itl_min_ms, both.itl_max_ms, both.itl_samples) == (4.0, 1.0, 8.0, 6)
    assert (both.itl_trimmed_mean_ms, both.itl_trimmed_samples) == (2.5, 2)
    assert (both.e2e_mean_ms, both.e2e_min_ms, both.e2e_max_ms, both.e2e_samples) == (70.0, 40.0, 100.0, 2)
    assert both.itl_median_ms is both.itl_p95_ms is both.itl_p99_ms is None
    assert latency_statistics([none, none]) == LatencyStatistics()


def of_lengths(lengths_ms: Sequence[float]) -> LatencyMeasurements:
    """Requests that took so long, one after the other."""
    return LatencyMeasurements(ttft_ms=list(lengths_ms), e2e_ms=list(lengths_ms))


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        (0, "p95 needs 59, p99 needs 299 requests, found 0"),
        (58, "p95 needs 59, p99 needs 299 requests, found 58"),
        (59, "p99 needs 299 requests, found 59"),
        (298, "p99 needs 299 requests, found 298"),
        (299, None),
    ],
)
def test_a_percentile_has_an_interval_where_there_are_enough_requests(
    requests: int, reason: str | None
) -> None:
    """Else none, and the reason."""
    found = latency_statistics([of_lengths(range(requests, 0, -1))])
    assert found is not None
    assert found.interval_reason == reason
    for name in WITH_INTERVALS:
        low, p95, high = (getattr(found, f"{name}_p95{end}_ms") for end in ("_low", "", "_high"))
        assert (low is None, high is None) == (requests < 59,) * 2
        assert requests < 59 or low < p95 < high
        assert (getattr(found, f"{name}_p99_low_ms") is None) == (requests < 299)


def test_intervals_are_the_values_at_their_ranks() -> None:
    """Of values in any order and in pieces."""
    lengths = np.random.default_rng(3).permutation(1_000) + 1.0
    found = latency_statistics([of_lengths(part.tolist()) for part in np.split(lengths, [300])])
    assert found is not None
    assert (found.e2e_p95_low_ms, found.e2e_p95_high_ms) == tuple(
        rank + 1 for rank in interval_ranks(1_000, 0.95) or ()
    )
    assert (found.ttft_p99_low_ms, found.ttft_p99_high_ms) == tuple(
        rank + 1 for rank in interval_ranks(1_000, 0.99) or ()
    )


def test_batch_means_are_of_each_process_in_its_order() -> None:
    """Two processes that slow down alike are one run that does, not one that falls back in its middle."""
    slower = [100.0 + number for number in range(50)]
    alone, both = (latency_statistics([of_lengths(slower)] * processes) for processes in (1, 2))
    assert alone is not None
    assert both is not None
    assert (both.batch_means_cv, both.batch_means_lag1) == (alone.batch_means_cv, alone.batch_means_lag1)
    assert (alone.batch_means_lag1 or 0) > 0.5
