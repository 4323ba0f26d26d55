"""Requests become events that fit their cap, whatever they hold; none is lost, and what is left out is named."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem_events import envelope
from llem_events.events import Request, RequestsCompleted
from llem_events.request_events import requests_completed, times_problem
from tests.log.golden.examples import REQUEST

LATEST_NS = 2**63 - 1  # takes the most bytes


def request(request_id: int, tokens: int, *, chunks: int = 0, output: str = "") -> Request:
    """A request with a time for each token or chunk, each as long as a time can be."""
    times = [LATEST_NS] * (chunks or tokens)
    kept = {"chunk_times_ns": times, "chunk_tokens": [None] * chunks} if chunks else {"token_times_ns": times}
    return msgspec.structs.replace(
        REQUEST,
        **{"request_id": request_id, "output_tokens": tokens, "token_times_ns": [], "output": output, **kept},
    )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=8))
def test_events_keep_every_request_in_order(lengths: list[int]) -> None:
    """No request is lost, none moved or changed, and every event can be written."""
    requests = [request(number, length) for number, length in enumerate(lengths)]
    events = list(requests_completed(requests, window="measurement"))
    assert [each for event in events for each in event.requests] == requests
    for event in events:
        assert len(envelope.pack(event, 0)) <= RequestsCompleted.MAX_BYTES


def test_an_event_is_filled_to_half_its_cap() -> None:
    """Of requests of 900 kB four go together, of small ones all."""
    large = [request(number, 100_000) for number in range(10)]
    small = [request(number, 2) for number in range(100)]
    lengths = [
        [len(event.requests) for event in requests_completed(requests, window="measurement")]
        for requests in (large, small, [])
    ]
    assert lengths == [[4, 4, 2], [100], []]


def test_every_event_has_room_for_as_much() -> None:
    """Two requests that just fit into the first just fit into the next; with a character more, none does."""
    large = [request(number, 200_000) for number in range(6)]

    def together(characters: int) -> list[int]:
        longer = [msgspec.structs.replace(each, output="x" * characters) for each in large]
        return [len(event.requests) for event in requests_completed(longer, window="measurement")]

    fits, too_long = 0, 100_000
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if together(middle)[0] > 1 else (fits, middle)
    assert together(fits) == [2, 2, 2]
    assert together(too_long) == [1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("chunks", [0, 1_000_000])
def test_a_request_that_fits_into_no_event_keeps_its_counts(chunks: int) -> None:
    """Of a million tokens only the times are left out, with how many there were; the request and its neighbours stay."""
    large = request(1, 1_000_000, chunks=chunks)
    events = list(requests_completed([request(0, 2), large, request(2, 2)], window="measurement"))
    kept = [each for event in events for each in event.requests]
    assert [each.request_id for each in kept] == [0, 1, 2]
    assert (kept[1].output_tokens, kept[1].token_times_ns, kept[1].chunk_times_ns) == (1_000_000, [], [])
    assert kept[1].times_reason == "1000000 times do not fit into one event"
    assert [times_problem(each) for each in kept] == [None, None, None]
    assert all(len(envelope.pack(event, 0)) <= RequestsCompleted.MAX_BYTES for event in events)


@pytest.mark.parametrize("beyond", [0, 1, 7_000, 14_000])
def test_a_request_keeps_its_times_up_to_the_cap(beyond: int) -> None:
    """But for 64 KiB, and for what its names, numbers and texts may take; an event of it can be written, however little is beyond."""
    of_texts = 6 * len(f"{REQUEST.prompt}{REQUEST.finish_reason}")
    most = (RequestsCompleted.MAX_BYTES - 2**16 - 600 - of_texts) // 9
    (event,) = requests_completed([request(0, most + beyond)], window="measurement")
    assert len(event.requests[0].token_times_ns) == (0 if beyond else most)
    assert len(envelope.pack(event, 0)) <= RequestsCompleted.MAX_BYTES


def test_a_text_that_fits_into_no_event_is_cut() -> None:
    """Ten million characters of output end with how many there were."""
    (event,) = requests_completed([request(0, 2, output="µ" * 10_000_000)], window="warmup")
    kept = (RequestsCompleted.MAX_BYTES - 2**16) // 6 // 6 - 100
    assert str(event.requests[0].output) == f"{'µ' * kept} ... (cut, 10000000 characters)"
    assert len(envelope.pack(event, 0)) <= RequestsCompleted.MAX_BYTES
