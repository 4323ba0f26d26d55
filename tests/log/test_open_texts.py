"""Texts that name a kind of something: any is read, and one that is not known makes a log newer, never corrupt."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem_events import (
    SCHEMA_VERSION,
    NewerFormatError,
    SegmentReader,
    SegmentWriter,
    UnknownText,
    Verdict,
    check_known,
    survey,
    texts,
    unknown_text,
)
from llem_events.events import Event
from llem_events.replay import replay
from llem_events.texts import ROLES
from tests.log.golden.examples import EXAMPLES
from tests.log.segments import segment_header

OPEN = {
    ("process_started", "kind"): "device kind",
    ("meter_started", "kind"): "device kind",
    ("meter_started", "energy_source"): "energy source",
    ("meter_started", "power_kind"): "power kind",
    ("window_opened", "kind"): "window kind",
    ("window_closed", "kind"): "window kind",
    ("baseline_measured", "position"): "baseline position",
    ("model_loaded", "weights"): "kind of weights",
    ("requests_completed", "window"): "window kind",
    ("requests_completed", "finish_reason"): "finish reason",
}


def with_text(event: Event, field: str, text: str) -> Event:
    """The event with every field of this name, however deep, set to `text`."""
    changed: Event = msgspec.convert(_replaced(msgspec.to_builtins(event), field, text), type(event))
    return changed


def _replaced(part: Any, field: str, text: str) -> Any:
    match part:
        case dict():
            return {key: text if key == field else _replaced(item, field, text) for key, item in part.items()}
        case list():
            return [_replaced(item, field, text) for item in part]
    return part


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    place=st.sampled_from(sorted(OPEN)),
    text=st.text(max_size=40),
    role=st.text(max_size=20) | st.just("worker"),
)
def test_any_text_is_read_and_is_never_corruption(place: tuple[str, str], text: str, role: str) -> None:
    """A segment with any text in any open place is whole; where the text is not known, replaying says that the log is newer."""
    event_type, field = place
    example = next(event for event in EXAMPLES if event_type == event.TYPE)
    event = with_text(example, field, text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.events.zst"
        writer = SegmentWriter(path, segment_header(role=role), sync="close")
        writer.append(event)
        writer.seal()
        found = survey(path)
        assert (found.verdict, found.misfits, found.events) == (Verdict.CLEAN, 0, 1)
        with SegmentReader(path) as reader:
            if unknown_text(event) is None and role in ROLES:
                assert [occurrence.event for occurrence in replay(reader)] == [event]  # type: ignore[union-attr]
                return
            with pytest.raises(NewerFormatError, match="upgrade llem"):
                list(replay(reader))


@pytest.mark.parametrize("place", sorted(OPEN), ids="-".join)
def test_the_unknown_text_is_named(place: tuple[str, str]) -> None:
    """Every open text is looked at: one of a later llem is found and named, today's are known."""
    event_type, field = place
    example = next(event for event in EXAMPLES if event_type == event.TYPE)
    assert unknown_text(example) is None
    assert unknown_text(with_text(example, field, "quantum")) == UnknownText(OPEN[place], "quantum")


def test_roles_of_later_segments_are_known() -> None:
    """Segments of a load client, a server, a study or a note are not newer; any other role is."""
    assert {"load", "server", "study", "note"} < ROLES
    for role in ROLES:
        check_known(segment_header(role=role))
    with pytest.raises(NewerFormatError, match="role 'judge'"):
        check_known(segment_header(role="judge"))


def test_every_text_that_was_ever_written_is_known() -> None:
    """A log of any earlier llem holds only these; more may be known."""
    written = {
        "ROLES": "supervisor rank worker sampler import load server study note",
        "WINDOW_KINDS": "baseline warmup measurement drain guard",
        "DEVICE_KINDS": "gpu mig cpu_package dram process simulated wall",
        "ENERGY_SOURCES": "counter integrated estimated simulated",
        "POWER_KINDS": "instant average derived",
        "FINISH_REASONS": "length eos finished stopped error",
        "BASELINE_POSITIONS": "before after server_idle",
        "WEIGHTS": "pretrained random simulated unknown",
    }
    for name, words in written.items():
        assert set(words.split()) <= getattr(texts, name), name


def test_a_later_schema_is_newer() -> None:
    """A header of a later schema version says so, with both versions."""
    check_known(segment_header(schema_version=SCHEMA_VERSION))
    with pytest.raises(NewerFormatError, match="found 99, expected at most"):
        check_known(segment_header(schema_version=99))
