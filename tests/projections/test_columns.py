"""Requests as columns: lists of times, groups of rows, laws and gaps, each counted by hand."""

from typing import Any

import numpy as np
import pytest

from llem.projections.derive.columns import Groups, Lists, RequestColumns
from llem.projections.derive.held import HeldRequests
from llem.projections.derive.request_laws import RequestLaws, disordered, negative, within
from llem.projections.derive.request_shares import request_shares
from llem.projections.derive.requests import gaps_ms, token_gaps_ms
from llem.projections.derive.source import Usage
from llem_events.events import Request

MS = 10**6
LISTS = Lists.of([[1, 3], [], [7], [9, 8, 10]])


def test_lists_of_rows() -> None:
    """One after the other, with how long each is."""
    assert LISTS.values.tolist() == [1, 3, 7, 9, 8, 10] and LISTS.lengths.tolist() == [2, 0, 1, 3]
    assert LISTS.ends.tolist() == [2, 2, 3, 6] and LISTS.missing is None
    assert LISTS.ascending.tolist() == [True, True, True, False]
    filled, firsts, lasts = LISTS.edges
    assert (filled.tolist(), firsts.tolist(), lasts.tolist()) == (
        [True, False, True, True],
        [1, 7, 9],
        [3, 7, 10],
    )
    assert LISTS.each(np.add, LISTS.values, empty=-1).tolist() == [4, -1, 7, 27]
    part = LISTS.rows(1, 3)
    assert (part.values.tolist(), part.lengths.tolist()) == ([7], [0, 1])


def test_values_that_are_missing_are_marked() -> None:
    """In a part of the rows too."""
    lists = Lists.of([[1, None], [None, 4]])
    assert lists.missing is not None and lists.missing.tolist() == [False, True, True, False]
    part = lists.rows(1, 2).missing
    assert part is not None and part.tolist() == [True, False]


def test_a_fall_from_one_row_to_the_next_is_none() -> None:
    """Nor are two values that are alike."""
    assert Lists.of([[5, 6], [1, 2], [], [0, 0]]).ascending.all()
    assert Lists.of([[5, 6], [2, 1]]).ascending.tolist() == [True, False]
    assert Lists.of([[], []]).each(np.add, np.empty(0, np.int64), empty=3).tolist() == [3, 3]


def test_rows_of_one_number_are_one() -> None:
    """In whatever order and pieces they come."""
    groups = Groups({"sum": np.add, "least": np.minimum, "most": np.maximum})
    for numbers, values in (([2, 1, 2], [5, 1, 7]), ([], []), ([3, 1], [2, 9])):
        column = np.array(values, np.int64)
        groups.add(np.array(numbers, np.int64), {"sum": column, "least": column, "most": column})
    for _ in range(2):
        numbers, columns = groups.found()
        assert numbers.tolist() == [1, 2, 3]
        assert {name: column.tolist() for name, column in columns.items()} == {
            "sum": [10, 12, 2],
            "least": [1, 5, 2],
            "most": [9, 7, 2],
        }
    numbers, columns = Groups({"sum": np.add}).found()
    assert len(numbers) == len(columns["sum"]) == 0


def request(**changes: Any) -> Request:
    """Of three tokens, a millisecond apart, from 2 ms on."""
    usual: dict[str, Any] = {
        "request_id": 0,
        "batch_index": 0,
        "batch_size": 1,
        "arrival_ns": 0,
        "start_ns": 1,
        "first_token_ns": 2 * MS,
        "end_ns": 5 * MS,
        "input_tokens": 8,
        "output_tokens": 3,
        "token_times_ns": [2 * MS, 3 * MS, 4 * MS],
        "finish_reason": "length",
    }
    return Request(**usual | changes)


CHUNKS = {"token_times_ns": [], "chunk_times_ns": [2 * MS, 4 * MS], "chunk_tokens": [2, 1]}


def test_what_follows_from_the_lists_of_a_request() -> None:
    """Its last token, and how many came at first."""
    untimed = {"token_times_ns": [], "times_reason": "r"}
    columns = RequestColumns.of(
        [request(), request(**CHUNKS), request(**untimed), request(**CHUNKS | {"chunk_tokens": [None, 1]})]
    )
    assert columns.last_token_ns.tolist() == [4 * MS, 4 * MS, None, 4 * MS]
    assert columns.first_chunk_tokens.tolist() == [1, 2, None, None]
    times, tokens = columns.arrivals
    assert times.lengths.tolist() == [3, 2, 0, 2]
    assert times.values.tolist() == [2 * MS, 3 * MS, 4 * MS, 2 * MS, 4 * MS, 2 * MS, 4 * MS]
    assert tokens.tolist() == [1, 1, 1, 2, 1, 1.5, 1]
    assert columns.names_reason.tolist() == [False, False, True, False]
    assert len(columns.rows(1, 3)) == 2 and columns.rows(1, 3).last_token_ns.tolist() == [4 * MS, None]
    assert columns.rows(0, 4) is columns


def test_chunks_of_which_nobody_counted_the_tokens_have_equal_parts() -> None:
    """Three tokens in two."""
    columns = RequestColumns.of([request(**CHUNKS | {"chunk_tokens": []})])
    assert columns.arrivals[1].tolist() == [1.5, 1.5]


@pytest.mark.parametrize(
    "change",
    [
        {"input_tokens": -1},
        {"output_tokens": -1},
        {"batch_size": 0},
        {"batch_index": -1},
        {"tokens_computed": -1},
        {**CHUNKS, "chunk_tokens": [4, -1]},
    ],
    ids=str,
)
def test_counts_below_what_can_be(change: dict[str, Any]) -> None:
    """A request of none of these is as it should be, also with a count that nobody told."""
    fine = [
        request(input_tokens=0, output_tokens=0, tokens_computed=0),
        request(**CHUNKS | {"chunk_tokens": [None, 0]}),
    ]
    assert negative(RequestColumns.of([*fine, request(**change)])).tolist() == [False, False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"arrival_ns": 2},
        {"end_ns": 0, "token_times_ns": [], "first_token_ns": None},
        {"first_token_ns": 0},
        {"first_token_ns": 5 * MS + 1, "token_times_ns": []},
        {"token_times_ns": [2 * MS, 4 * MS, 3 * MS]},
        {"token_times_ns": [2 * MS + 1, 3 * MS]},
        {"token_times_ns": [2 * MS, 5 * MS + 1]},
        {"first_token_ns": None},
        {**CHUNKS, "chunk_times_ns": [4 * MS, 2 * MS]},
        {**CHUNKS, "chunk_times_ns": [0, 4 * MS]},
        {**CHUNKS, "chunk_times_ns": [2 * MS, 5 * MS + 1]},
    ],
    ids=str,
)
def test_a_time_before_one_that_it_follows(change: dict[str, Any]) -> None:
    """All at one moment are in order."""
    at_once = dict.fromkeys(("arrival_ns", "start_ns", "first_token_ns", "end_ns"), 7)
    fine = [
        request(),
        request(**CHUNKS),
        request(**at_once, token_times_ns=[7, 7, 7]),
        request(**at_once | CHUNKS | {"chunk_times_ns": [7, 7]}),
        request(first_token_ns=None, token_times_ns=[]),
    ]
    found = disordered(RequestColumns.of([*fine, request(**change)]))
    assert found.tolist() == [False] * 5 + [True]


def test_a_request_lies_within_one_span() -> None:
    """Its ends may be the span's; two spans that touch do not make one."""
    columns = RequestColumns.of([request()])
    assert within(columns, [(0, 5 * MS)]).tolist() == [True]
    for spans in ([(1, 5 * MS)], [(0, 5 * MS - 1)], [(0, 3 * MS), (3 * MS, 9 * MS)], []):
        assert within(columns, spans).tolist() == [False]


def test_laws_count_over_pieces() -> None:
    """Batches too, whose requests may come in two pieces."""
    laws = RequestLaws([(0, 5 * MS)])
    pair = {"batch_index": 1, "batch_size": 2}
    laws.add(RequestColumns.of([request(), request(**pair), request(batch_index=2, batch_size=2)]))
    failed = request(**pair, finish_reason="error", error="e")
    odd = request(batch_index=3, error="e", end_ns=6 * MS)
    laws.add(
        RequestColumns.of([failed, odd, request(batch_index=4, input_tokens=-1, token_times_ns=[2 * MS])])
    )
    counts = laws.counts()
    assert (counts.requests, counts.failed_requests, counts.batches, counts.unequal_batches) == (6, 1, 5, 1)
    assert (counts.contradictory, counts.outside, counts.negative, counts.mistimed) == (1, 1, 1, 1)
    assert (counts.input_tokens, counts.output_tokens, counts.disordered) == (39, 18, 0)


def test_gaps_between_tokens_of_one_request() -> None:
    """Each request's first and last apart from the others; of finished requests, none from one to the next."""
    lists = Lists.of([[0, 1 * MS, 3 * MS, 6 * MS], [50 * MS], [], [100 * MS, 107 * MS], [200 * MS, 211 * MS]])
    finished = np.array([True, True, True, True, False])
    inner, outer = token_gaps_ms(lists, finished)
    assert (inner.tolist(), outer.tolist()) == ([2.0], [1.0, 3.0, 7.0])
    assert gaps_ms(lists, finished).tolist() == [1.0, 2.0, 3.0, 7.0]
    assert gaps_ms(lists, ~finished).tolist() == [11.0]
    none = Lists.of([])
    assert [each.tolist() for each in token_gaps_ms(none, np.empty(0, bool))] == [[], []]


def test_what_a_server_says_of_tokens() -> None:
    """Of requests that did not fail; none where it never said it."""
    told = {"usage_output_tokens": 4, "usage_input_tokens": 9}
    failed = {"finish_reason": "error", "error": "e", "cached_input_tokens": 2}
    requests = [request(**told, cached_input_tokens=5), request(), request(**told, **failed)]
    assert HeldRequests([(0, "measurement", requests)]).usage() == Usage(
        streamed_output_tokens=6,
        counted_output_tokens=3,
        output_tokens=4,
        input_tokens=9,
        cached_input_tokens=7,
    )
    assert HeldRequests([(0, "measurement", [request()])]).usage() == Usage(streamed_output_tokens=3)
    assert HeldRequests([(0, "warmup", requests)]).usage() == Usage(streamed_output_tokens=0)


def test_requests_of_a_measurement_are_found_by_their_events() -> None:
    """Those of a warm-up are only counted."""
    held = HeldRequests(
        [
            (3, "warmup", [request(request_id=90)] * 2),
            (5, "measurement", [request(request_id=1), request(request_id=2)]),
            (6, "measurement", []),
            (8, "measurement", [request(request_id=3, end_ns=9 * MS)]),
        ]
    )
    sizes = held.sizes()
    assert (sizes.event_numbers.tolist(), sizes.values.tolist(), sizes.warmup_requests) == ([5, 8], [8, 4], 2)
    assert held.ids.tolist() == [1, 2, 3]
    assert [len(held.of_events(first, last)) for first, last in ((5, 5), (5, 8), (6, 7), (0, 4), (8, 9))] == [
        2,
        3,
        0,
        0,
        1,
    ]
    assert (
        held.last_end_ns("measurement", 9 * MS) == 9 * MS
        and held.last_end_ns("measurement", 9 * MS + 1) is None
    )
    assert held.last_end_ns("warmup", 0) == 5 * MS


def test_without_an_energy_or_in_several_spans_there_are_no_shares() -> None:
    """Nobody is asked for requests then."""
    assert request_shares(None, [(0, 1)], [], []) is None  # type: ignore[arg-type]
