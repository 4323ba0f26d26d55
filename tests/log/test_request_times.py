"""The times of a request: for each token, for each chunk, or none and why."""

from typing import Any

import msgspec
import pytest

from llem_events.request_events import times_problem
from tests.log.golden.examples import FAILED_REQUEST, REQUEST

GOOD: dict[str, dict[str, Any]] = {
    "a time for each token": {},
    "no tokens": {"output_tokens": 0, "token_times_ns": []},
    "chunks": {"token_times_ns": [], "chunk_times_ns": [1, 2], "chunk_tokens": [1, 1]},
    "one chunk of two": {"token_times_ns": [], "chunk_times_ns": [1], "chunk_tokens": [2]},
    "a chunk nobody counted": {"token_times_ns": [], "chunk_times_ns": [1, 2], "chunk_tokens": [None, 5]},
    "none, and why": {"token_times_ns": [], "times_reason": "not streamed"},
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "fewer times than tokens": ({"token_times_ns": [1]}, "found 1, expected 2"),
    "no times and no reason": ({"token_times_ns": []}, "found 0, expected 2"),
    "two ways": ({"chunk_times_ns": [1], "chunk_tokens": [2]}, "token times and chunk times"),
    "times and a reason": ({"times_reason": "none"}, "expected one of them"),
    "chunks of other lengths": (
        {"token_times_ns": [], "chunk_times_ns": [1], "chunk_tokens": [1, 1]},
        "found 1, expected 2",
    ),
    "chunks of another sum": (
        {"token_times_ns": [], "chunk_times_ns": [1, 2], "chunk_tokens": [1, 2]},
        "found 3, expected 2",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_one_of_three_ways_is_right(name: str) -> None:
    """Each way alone is without a problem."""
    assert times_problem(msgspec.structs.replace(REQUEST, **GOOD[name])) is None


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_named(name: str) -> None:
    """Two ways at once, none, or numbers that do not fit each other are a problem that says what was found."""
    changes, told = BAD[name]
    assert told in str(times_problem(msgspec.structs.replace(REQUEST, **changes)))


def test_a_failed_request_needs_no_times() -> None:
    """What brought no token has no times to give."""
    assert times_problem(FAILED_REQUEST) is None
