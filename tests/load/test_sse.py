"""Server-sent events: the same data however the bytes are cut, as the standard of WHATWG says."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem.load import sse
from llem.load.http1 import AnswerError
from llem.load.sse import EventParser

LINE_ENDS = ("\n", "\r\n", "\r")
# what may stand in a line: no end of a line, and no byte order mark at its start
LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


def fed(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Data of the events of a stream that comes in pieces."""
    parser, found, edges = EventParser(), [], [0, *sorted(cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        found += parser.feed(stream[start:end])
    return found + parser.end()


def written(events: list[list[tuple[str, str]]], newline: str) -> bytes:
    """The events as bytes: fields with or without a space after the colon, comments have no name."""
    lines = [f"{field}:{text}{newline}" for event in events for field, text in [*event, ("", "end")]]
    text = "".join(lines).replace(f":end{newline}", newline)
    return text.encode()


def expected(events: list[list[tuple[str, str]]]) -> list[bytes]:
    """The data of each event that has some, without one space after the colon, its lines joined."""
    data = [[text.removeprefix(" ") for field, text in event if field == "data"] for event in events]
    return ["\n".join(lines).encode() for lines in data if lines]


EVENTS = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["data", "data", "data", "", "event", "id", "retry"]), LINES).filter(
            lambda field: field != ("", "end")
        ),
        min_size=1,
        max_size=4,
    ),
    max_size=5,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    events=EVENTS,
    newline=st.sampled_from(LINE_ENDS),
    cuts=st.lists(st.integers(0, 400), max_size=30),
    has_mark=st.booleans(),
)
def test_events_are_the_same_however_they_are_cut(
    events: list[list[tuple[str, str]]], newline: str, cuts: list[int], has_mark: bool
) -> None:
    """Comments, other fields, several lines of data, letters of several bytes, a byte order mark, any end of a line."""
    stream = (b"\xef\xbb\xbf" if has_mark else b"") + written(events, newline)
    assert fed(stream, [min(cut, len(stream)) for cut in cuts]) == expected(events)


@pytest.mark.parametrize("newline", LINE_ENDS)
def test_every_single_cut_gives_the_same(newline: str) -> None:
    """Byte by byte through two events in which letters and ends of lines can be cut."""
    stream = written([[("", "ping"), ("data", " ¿日本🙂")], [("data", "a"), ("data", " b")]], newline)
    for cut in range(len(stream) + 1):
        assert fed(stream, [cut]) == ["¿日本🙂".encode(), b"a\nb"]
    assert fed(stream, list(range(len(stream)))) == ["¿日本🙂".encode(), b"a\nb"]


def test_an_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    """Not with the next read: its time would be wrong."""
    parser = EventParser()
    assert parser.feed(b"data: 1\n\ndata: 2") == [b"1"]
    assert parser.feed(b"\n\n") == [b"2"]
    assert parser.feed(b"data: 3\r\n") == []
    assert parser.feed(b"\r\n") == [b"3"]


def test_the_last_event_may_lack_its_blank_line() -> None:
    """Some servers close right after it."""
    assert fed(b"data: 1\n\ndata: [DONE]", []) == [b"1", b"[DONE]"]
    assert fed(b"data: [DONE]\r\n", []) == [b"[DONE]"]


def test_a_large_event_is_whole() -> None:
    """One MiB in reads of 1,400 bytes."""
    data = b"x" * 2**20
    stream = b"data: " + data + b"\n\n"
    assert fed(stream, list(range(0, len(stream), 1_400))) == [data]


def test_an_event_without_an_end_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whatever a server sends."""
    parser = EventParser()
    with pytest.raises(AnswerError, match="an event of more than 67108864 bytes"):
        for _ in range(sse.MAX_EVENT_BYTES // 2**22 + 1):
            parser.feed(b"x" * 2**22)
