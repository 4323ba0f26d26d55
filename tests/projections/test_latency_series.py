"""Latencies by the definitions of the field, of streams whose times are known to the nanosecond."""

from typing import Any

import numpy as np
import pytest

from llem.projections.derive.columns import RequestColumns
from llem.projections.derive.requests import gaps_ms
from llem.results.latency import OF_REQUEST
from llem.units import NS_PER_MS
from llem_events.events import Request


def _request(request_id: int = 0, **about: Any) -> Request:
    times: dict[str, Any] = {"arrival_ns": 0, "start_ns": 0, "end_ns": 2_000 * NS_PER_MS}
    counts = {"batch_index": request_id, "batch_size": 1, "input_tokens": 8, "output_tokens": 0}
    return Request(request_id=request_id, finish_reason="length", **times | counts | about)


def _chunks(times_ms: list[int], tokens: list[int | None], **about: Any) -> Request:
    known = [count for count in tokens if count is not None]
    defaults = {"output_tokens": sum(known), "first_token_ns": times_ms[0] * NS_PER_MS}
    times_ns = [moment * NS_PER_MS for moment in times_ms]
    return _request(**defaults | {"chunk_times_ns": times_ns, "chunk_tokens": tokens} | about)


def _series(*requests: Request) -> dict[str, list[float | None]]:
    """Milliseconds of each request by each definition."""
    columns = RequestColumns.of(requests)
    return {
        name: [
            None if value is None else value / NS_PER_MS
            for value in np.ma.asarray(of_request(*map(columns.number, needed))).tolist()
        ]
        for name, (needed, of_request) in OF_REQUEST.items()
    }


def test_four_tokens_a_chunk_after_a_long_prefill() -> None:
    """The truth of this stream is 200 ms to the first token and 5 ms a token; each definition says what it says."""
    chunk_times_ms = [200 + 20 * number for number in range(32)]
    request = _chunks(chunk_times_ms, [4] * 32, start_ns=3 * NS_PER_MS, end_ns=820 * NS_PER_MS)
    series = {name: values[0] for name, values in _series(request).items()}
    assert series["ttft"] == 200 and series["ttft_sent"] == 197
    assert series["itl_aiperf"] == pytest.approx(620 / 124)
    assert series["tpot_vllm"] == pytest.approx(620 / 127)
    assert series["tpot_guidellm"] == pytest.approx(817 / 128)
    assert series["e2e"] == 820 and series["e2e_sent"] == 817


def test_one_token_has_no_time_between_tokens() -> None:
    """Nor has an answer without any."""
    one = _request(output_tokens=1, first_token_ns=5 * NS_PER_MS, token_times_ns=[5 * NS_PER_MS])
    series = _series(one, _request(1))
    assert series["tpot_vllm"] == series["itl_aiperf"] == [None, None]
    assert series["tpot_guidellm"] == [5, None]
    assert series["ttft"] == [5, None]


def test_tokens_with_times_of_their_own_count_one_by_one() -> None:
    """All definitions that leave out the first token agree on them."""
    times_ns = [moment * NS_PER_MS for moment in (10, 20, 40)]
    series = _series(_request(output_tokens=3, first_token_ns=times_ns[0], token_times_ns=times_ns))
    assert series["tpot_vllm"] == series["itl_aiperf"] == [15]


def test_a_first_chunk_of_unknown_size_is_left_out_where_it_matters() -> None:
    """How many tokens came at first is what only one of the definitions asks for."""
    series = _series(
        _chunks([10, 30], [None, 2], output_tokens=5), _chunks([10, 30], [3, None], output_tokens=5)
    )
    assert series["itl_aiperf"] == [None, 10]
    assert series["tpot_vllm"] == [5, 5]


def test_gaps_between_chunks_are_those_of_one_request() -> None:
    """None goes from one request to the next, and requests that were not asked for have none."""
    columns = RequestColumns.of(
        [_chunks([1, 3], [1, 2]), _request(), _chunks([4, 9, 10], [1, 1, 1]), _chunks([20], [1])]
    )
    every = np.ones(4, np.bool_)
    assert gaps_ms(columns.chunk_times_ns, every).tolist() == [2, 5, 1]
    assert gaps_ms(columns.chunk_times_ns, np.array([True, True, False, True])).tolist() == [2]
    assert gaps_ms(RequestColumns.of([_request()]).chunk_times_ns, np.ones(1, np.bool_)).tolist() == []
