"""Every truncation, every flipped bit, lost sectors, and blocks that were moved, copied, dropped or borrowed."""

import os
from pathlib import Path

import pytest

from llem_events import SegmentReader, SegmentWriter, Verdict, survey
from llem_events.damage import Searcher, explains_torn_header
from llem_events.errors import CorruptError, TornTailError
from llem_events.events import WarningRaised
from llem_events.format import BLOCK_HEADER_KIND, MAX_COMPRESSED_BLOCK_BYTES, SEGMENT_HEADER_KIND, pack_record
from tests.log.segments import Layout, Outcome, layout, read_segment, segment_header, write_segment

SECTOR_BYTES = 512


class Original:
    """A segment of known contents, of which a test writes damaged copies."""

    def __init__(self, folder: Path, *, sealed: bool) -> None:
        self.path = folder / "original.events.zst"
        self.events = dict(enumerate(write_segment(self.path, sealed=sealed)))
        self.bytes = self.path.read_bytes()
        self.layout: Layout = layout(self.path)
        self.copy = folder / "copy.events.zst"

    def read(self, damaged: bytes, *, salvage_damage: bool = False) -> Outcome:
        """What a reader makes of other bytes; whatever it accepts has to be true."""
        self.copy.write_bytes(damaged)
        outcome = read_segment(self.copy, salvage_damage=salvage_damage)
        for number, event in outcome.events.items():
            assert self.events[number] == event
        if not salvage_damage:
            assert list(outcome.events) == list(range(len(outcome.events)))
        return outcome


@pytest.fixture
def sealed(tmp_path: Path) -> Original:
    """A sealed segment with every kind of record."""
    return Original(tmp_path, sealed=True)


@pytest.fixture
def unsealed(tmp_path: Path) -> Original:
    """The same segment as a killed writer leaves it."""
    return Original(tmp_path, sealed=False)


def test_whole_segments_have_their_verdicts(sealed: Original, tmp_path: Path) -> None:
    """A sealed segment is clean, an unsealed one unclosed, and both give back every event."""
    (tmp_path / "other").mkdir()
    unsealed = Original(tmp_path / "other", sealed=False)
    for original, verdict in ((sealed, Verdict.CLEAN), (unsealed, Verdict.UNCLOSED)):
        outcome = original.read(original.bytes)
        assert (outcome.verdict, outcome.events, outcome.damages) == (verdict, original.events, [])


def test_every_truncation(sealed: Original) -> None:
    """A file cut anywhere reads as torn, or as unclosed on a block's edge, up to its last whole block."""
    edges = sealed.layout.block_edges
    for length in range(len(sealed.bytes)):
        outcome = sealed.read(sealed.bytes[:length])
        assert outcome.verdict == (Verdict.UNCLOSED if length in edges else Verdict.TORN), length
        whole_blocks = sum(edge <= length for edge in edges[1:])
        assert len(outcome.events) == [0, 1, 3, 5][whole_blocks]


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        # odd, so that every bit of a byte has its turn
        ("sealed", 7),
        *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in ("sealed", "unsealed")),
    ],
)
def test_every_flipped_bit(kind: str, step: int, request: pytest.FixtureRequest) -> None:
    """Any single changed bit makes the segment corrupt, and salvage loses at most the record that it is in."""
    original: Original = request.getfixturevalue(kind)
    damaged = bytearray(original.bytes)
    for bit in range(0, 8 * len(damaged), step):
        damaged[bit // 8] ^= 1 << bit % 8
        assert original.read(damaged).verdict is Verdict.CORRUPT, bit
        if bit % 8 == 0 and bit // 8 >= original.layout.header_end:
            outcome = original.read(damaged, salvage_damage=True)
            assert outcome.verdict is Verdict.CORRUPT
            assert len(outcome.events) >= len(original.events) - 2
        damaged[bit // 8] ^= 1 << bit % 8


def test_every_zeroed_sector_of_a_sealed_segment(sealed: Original) -> None:
    """A sector that reads as zeros is corruption while the seal says that all was written, and never passes without the seal."""
    for start in range(0, len(sealed.bytes), SECTOR_BYTES):
        seal_is_lost = start + SECTOR_BYTES > sealed.layout.block_edges[-1]
        expected = {Verdict.CORRUPT, Verdict.TORN} if seal_is_lost else {Verdict.CORRUPT}
        assert sealed.read(_zeroed(sealed.bytes, start)).verdict in expected


def test_every_zeroed_sector_of_an_unsealed_segment(unsealed: Original) -> None:
    """A sector of the last block that reads as zeros is a torn write; any other is corruption."""
    last = unsealed.layout.block_edges[-2]
    for start in range(0, len(unsealed.bytes), SECTOR_BYTES):
        outcome = unsealed.read(
            _zeroed(unsealed.bytes, max(start, last) if start + SECTOR_BYTES > last else start)
        )
        in_last = start + SECTOR_BYTES > last
        assert outcome.verdict is (Verdict.TORN if in_last else Verdict.CORRUPT)


def _zeroed(whole: bytes, start: int) -> bytes:
    """`whole` with zeros from `start` to the end of its sector."""
    end = min(start - start % SECTOR_BYTES + SECTOR_BYTES, len(whole))
    return whole[:start] + bytes(end - start) + whole[end:]


@pytest.mark.parametrize(
    "order", ["0012", "0112", "0122", "102", "021", "210", "12", "02", "01", "", "0120", "000"]
)
def test_blocks_duplicated_swapped_or_dropped(sealed: Original, order: str) -> None:
    """Blocks in any other order than the written one are corrupt, and salvage never takes one twice."""
    places = sealed.layout
    body = b"".join(sealed.bytes[places.block(int(number))] for number in order)
    damaged = sealed.bytes[: places.header_end] + body + sealed.bytes[places.block_edges[-1] :]
    assert sealed.read(damaged).verdict is Verdict.CORRUPT
    outcome = sealed.read(damaged, salvage_damage=True)
    assert outcome.verdict is Verdict.CORRUPT
    assert outcome.damages


def test_a_dropped_block_is_named(sealed: Original) -> None:
    """Salvage says which block and event numbers are missing and where."""
    places = sealed.layout
    damaged = sealed.bytes[: places.block_edges[1]] + sealed.bytes[places.block_edges[2] :]
    (damage,) = sealed.read(damaged, salvage_damage=True).damages
    assert (damage.first_block, damage.next_block) == (1, 2)
    assert (damage.first_event, damage.next_event) == (1, 3)
    assert damage.offset == damage.end == places.block_edges[1]


def test_the_seal_counts_what_is_missing_before_it(sealed: Original) -> None:
    """Where the last block is lost, the seal says how many events it held."""
    damaged = bytearray(sealed.bytes)
    damaged[sealed.layout.block_edges[2] + 150] ^= 1
    (damage,) = sealed.read(damaged, salvage_damage=True).damages
    assert (damage.first_block, damage.next_block, damage.next_event) == (2, 3, 5)
    assert (damage.offset, damage.end) == (sealed.layout.block_edges[2], sealed.layout.block_edges[3])


def test_who_has_met_damage_reads_no_further(sealed: Original) -> None:
    """The reader keeps its verdict; asked again it has nothing more."""
    damaged = bytearray(sealed.bytes)
    damaged[sealed.layout.block(1).stop - 20] ^= 1
    sealed.copy.write_bytes(damaged)
    with SegmentReader(sealed.copy) as reader:
        with pytest.raises(CorruptError):
            list(reader.blocks())
        assert reader.verdict is Verdict.CORRUPT and len(reader.damages) == 1
        assert list(reader.blocks()) == []


def test_blocks_of_another_segment(sealed: Original, tmp_path: Path) -> None:
    """A block, a seal or a whole file of another writer never verifies here."""
    other = tmp_path / "other.events.zst"
    write_segment(other, segment_id=b"\xff" * 16)
    foreign, places = other.read_bytes(), sealed.layout
    assert layout(other) == places
    for number in range(3):
        damaged = bytearray(sealed.bytes)
        damaged[places.block(number)] = foreign[places.block(number)]
        assert sealed.read(damaged).verdict is Verdict.CORRUPT
        assert len(sealed.read(damaged, salvage_damage=True).events) == len(sealed.events) - [1, 2, 2][number]
    end = places.block_edges[-1]
    for damaged in (
        sealed.bytes + foreign,
        sealed.bytes + foreign[places.header_end :],
        sealed.bytes[:end] + foreign,
        sealed.bytes[:end] + foreign[end:],
        foreign[: places.header_end] + sealed.bytes[places.header_end :],
    ):
        assert sealed.read(damaged).verdict is Verdict.CORRUPT


@pytest.mark.parametrize(
    "garbage", [b"x", b"\n", b"garbage" * 100, bytes(1), bytes(5000), b"\x5e\x2a\x4d\x18"]
)
def test_garbage_after_the_seal(sealed: Original, garbage: bytes) -> None:
    """Nothing may follow the seal, and all that stands before it is salvaged."""
    assert sealed.read(sealed.bytes + garbage).verdict is Verdict.CORRUPT
    assert sealed.read(sealed.bytes + garbage, salvage_damage=True).events == sealed.events


@pytest.mark.parametrize("garbage", [b"x", b"\n", b"garbage" * 100, b"\x5e\x2a\x4d\x18" * 50])
def test_garbage_after_an_unsealed_segment(unsealed: Original, garbage: bytes) -> None:
    """No crash leaves other bytes than a record's first ones or zeros."""
    assert unsealed.read(unsealed.bytes + garbage).verdict is Verdict.CORRUPT


@pytest.mark.parametrize("zeros", [1, 511, 512, 5000])
def test_zeros_after_an_unsealed_segment(unsealed: Original, zeros: int) -> None:
    """A file that grew but whose data never reached the disk is torn."""
    outcome = unsealed.read(unsealed.bytes + bytes(zeros))
    assert (outcome.verdict, outcome.events) == (Verdict.TORN, unsealed.events)


def test_damage_before_a_torn_tail_is_corruption(unsealed: Original) -> None:
    """A crash explains the last write only: a block changed before it is not excused."""
    damaged = bytearray(unsealed.bytes[:-10])
    damaged[unsealed.layout.block_edges[1] + 150] ^= 1
    assert unsealed.read(damaged).verdict is Verdict.CORRUPT


@pytest.mark.parametrize(
    "whole", [b"hello", b"hello, this is no segment at all" * 9, b"\x28\xb5\x2f\xfd" * 20]
)
def test_other_files_are_no_segments(sealed: Original, whole: bytes) -> None:
    """A file that never was a segment is corrupt, whatever its length."""
    assert sealed.read(whole).verdict is Verdict.CORRUPT


@pytest.mark.parametrize("kind", [CorruptError, TornTailError])
def test_damage_says_where_it_is(kind: type[CorruptError | TornTailError]) -> None:
    """In its words for people too."""
    error = kind("no record", offset=5)
    assert (str(error), error.text, error.offset) == ("no record (at byte 5)", "no record", 5)


@pytest.mark.parametrize(("block", "blocks"), [(0, 2), (2, 2)])
def test_what_is_sealed_is_known_behind_damage(sealed: Original, block: int, blocks: int) -> None:
    """The seal says how much there was, wherever a block is damaged, the last one too, and whatever follows it."""
    whole = survey(sealed.path)
    changed = bytearray(sealed.bytes)
    changed[sealed.layout.block(block).stop - 1] ^= 1
    for rest in (b"", b"rest"):
        sealed.copy.write_bytes(changed + rest)
        found = survey(sealed.copy)
        assert (found.verdict, found.blocks) == (Verdict.CORRUPT, blocks)
        assert found.seal == whole.seal is not None


def test_reading_modifies_nothing(unsealed: Original) -> None:
    """Bytes and times of a damaged file are the same after reading and salvaging it."""
    unsealed.copy.write_bytes(unsealed.bytes[:-10])
    before = unsealed.copy.stat()
    read_segment(unsealed.copy)
    read_segment(unsealed.copy, salvage_damage=True)
    after = unsealed.copy.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def header_record(fields: bytes) -> bytes:
    """Of a segment's header, its first 20 bytes before these."""
    return pack_record(SEGMENT_HEADER_KIND, 1, fields)


@pytest.mark.parametrize(
    ("whole", "torn"),
    [
        (b"", True),
        (bytes(3), True),
        (b"\0\1", False),
        (header_record(bytes(40))[:3], True),
        (header_record(bytes(40))[:19], True),
        (header_record(bytes(40))[:20], True),
        (pack_record(BLOCK_HEADER_KIND, 1, b""), False),
        (bytes(600), True),
        (bytes(SECTOR_BYTES) + b"x" * 9, True),
        (b"x" * 9 + bytes(600), False),
        (bytes(SECTOR_BYTES - 1) + b"x" * 9, False),
        (header_record(bytes(1_000)), True),
        (header_record(bytes(1_000)) + b"x", False),
        (header_record(b"x" * 1_000), False),
        (header_record(b"x" * (SECTOR_BYTES - 21) + bytes(SECTOR_BYTES) + b"x"), False),
    ],
)
def test_what_the_write_of_a_header_leaves(whole: bytes, torn: bool) -> None:
    """Its beginning, nothing but zeros, or these in the place of a sector of the disk; the beginning of another record is damage."""
    assert explains_torn_header(whole) is torn


def test_a_long_search_is_paid_by_its_length(tmp_path: Path) -> None:
    """However often blocks that verify are looked at, all that was searched allows to look at as much again."""
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    for _ in range(2):
        writer.append(WarningRaised(code="x", text=os.urandom(400_000).hex()))
        writer.flush()
    writer.seal()
    size = (tmp_path / "a").stat().st_size
    with (tmp_path / "a").open("rb") as file:
        searcher = Searcher(file, segment_header().segment_id)
        for _ in range(8 * MAX_COMPRESSED_BLOCK_BYTES // size):
            found = searcher.find(0, end=size, blocks=1, events=1)
            assert found is not None and found.blocks_before == 1


def test_what_was_not_there_is_counted_as_none(tmp_path: Path) -> None:
    """Of a segment without a block, and of a file that is no segment."""
    SegmentWriter(tmp_path / "a", segment_header(), sync="close").close()
    (tmp_path / "b").write_bytes(b"no segment, whatever it is, for it begins otherwise")
    for name in ("a", "b"):
        found = survey(tmp_path / name)
        counts = (found.blocks, found.events, found.raw_bytes, found.compressed_bytes)
        assert (*counts, found.unknown_events, found.misfits) == (0, 0, 0, 0, 0, 0)
        assert (found.lost_blocks, found.lost_events) == (0, 0)
    (damage,) = found.damages
    size = (tmp_path / "b").stat().st_size
    assert (damage.offset, damage.end, damage.first_block, damage.first_event) == (0, size, 0, 0)
    assert found.verdict is Verdict.CORRUPT and found.lost_bytes == size and not found.is_being_written
