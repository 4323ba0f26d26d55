"""Every limit of the format: what is just at it is written and read, one more is refused."""

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from llem_events import Envelope, EventError, SegmentReader, TooLargeError, Verdict, envelope, unpack
from llem_events.damage import Searcher
from llem_events.errors import CorruptError
from llem_events.events import (
    EVENT_TYPES,
    Event,
    ExperimentStarted,
    RequestsCompleted,
    ResultImported,
    SamplesTaken,
)
from llem_events.format import (
    BLOCK_TARGET_BYTES,
    BLOCK_TARGET_NS,
    MAX_COMPRESSED_BLOCK_BYTES,
    MAX_EVENTS_PER_BLOCK,
    MAX_HEADER_BYTES,
    MAX_RAW_BLOCK_BYTES,
    MAX_ZSTD_WINDOW_BYTES,
    check_record,
    pack_block,
    pack_header,
    pack_record,
    unpack_block_header,
    unpack_header,
)
from llem_events.writer import CLOCK_INTERVAL_NS, RESERVE_BYTES
from tests.log.golden.examples import REQUEST
from tests.log.segments import SEGMENT_ID, read_segment, segment_header, write_segment

FORMAT = (Path(__file__).parents[2] / "events" / "FORMAT.md").read_text("utf-8")
KIB, MIB = 2**10, 2**20
PREFIX_BYTES = 20
SIZES = {
    "record": MAX_HEADER_BYTES,
    "compressed length, raw length": MAX_COMPRESSED_BLOCK_BYTES,
    "events in a block": MAX_EVENTS_PER_BLOCK,
    "zstd window": MAX_ZSTD_WINDOW_BYTES,
    "message of one event": Event.MAX_BYTES,
    "samples in one `samples_taken`": SamplesTaken.MAX_COUNT,
}


@pytest.mark.parametrize("name", SIZES)
def test_the_document_says_every_limit(name: str) -> None:
    """The table of FORMAT.md and the code name the same number."""
    row = re.search(rf"^\| {re.escape(name)} \| ([\d,]+)(?: (KiB|MiB))?", FORMAT, re.MULTILINE)
    assert row is not None
    unit = {None: 1, "KiB": KIB, "MiB": MIB}[row[2]]
    assert SIZES[name] == int(row[1].replace(",", "")) * unit


def test_the_document_says_when_a_writer_acts() -> None:
    """A block of 256 KiB or of a second, a reserve of 64 KiB, a clock each ten seconds, and the larger cap of two events."""
    assert MAX_RAW_BLOCK_BYTES == MAX_COMPRESSED_BLOCK_BYTES
    assert (BLOCK_TARGET_BYTES, BLOCK_TARGET_NS) == (256 * KIB, 10**9)
    assert (RESERVE_BYTES, CLOCK_INTERVAL_NS) == (64 * KIB, 10 * 10**9)
    assert RequestsCompleted.MAX_BYTES == ResultImported.MAX_BYTES == 8 * MIB
    assert {event.MAX_BYTES for event in EVENT_TYPES} == {Event.MAX_BYTES, 8 * MIB}


def test_a_record_may_have_its_limit() -> None:
    """64 KiB are read, one byte more is not believed."""
    largest = pack_record(b"LLEX", 1, bytes(MAX_HEADER_BYTES - PREFIX_BYTES))
    assert check_record(largest, 0)[0] == b"LLEX"
    with pytest.raises(CorruptError, match="record length"):
        check_record(pack_record(b"LLEX", 1, bytes(MAX_HEADER_BYTES - PREFIX_BYTES + 1)), 0)
    with pytest.raises(CorruptError, match="found 19 bytes, expected at least 20"):
        check_record(largest[:19], 0)


@pytest.mark.parametrize(("after", "verdict"), [(b"", Verdict.TORN), (b"x", Verdict.CORRUPT)])
def test_the_largest_write_can_be_torn(tmp_path: Path, after: bytes, verdict: Verdict) -> None:
    """A block of 16 MiB of which a sector never reached the disk is a crash; with a byte behind it, it was another thing."""
    path = tmp_path / "a"
    write_segment(path, [], sealed=False)
    with SegmentReader(path) as reader:
        start = reader.position
    _, block = pack_block(
        bytes([1]) * MAX_COMPRESSED_BLOCK_BYTES,
        segment_id=SEGMENT_ID,
        block_number=0,
        first_event=0,
        event_count=1,
        raw_length=1,
        previous_digest=start.digest,
    )
    written = bytearray(path.read_bytes() + block)
    written[2**20 : 2**20 + 512] = bytes(512)
    path.write_bytes(written + after)
    assert read_segment(path).verdict is verdict


def test_a_block_is_full_by_its_bytes_before_it_has_too_many_events() -> None:
    """The shortest message that an envelope can be leaves room for the clock's event besides."""
    shortest = msgspec.msgpack.encode(Envelope("", 0, 0, msgspec.Raw(b"\x80")))
    assert BLOCK_TARGET_BYTES // len(shortest) < MAX_EVENTS_PER_BLOCK - 1


@pytest.mark.parametrize(
    ("excess", "told"),
    [
        ({"event_count": 1}, "events in a block: found 65537, expected at most 65536"),
        ({"payload": 1}, "compressed block: found 16777217"),
        ({"raw_length": 1}, "raw block: found 16777217"),
    ],
    ids=str,
)
def test_a_block_may_have_its_limits(excess: dict[str, int], told: str) -> None:
    """Events, payload and raw length: all of them are packed and read, one more is refused by the writer."""

    def packed(payload: int = 0, event_count: int = 0, raw_length: int = 0) -> bytes:
        whole = bytes(MAX_COMPRESSED_BLOCK_BYTES + payload)
        return pack_block(
            whole,
            segment_id=bytes(16),
            block_number=0,
            first_event=0,
            event_count=MAX_EVENTS_PER_BLOCK + event_count,
            raw_length=MAX_RAW_BLOCK_BYTES + raw_length,
            previous_digest=bytes(32),
        )[1][: -len(whole)]

    assert unpack_block_header(packed(), 0).event_count == MAX_EVENTS_PER_BLOCK
    with pytest.raises(TooLargeError, match=told):
        packed(**excess)


def started(size: int) -> Event:
    return ExperimentStarted(
        experiment_id="e",
        plan={"note": "-" * size},
        measurement_config_hash="h",
        expected_processes=1,
        llem_version="0",
    )


def completed(size: int) -> Event:
    return RequestsCompleted(window="warmup", requests=[msgspec.structs.replace(REQUEST, output="-" * size)])


def result(size: int) -> Event:
    return ResultImported(format="f", file_name="n", file_sha256="0", original=bytes(size))


@pytest.mark.parametrize("make", [started, pytest.param(completed, marks=pytest.mark.slow), result])
def test_an_event_may_have_its_limit(make: Callable[[int], Event]) -> None:
    """Its message is written and read at exactly the cap, and refused over it; so is a body over it that another wrote."""
    cap = make(0).MAX_BYTES
    probe = 128 * KIB  # lengths above 64 KiB take four bytes, as those at the cap do
    filling = cap - len(envelope.pack(make(probe), 0)) + probe
    event = make(filling)
    message = envelope.pack(event, 0)
    assert len(message) == cap
    (read,) = envelope.unpack_all(message, 1, offset=0)
    assert unpack(read) == event
    with pytest.raises(TooLargeError, match=f"found {cap + 1} bytes, expected at most {cap}"):
        envelope.pack(make(filling + 1), 0)
    body = msgspec.msgpack.encode(make(filling + 100))
    with pytest.raises(EventError, match=f"found {len(body)} bytes, expected at most {cap}"):
        unpack(Envelope(read.type, read.version, 0, msgspec.Raw(body)))


def test_samples_may_have_their_limit() -> None:
    """65,536 of them are an event, one more is none."""
    none = {"meter": "m", "device_uuid": "d", "first": bytes(24), "least": bytes(24), "used": bytes(3)}
    assert SamplesTaken(count=2**16, planes=b"", **none).count == 2**16
    for count in (2**16 + 1, -1):
        with pytest.raises(ValueError, match="expected at most 65536"):
            SamplesTaken(count=count, planes=b"", **none)


class CountedFile(io.BytesIO):
    """A file that knows how much was read of it."""

    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        self.read_bytes += len(chunk)
        return chunk


def test_headers_that_claim_much_are_not_all_believed() -> None:
    """Of 900 that each claim a megabyte of the same file only so many are followed as the search has paid for."""
    counts = struct.pack("<QQIII", 0, 0, 1, MIB, MIB)
    header = pack_record(b"LLEB", 1, counts + bytes(64))
    file = CountedFile(header * 900 + bytes(MIB))
    size = len(file.getvalue())
    assert Searcher(file, bytes(16)).find(0, end=size, blocks=0, events=0) is None
    assert 32 * MIB < file.read_bytes < 4 * MAX_COMPRESSED_BLOCK_BYTES + 8 * size


FOURTH_BLOCK = pack_block(
    b"payload",
    segment_id=bytes(16),
    block_number=3,
    first_event=5,
    event_count=1,
    raw_length=1,
    previous_digest=bytes(32),
)[1]


@pytest.mark.parametrize("place", [2**20 - 17, 2**20 - 16, 2**20 - 15, 2**20 - 1, 2**20, 2**20 + 16])
def test_a_block_is_found_wherever_it_begins(place: int) -> None:
    """Also across the edge of two pieces that are searched one after the other."""
    file = io.BytesIO(bytes(place) + FOURTH_BLOCK)
    found = Searcher(file, bytes(16)).find(0, end=place + len(FOURTH_BLOCK), blocks=0, events=0)
    assert found is not None
    assert (found.offset, found.blocks_before, found.events_before) == (place, 3, 5)


@pytest.mark.parametrize(
    ("blocks", "events", "goes_on"), [(3, 5, True), (2, 4, True), (4, 5, False), (3, 6, False), (4, 6, False)]
)
def test_a_block_that_was_before_is_not_taken_for_what_follows(
    blocks: int, events: int, goes_on: bool
) -> None:
    """It goes on from as many blocks and from as many events, or from fewer."""
    searcher = Searcher(io.BytesIO(FOURTH_BLOCK), bytes(16))
    found = searcher.find(0, end=len(FOURTH_BLOCK), blocks=blocks, events=events)
    assert (found is not None) is goes_on


def test_a_header_may_have_its_limit() -> None:
    """64 KiB of a segment's header are read, one byte more is never written."""
    room = MAX_HEADER_BYTES - len(pack_header(segment_header(host="-" * 40_000))) + 40_000
    assert unpack_header(pack_header(segment_header(host="-" * room))).host == "-" * room
    with pytest.raises(TooLargeError, match="segment header: found 65537"):
        pack_header(segment_header(host="-" * (room + 1)))
