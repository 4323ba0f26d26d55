"""Records that do not fit, one by one: each error says what was found, what was expected and where; and what an interrupted write leaves."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
import zstandard

from llem_events import envelope
from llem_events.damage import Verdict, explains_crash
from llem_events.errors import CorruptError, EventError, NewerFormatError
from llem_events.events import WarningRaised
from llem_events.format import (
    BLOCK_HEADER_BYTES,
    FRAME_HEAD_BYTES,
    SEAL_BYTES,
    BlockHeader,
    Seal,
    check_payload,
    check_record,
    compressor,
    decompress,
    fields_of,
    frame_length,
    header_digest,
    pack_block,
    pack_header,
    pack_record,
    pack_seal,
    peek_header,
    unpack_block_header,
    unpack_header,
    unpack_seal,
)
from llem_events.reader import SegmentReader
from tests.log.segments import SEGMENT_ID, segment_header

AT = 7777  # where each record stands
PREFIX_BYTES = len(pack_record(b"LLEX", 1, b""))
RAW = b"events of a block " * 100
RECORD = pack_record(b"LLEX", 2, b"fields")


def block(payload: bytes, raw_length: int = len(RAW)) -> tuple[BlockHeader, bytes]:
    return pack_block(
        payload,
        segment_id=SEGMENT_ID,
        block_number=3,
        first_event=40,
        event_count=5,
        raw_length=raw_length,
        previous_digest=b"p" * 32,
    )


PAYLOAD = compressor("worker").compress(RAW)
HEADER, BLOCK = block(PAYLOAD)
SEAL = pack_seal(Seal(1, 2, 3, 4, bytes(32)), SEGMENT_ID)


def decompressed(payload: bytes, raw_length: int = len(RAW)) -> bytes:
    header, _ = block(payload, raw_length)
    return decompress(header, payload, decompressor=zstandard.ZstdDecompressor(), offset=AT)


def with_byte(frame: bytes, place: int, value: int) -> bytes:
    return frame[:place] + bytes([value]) + frame[place + 1 :]


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "another magic": (lambda: frame_length(b"x" * PREFIX_BYTES, AT), "found magic 0x78787878, expected 0x184d2a5e"),
    "another echo": (lambda: frame_length(with_byte(RECORD[:PREFIX_BYTES], 18, 255), AT), "record length: found 18 with echo"),
    "half a prefix": (lambda: check_record(RECORD[:19], AT), "record: found 19 bytes, expected at least 20"),
    "half a record": (lambda: check_record(RECORD[:-1], AT), "record: found 25 bytes, expected 26"),
    "more than a record": (lambda: check_record(RECORD + b"x", AT), "record: found 27 bytes, expected 26"),
    "another byte": (lambda: check_record(with_byte(RECORD, 25, 0), AT), "record CRC: found 0x.*, computed 0x"),
    "another head": (lambda: check_record(with_byte(RECORD, 8, RECORD[8] ^ 1), AT), "record CRC"),
    "another kind": (
        lambda: fields_of(RECORD, AT, kind=b"LLEY", newest=2, what="thing"),
        "not a thing: found kind b'LLEX', expected b'LLEY'",
    ),
    "a short block header": (
        lambda: unpack_block_header(pack_record(b"LLEB", 1, bytes(BLOCK_HEADER_BYTES - PREFIX_BYTES - 1)), AT),
        f"block header: found {BLOCK_HEADER_BYTES - 1} bytes, expected {BLOCK_HEADER_BYTES}",
    ),
    "a long block header": (
        lambda: unpack_block_header(pack_record(b"LLEB", 1, bytes(BLOCK_HEADER_BYTES - PREFIX_BYTES + 1)), AT),
        f"block header: found {BLOCK_HEADER_BYTES + 1} bytes",
    ),
    "too many events": (
        lambda: unpack_block_header(pack_record(b"LLEB", 1, bytes(16) + b"\1\0\1\0" + bytes(72)), AT),
        "events in a block: found 65537",
    ),
    "another payload": (
        lambda: check_payload(HEADER, BLOCK[:BLOCK_HEADER_BYTES], b"x", segment_id=SEGMENT_ID, offset=AT),
        "digest of block 3 does not fit its bytes",
    ),
    "another segment": (
        lambda: check_payload(HEADER, BLOCK[:BLOCK_HEADER_BYTES], PAYLOAD, segment_id=b"x" * 16, offset=AT),
        "digest of block 3",
    ),
    "another size": (lambda: decompressed(PAYLOAD, 17), "zstd content size: found 1800, expected 17"),
    "no compression": (lambda: decompressed(b"nothing"), "zstd frame of block 3"),
    "half a frame": (lambda: decompressed(PAYLOAD[:-4]), "zstd frame of block 3"),
    "more than a frame": (lambda: decompressed(PAYLOAD + b"more"), "zstd frame of block 3"),
    "a short seal": (
        lambda: unpack_seal(pack_record(b"LLES", 1, bytes(SEAL_BYTES - PREFIX_BYTES - 1)), SEGMENT_ID, AT),
        f"seal: found {SEAL_BYTES - 1} bytes, expected {SEAL_BYTES}",
    ),
    "a seal of another segment": (lambda: unpack_seal(SEAL, b"x" * 16, AT), "digest of the seal does not fit its bytes"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_told_with_its_place(what: str) -> None:
    """The offset is that of the record in its file."""
    read, text = WRONG[what]
    with pytest.raises(CorruptError, match=text) as told:
        read()
    assert told.value.offset == AT


@pytest.mark.parametrize(("window_log", "is_read"), [(23, True), (24, False)])
def test_a_frame_may_look_back_eight_mebibytes(window_log: int, is_read: bool) -> None:
    """One that wants more memory is not decompressed."""
    raw = bytes(12 * 2**20)
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    payload = zstandard.ZstdCompressor(compression_params=parameters).compress(raw)
    with nullcontext() if is_read else pytest.raises(CorruptError, match="expected at most 8388608"):
        assert decompressed(payload, len(raw)) == raw


def test_what_fits_is_read() -> None:
    """As it was written."""
    assert check_record(RECORD, AT) == (b"LLEX", 2, b"fields")
    assert frame_length(RECORD[:PREFIX_BYTES], AT) == len(RECORD) == FRAME_HEAD_BYTES + 18
    assert unpack_block_header(BLOCK[:BLOCK_HEADER_BYTES], AT) == HEADER
    assert HEADER[:5] == (3, 40, 5, len(PAYLOAD), len(RAW))
    check_payload(HEADER, BLOCK[:BLOCK_HEADER_BYTES], PAYLOAD, segment_id=SEGMENT_ID, offset=AT)
    assert decompressed(PAYLOAD) == RAW
    assert unpack_seal(SEAL, SEGMENT_ID, AT) == Seal(1, 2, 3, 4, bytes(32))
    for role in ("worker", "sampler"):
        declared = zstandard.get_frame_parameters(compressor(role).compress(RAW))
        assert (declared.content_size, declared.has_checksum, declared.dict_id) == (len(RAW), True, 0)


def test_samples_are_packed_less_tightly_than_anything_else() -> None:
    """What is written while something is measured takes little time."""
    text = b" ".join(str(number**5).encode() for number in range(1_000))
    sizes = {role: len(compressor(role).compress(text)) for role in ("supervisor", "worker", "sampler")}
    assert sizes["supervisor"] == sizes["worker"] < sizes["sampler"] < len(text)


def test_a_later_version_is_newer_and_no_damage() -> None:
    """The newest known one is read."""
    assert fields_of(RECORD, AT, kind=b"LLEX", newest=2, what="thing") == b"fields"
    with pytest.raises(
        NewerFormatError, match="thing: found format version 2, expected at most 1; upgrade llem"
    ):
        fields_of(RECORD, AT, kind=b"LLEX", newest=1, what="thing")


@pytest.mark.parametrize("content", [b"x" * 40, with_byte(pack_header(segment_header()), 30, 0)])
def test_a_header_that_does_not_fit_stands_at_the_beginning(tmp_path: Path, content: bytes) -> None:
    """Of its file."""
    (tmp_path / "a").write_bytes(content)
    for read in (lambda: peek_header(tmp_path / "a"), lambda: unpack_header(content)):
        with pytest.raises(CorruptError) as told:
            read()
        assert told.value.offset == 0


NOISE = bytes(range(1, 256)) * 8  # no sector of it is zeros
OF_NOISE = block(NOISE)[1]


def zeroed(sector: int, *, offset: int = 0, written: bytes = OF_NOISE) -> bytes:
    """A record that stands at an offset of its file, of which one sector of the disk never got there."""
    start = max(sector * 512 - offset, 0)
    end = min((sector + 1) * 512 - offset, len(written))
    return written[:start] + bytes(end - start) + written[end:]


@pytest.mark.parametrize(
    ("rest", "offset", "is_crash"),
    [
        (OF_NOISE, 0, False),
        (OF_NOISE[:-1], 0, True),
        (OF_NOISE[:300], 0, True),
        (OF_NOISE + b"x", 0, False),
        (zeroed(1), 0, True),
        (zeroed(1) + b"x", 0, False),
        (zeroed(1, offset=100), 100, True),
        (zeroed(1, offset=100), 0, False),
        (zeroed(4), 0, True),
        (with_byte(OF_NOISE, 900, 0), 0, False),
        (zeroed(0), 0, True),
        (zeroed(0) + BLOCK, 0, False),
        (SEAL[:-1], 0, True),
        (SEAL[:3], 0, True),
        (BLOCK[:7], 0, True),
        (b"xyz", 0, False),
        (with_byte(SEAL, 30, 9), 0, False),
        (bytes(700), 0, True),
    ],
    ids=range(18),
)
def test_what_an_interrupted_write_leaves(rest: bytes, offset: int, is_crash: bool) -> None:
    """A record cut short, or one of which a sector is zeros; one that is whole and has other bytes was changed later."""
    assert explains_crash(rest, offset) is is_crash


def parts() -> list[bytes]:
    """Header, two blocks of one and two events, and seal of a segment."""
    frame = pack_header(segment_header())
    found, previous, first = [frame], header_digest(frame), 0
    for number, count in enumerate((1, 2)):
        raw = envelope.pack(WarningRaised(code="c", text="t"), 0) * count
        header, data = pack_block(
            compressor("worker").compress(raw),
            segment_id=SEGMENT_ID,
            block_number=number,
            first_event=first,
            event_count=count,
            raw_length=len(raw),
            previous_digest=previous,
        )
        previous, first = header.digest, first + count
        found.append(data)
    return [*found, pack_seal(Seal(2, 3, 0, 0, previous), SEGMENT_ID)]


HEAD, ONE, TWO, SEALED = parts()
WHOLE = HEAD + ONE + TWO + SEALED
FIRST, SECOND, THIRD = len(HEAD), len(HEAD + ONE), len(HEAD + ONE + TWO)


@pytest.mark.parametrize(
    ("content", "verdict", "blocks", "damage"),
    [
        (WHOLE, Verdict.CLEAN, 2, None),
        (HEAD + ONE, Verdict.UNCLOSED, 1, None),
        (WHOLE + b"x", Verdict.CORRUPT, 2, (len(WHOLE), len(WHOLE) + 1, "bytes after the seal", 2, 3)),
        (HEAD + ONE + TWO[:-1], Verdict.TORN, 1, (SECOND, THIRD - 1, "ends inside its last write", 1, 1)),
        (HEAD[:-1], Verdict.TORN, 0, (0, FIRST - 1, "ends inside its header", 0, 0)),
        (HEAD + ONE + HEAD, Verdict.CORRUPT, 1, (SECOND, SECOND + FIRST, "a second segment header", 1, 1)),
        (HEAD + ONE + SEALED, Verdict.CORRUPT, 1, (SECOND, SECOND, "the seal counts 2 blocks and 3 events, found 1 and 1", 1, 1, 2, 3)),
        (HEAD + TWO + SEALED, Verdict.CORRUPT, 1, (FIRST, FIRST, "block out of place: found block 1 with first event 1, expected block 0 with first event 0 after digest", 0, 0, 1, 1)),
        (HEAD + b"xxxx" + TWO + SEALED, Verdict.CORRUPT, 1, (FIRST, FIRST + 4, "no record of the log here", 0, 0, 1, 1)),
        (HEAD + ONE + b"y" * 40, Verdict.CORRUPT, 1, (SECOND, SECOND + 40, "no record of the log here", 1, 1)),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_damaged_is_told_with_its_bytes(
    tmp_path: Path, content: bytes, verdict: Verdict, blocks: int, damage: tuple[object, ...] | None
) -> None:
    """From where to where, with the numbers of what stood there, and what can still be read."""
    (tmp_path / "a").write_bytes(content)
    with SegmentReader(tmp_path / "a", salvage_damage=True) as reader:
        assert (len(list(reader.blocks())), reader.verdict) == (blocks, verdict)
    if damage is None:
        assert reader.damages == []
        return
    offset, end, text, *numbers = damage
    (found,) = reader.damages
    assert (found.offset, found.end) == (offset, end) and str(text) in found.text
    told = (found.first_block, found.first_event, found.next_block, found.next_event)
    assert told == (*numbers, None, None)[:4]
    if verdict is Verdict.CORRUPT:
        with SegmentReader(tmp_path / "a") as strict, pytest.raises(CorruptError):
            list(strict.blocks())


@pytest.mark.parametrize("cut", [10, 100, 120], ids=["prefix", "header", "payload"])
def test_what_is_written_while_a_reader_reads_waits_for_the_next_look(tmp_path: Path, cut: int) -> None:
    """It never reads past the size that the file had when it looked."""
    path = tmp_path / "a"
    path.write_bytes(HEAD + ONE + TWO[:cut])
    with SegmentReader(path) as reader:
        found = reader.blocks()
        assert next(found).header.block_number == 0
        with path.open("ab") as file:
            file.write(TWO[cut:])
        assert list(found) == [] and reader.verdict is Verdict.TORN
        assert [block.header.block_number for block in reader.blocks()] == [1]


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_body_may_have_its_cap(beyond: int) -> None:
    """One byte more is not decoded."""
    frame = len(msgspec.msgpack.encode({"code": "c", "text": "x" * 2**17})) - 2**17
    body = msgspec.msgpack.encode({"code": "c", "text": "x" * (WarningRaised.MAX_BYTES - frame + beyond)})
    assert len(body) == WarningRaised.MAX_BYTES + beyond
    told = envelope.Envelope(WarningRaised.TYPE, WarningRaised.VERSION, 0, msgspec.Raw(body))
    if not beyond:
        assert isinstance(envelope.unpack(told), WarningRaised)
        return
    cap = WarningRaised.MAX_BYTES
    with pytest.raises(EventError, match=f"found {cap + 1} bytes, expected at most {cap}"):
        envelope.unpack(told)
