"""Replaying a segment: batches equal the rows one by one, other events stay in order, damage is told as the reader tells it."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from llem_events import (
    SAMPLE_COLUMNS,
    CorruptError,
    Reading,
    SegmentReader,
    SegmentWriter,
    UnknownEvent,
    columns,
    unpack,
)
from llem_events.events import Event, SamplesTaken, WarningRaised
from llem_events.replay import Occurrence, SampleBatch, replay
from tests.log.forged import message
from tests.log.segments import layout, segment_header, write_segment

Rows = dict[tuple[str, str], list[tuple[int | None, ...]]]
BATCH = 64


def readings(count: int, *, first: int = 0) -> list[Reading]:
    """Readings with gaps, and one column that is never measured."""
    return [
        Reading(
            at_ns=10_000_000 * n + n * n % 977,
            power_mw=None if n % 7 == 3 else 300_000 + n * n % 4001,
            energy_mj=2**40 + 3000 * n,
            sm_clock_mhz=1830 - 15 * (n % 3),
        )
        for n in range(first, first + count)
    ]


def sampler_blocks(blocks: int = 30) -> list[list[Event]]:
    """Blocks of two devices with changing numbers of samples, a warning now and then."""
    return [
        [
            columns.pack(readings(9 + n % 3, first=100 * n), meter="nvml", device_uuid="GPU-1"),
            columns.pack(readings(10, first=100 * n), meter="nvml", device_uuid="GPU-2"),
            *([WarningRaised(code="sample_gap", text=str(n))] if n % 5 == 0 else []),
        ]
        for n in range(blocks)
    ]


def rows_of_batch(batch: SampleBatch) -> Iterator[tuple[int | None, ...]]:
    """The rows of a batch, None where missing."""
    cells = []
    for name in SAMPLE_COLUMNS:
        values, missing = batch.columns[name]
        gaps = np.zeros(batch.samples, np.bool_) if missing is None else missing
        cells.append([None if gap else value for value, gap in zip(values.tolist(), gaps, strict=True)])
    return zip(*cells, strict=True)


def rows_one_by_one(path: Path, *, salvage_damage: bool = False) -> Rows:
    """The rows of every samples event, decoded alone."""
    found: Rows = {}
    with SegmentReader(path, salvage_damage=salvage_damage) as reader:
        for event in (unpack(envelope) for block in reader.blocks() for envelope in reader.events(block)):
            if isinstance(event, SamplesTaken):
                alone = SampleBatch(event.meter, event.device_uuid, event.count, columns.unpack_all([event]))
                found.setdefault((event.meter, event.device_uuid), []).extend(rows_of_batch(alone))
    return found


def rows_of_replay(path: Path, *, salvage_damage: bool = False) -> Rows:
    """The rows of all batches."""
    found: Rows = {}
    with SegmentReader(path, salvage_damage=salvage_damage) as reader:
        for one in replay(reader, batch_samples=BATCH):
            if isinstance(one, SampleBatch):
                assert 0 < one.samples <= BATCH
                found.setdefault((one.meter, one.device_uuid), []).extend(rows_of_batch(one))
    return found


def test_batches_hold_the_rows_of_the_events(tmp_path: Path) -> None:
    """Joined over blocks, with changing lengths and two devices, every row is what its own event says."""
    path = tmp_path / "a.events.zst"
    write_segment(path, sampler_blocks())
    assert rows_of_replay(path) == rows_one_by_one(path)


def test_other_events_come_in_order_with_their_numbers(tmp_path: Path) -> None:
    """What is no sample is given as it stands, numbered as in the segment."""
    path = tmp_path / "a.events.zst"
    written = write_segment(path, sampler_blocks())
    with SegmentReader(path) as reader:
        others = [one for one in replay(reader, batch_samples=BATCH) if isinstance(one, Occurrence)]
        assert reader.position.events == len(written)
    expected = [
        (number, at_ns, event)
        for number, (at_ns, event) in enumerate(written)
        if not isinstance(event, SamplesTaken)
    ]
    assert [(one.event_number, one.envelope.at_ns, one.event) for one in others] == expected


def test_replay_goes_on_from_a_position(tmp_path: Path) -> None:
    """Two replays, the second from where the first half ends, give what one gives."""
    path = tmp_path / "a.events.zst"
    write_segment(path, sampler_blocks())
    with SegmentReader(path) as reader:
        halfway = [block.end for block in reader.blocks()][14]
    with SegmentReader(path) as reader:
        rest = [one for one in replay(reader, halfway) if isinstance(one, SampleBatch)]
    whole = rows_one_by_one(path)
    assert [list(rows_of_batch(batch)) for batch in rest] == [
        rows[-batch.samples :] for rows, batch in zip(whole.values(), rest, strict=True)
    ]
    assert sum(batch.samples for batch in rest) == sum(9 + n % 3 + 10 for n in range(15, 30))


def test_an_event_larger_than_a_batch_is_a_batch(tmp_path: Path) -> None:
    """No event is cut in two."""
    path = tmp_path / "a.events.zst"
    write_segment(path, [[columns.pack(readings(3 * BATCH), meter="nvml", device_uuid="GPU-1")]])
    with SegmentReader(path) as reader:
        found = [one.samples for one in replay(reader, batch_samples=BATCH) if isinstance(one, SampleBatch)]
    assert found == [3 * BATCH]


def test_a_batch_is_as_large_as_it_may_be(tmp_path: Path) -> None:
    """Events that fill it together are one; a sample more is the next."""
    half = columns.pack(readings(BATCH // 2), meter="nvml", device_uuid="GPU-1")
    one = columns.pack(readings(1, first=BATCH), meter="nvml", device_uuid="GPU-1")
    path = tmp_path / "a.events.zst"
    write_segment(path, [[half, half, one]])
    with SegmentReader(path) as reader:
        sizes = [
            found.samples for found in replay(reader, batch_samples=BATCH) if isinstance(found, SampleBatch)
        ]
    assert sizes == [BATCH, 1]


def test_a_torn_tail_ends_the_replay_quietly(tmp_path: Path) -> None:
    """What was whole before the cut is given, and the reader's verdict says torn."""
    path = tmp_path / "a.events.zst"
    write_segment(path, sampler_blocks(), sealed=False)
    cut = path.read_bytes()[:-5]
    path.write_bytes(cut)
    with SegmentReader(path) as reader:
        samples = sum(one.samples for one in replay(reader) if isinstance(one, SampleBatch))
        assert reader.verdict == "torn"
    assert samples == sum(9 + n % 3 + 10 for n in range(29))


def test_corruption_is_raised_and_salvage_goes_on(tmp_path: Path) -> None:
    """A changed byte in a block refuses the segment; salvaging leaves out that block alone."""
    path = tmp_path / "a.events.zst"
    write_segment(path, sampler_blocks())
    changed = bytearray(path.read_bytes())
    changed[layout(path).block(7).stop - 20] ^= 1
    path.write_bytes(changed)
    with pytest.raises(CorruptError), SegmentReader(path) as reader:
        list(replay(reader))
    found = rows_of_replay(path, salvage_damage=True)
    assert found == rows_one_by_one(path, salvage_damage=True)
    assert len(found["nvml", "GPU-2"]) == 29 * 10


def test_a_samples_event_that_lies_is_kept_as_unknown(tmp_path: Path) -> None:
    """Its problem is named, and the samples around it are given."""
    path = tmp_path / "a.events.zst"
    honest = columns.pack(readings(10), meter="nvml", device_uuid="GPU-1")
    lying_body = msgspec.msgpack.encode({**msgspec.structs.asdict(honest), "planes": b""})
    writer = SegmentWriter(path, segment_header(), sync="close")
    writer.append(honest)
    writer.append_message(message("samples_taken", lying_body, version=2), at_ns=0)
    writer.append(honest)
    writer.seal()
    with SegmentReader(path) as reader:
        lying, batch = list(replay(reader))
    assert isinstance(lying, Occurrence) and lying.event_number == 1
    assert isinstance(batch, SampleBatch) and batch.samples == 20
    assert isinstance(lying.event, UnknownEvent) and "planes: found 0 bytes" in str(lying.event.problem)
