"""What a writer takes, a reader gives back: no event is written that would be damage where it is read."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem_events import EventError, SegmentWriter, TooLargeError, UnknownEvent, envelope
from llem_events.events import Event, WarningRaised
from llem_events.writer import CLOCK_INTERVAL_NS
from tests.log.golden.examples import EXAMPLES
from tests.log.segments import read_segment, segment_header

ODD = (
    *(sign * (2**bits + step) for bits in (31, 32, 63, 64) for sign in (1, -1) for step in (-1, 0, 1)),
    *(None, True, 0, -1, 10**400, 0.5, float("nan"), float("inf"), -1e308),
    *("", "\ud800", "\0", "x" * 70_000, "hf_" + "a" * 30, b"\xff", [], [[]], {}, {"password": "abc"}, {1: 2}, object()),
)  # fmt: skip


def places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in an event, however deep."""
    if path:
        yield path
    match part:
        case msgspec.Struct():
            inner = {name: getattr(part, name) for name in part.__struct_fields__}
        case dict():
            inner = part
        case list():
            inner = dict(enumerate(part))
        case _:
            return
    for name, item in inner.items():
        yield from places(item, (*path, name))


def changed(part: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """The same with something odd at one place."""
    if not path:
        return odd
    first, rest = path[0], path[1:]
    match part:
        case msgspec.Struct():
            return msgspec.structs.replace(part, **{first: changed(getattr(part, first), rest, odd)})
        case dict():
            return {**part, first: changed(part[first], rest, odd)}
    return [changed(item, rest, odd) if place == first else item for place, item in enumerate(part)]


PLACES = [(event, path) for event in EXAMPLES for path in places(event)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    place=st.sampled_from(range(len(PLACES))),
    odd=st.sampled_from(range(len(ODD))),
    at_ns=st.sampled_from([0, 2**63 - 1, 2**63]),
)
def test_what_is_written_can_be_read(place: int, odd: int, at_ns: int) -> None:
    """Anything at all in any field of any event is refused by an error of ours, or read back as an event of its type."""
    event, path = PLACES[place]
    try:
        message = envelope.pack(changed(event, path, ODD[odd]), at_ns)
    except (EventError, TooLargeError):
        return
    (found,) = envelope.unpack_all(message, 1, offset=0)
    kept: Event | UnknownEvent = envelope.unpack(found)
    assert isinstance(kept, type(event))
    assert b"hf_aaaa" not in message


@pytest.mark.parametrize(("role", "clocks"), [("worker", 1), ("import", 0)])
def test_clocks_are_read_again_when_a_block_is_written_ten_seconds_later(
    tmp_path: Path, role: str, clocks: int
) -> None:
    """Not in an import, whose events happened by other clocks."""
    header = segment_header(role=role, monotonic_ns=time.monotonic_ns() - CLOCK_INTERVAL_NS)
    writer = SegmentWriter(tmp_path / "a", header, sync="close")
    for _ in range(2):
        writer.append(WarningRaised(code="x", text="y"))
        writer.flush()
    writer.seal()
    events = read_segment(tmp_path / "a").events
    assert len(events) == 2 + clocks
