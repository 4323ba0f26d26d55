"""Segments that were made to hurt a reader: no exception but ours, no more than 256 MB, no quadratic time."""

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem_events import CorruptError, NewerFormatError, SegmentReader, Verdict, survey
from llem_events.events import SamplesTaken
from llem_events.format import SEGMENT_HEADER_KIND, pack_record
from llem_events.inspection import readable_row
from llem_events.upcast import KNOWN_VERSIONS
from tests.log.forged import forged_raw, hostile_segments, message
from tests.log.segments import read_segment, segment_header, write_segment

LIMIT_MB = 256
HARMLESS = {
    "largest",
    "many_events",
    "no_events",
    "unknown_maps",
    "token_times",
}  # large, but what they claim to be
CHILD = """
import sys
from pathlib import Path
from llem_events import CorruptError, SegmentReader, survey
from llem_events.inspection import readable_row
for path in map(Path, sys.argv[1:]):
    found = survey(path)
    try:
        with SegmentReader(path) as reader:
            for block in reader.blocks():
                for number, envelope in enumerate(reader.events(block)):
                    readable_row(envelope, number)
    except CorruptError:
        pass
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(path.name, int(status["VmHWM"].split()[0]) // 1024, found.verdict, found.misfits)
"""


@pytest.mark.slow
def test_hostile_segments_cost_little_memory(tmp_path: Path) -> None:
    """Surveyed and printed by one process, no hostile segment takes it over 256 MB, and none raises a foreign error."""
    paths = list(hostile_segments(tmp_path))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    lines = [line.split() for line in child.stdout.splitlines()]
    assert [name for name, *_ in lines] == [path.name for path in paths]
    assert max(int(megabytes) for _, megabytes, *_ in lines) < LIMIT_MB, child.stdout
    unharmed = {name for name, _, verdict, misfits in lines if (verdict, misfits) == (Verdict.UNCLOSED, "0")}
    assert unharmed == HARMLESS


def test_a_newer_format_is_not_damage(tmp_path: Path) -> None:
    """A record kind or version of a later llem is told from corruption."""
    path = tmp_path / "a.events.zst"
    write_segment(path, sealed=False)
    whole = path.read_bytes()
    for kind, version in ((b"LLEX", 1), (b"LLEB", 2), (b"LLES", 9)):
        path.write_bytes(whole + pack_record(kind, version, b"new"))
        with SegmentReader(path) as reader, pytest.raises(NewerFormatError):
            list(reader.blocks())
    path.write_bytes(pack_record(SEGMENT_HEADER_KIND, 2, b"new"))
    with pytest.raises(NewerFormatError):
        SegmentReader(path)
    path.write_bytes(whole + pack_record(SEGMENT_HEADER_KIND, 1, msgspec.msgpack.encode(segment_header())))
    with SegmentReader(path) as reader, pytest.raises(CorruptError, match="second"):
        list(reader.blocks())


def read_all(path: Path) -> None:
    """Everything that a program may do with a file of a stranger."""
    survey(path)
    with SegmentReader(path, salvage_damage=True) as reader:
        for block in reader.blocks():
            try:
                events = reader.events(block)
            except CorruptError:
                continue
            for number, envelope in enumerate(events):
                readable_row(envelope, number)


def msgpack_values() -> st.SearchStrategy[object]:
    """Whatever msgpack can hold, small."""
    leaves = (
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4)
        ),
    )


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, int, bytes]:
    """A known event type with a body that has some of its fields, of any types."""
    name, version = draw(st.sampled_from(sorted(KNOWN_VERSIONS)))
    fields = KNOWN_VERSIONS[name, version].__struct_fields__
    body = draw(
        st.dictionaries(st.sampled_from(fields) if fields else st.text(), msgpack_values(), max_size=8)
    )
    return name, version, msgspec.msgpack.encode(body)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    st.lists(bodies() | st.binary(max_size=40).map(lambda body: ("model_melted", 1, body)), max_size=6),
    st.integers(-1, 2),
)
@pytest.mark.slow
def test_any_body_with_valid_digests(events: list[tuple[str, int, bytes]], lie: int) -> None:
    """Bodies of any shape, and counts that lie, raise nothing foreign."""
    with tempfile.TemporaryDirectory() as folder:
        raw = b"".join(message(name, body, version=version) for name, version, body in events)
        read_all(forged_raw(Path(folder) / "a", raw, event_count=max(0, len(events) + lie)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.binary(max_size=100) | msgpack_values().map(msgspec.msgpack.encode),
    st.sampled_from([b"LLEH", b"LLEB", b"LLEX"]),
)
def test_any_header_with_a_valid_crc(fields: bytes, kind: bytes) -> None:
    """Any fields in a record whose CRC is right are refused by an error of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(pack_record(kind, 1, fields))
        with pytest.raises((CorruptError, NewerFormatError)):
            SegmentReader(path)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.integers(0, 40))
def test_any_payload_with_valid_digests(raw: bytes, event_count: int) -> None:
    """Any bytes in the place of events raise nothing foreign."""
    with tempfile.TemporaryDirectory() as folder:
        read_all(forged_raw(Path(folder) / "a", raw, event_count=event_count))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {
            "meter": st.just("m"),
            "device_uuid": st.just("d"),
            "count": st.integers(-1, 70) | st.integers(-(2**63), 2**63),
            "widths": st.binary(max_size=14),
            "lines": st.integers(0, 14).flatmap(
                lambda rows: st.binary(min_size=24 * rows, max_size=24 * rows)
            ),
            "packed": st.binary(max_size=64),
            "missing": st.dictionaries(st.sampled_from(["at_ns", "power_mw", "?"]), st.binary(max_size=9)),
            "columns": st.dictionaries(st.sampled_from(["at_ns", "power_mw", "?"]), st.binary(max_size=64)),
            "null_masks": st.dictionaries(st.sampled_from(["at_ns", "power_mw", "?"]), st.binary(max_size=9)),
        }
    ),
    st.integers(1, SamplesTaken.VERSION),
)
def test_any_columns(body: dict[str, object], version: int) -> None:
    """Columns whose lengths lie are misfits, not foreign errors and not other values."""
    with tempfile.TemporaryDirectory() as folder:
        raw = message("samples_taken", msgspec.msgpack.encode(body), version=version)
        read_all(forged_raw(Path(folder) / "a", raw, event_count=1))


edits = st.tuples(
    st.sampled_from(["cut", "copy", "overwrite"]),
    *[st.floats(0, 1, exclude_max=True)] * 3,
    st.binary(max_size=30),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(edits, min_size=1, max_size=4), st.booleans())
def test_any_edit_of_a_segment(changes: list[tuple[str, float, float, float, bytes]], sealed: bool) -> None:
    """Whatever is cut, copied or overwritten anywhere, no event is accepted that was not written with that number."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        original = dict(enumerate(write_segment(path, sealed=sealed)))
        data = bytearray(path.read_bytes())
        for kind, *places, garbage in changes:
            start, end, target = (int(place * (len(data) + 1)) for place in places)
            start, end = sorted((start, end))
            match kind:
                case "cut":
                    del data[start:end]
                case "copy":
                    data[target:target] = data[start:end]
                case _:
                    data[start : start + len(garbage)] = garbage
        path.write_bytes(data)
        for salvage_damage in (False, True):
            outcome = read_segment(path, salvage_damage=salvage_damage)
            assert all(original[number] == event for number, event in outcome.events.items())
