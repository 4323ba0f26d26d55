"""A batch of any size fits into events."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llem.measure.workload import MAX_TOKENS_PER_EVENT, portions
from llem_events.events import RequestsCompleted
from llem_events.records import Request


def request(request_id: int, output_tokens: int) -> Request:
    return Request(
        request_id=request_id, batch_index=0, batch_size=1, arrival_ns=0, start_ns=0, end_ns=0,
        input_tokens=1, output_tokens=output_tokens, finish_reason="length",
    )  # fmt: skip


@given(st.lists(st.integers(0, MAX_TOKENS_PER_EVENT), min_size=1, max_size=12))
def test_portions_keep_every_request_in_order(lengths: list[int]) -> None:
    """No request is lost, none moved, and no part has more tokens than an event holds."""
    requests = [request(number, length) for number, length in enumerate(lengths)]
    parts = list(portions(requests))
    assert [each for part in parts for each in part] == requests
    assert all(sum(each.output_tokens for each in part) <= MAX_TOKENS_PER_EVENT for part in parts)
    assert all(parts)


def test_the_largest_portion_fits_into_one_event() -> None:
    """A part full of tokens, each with the longest possible time, is smaller than the event's cap."""
    times = [2**63 + number for number in range(MAX_TOKENS_PER_EVENT)]
    full = msgspec.structs.replace(request(0, len(times)), token_times_ns=times)
    assert (
        len(msgspec.msgpack.encode(RequestsCompleted(window="measurement", requests=[full])))
        < RequestsCompleted.MAX_BYTES
    )
