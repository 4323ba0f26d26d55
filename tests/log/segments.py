"""Small segments with fixed contents, and what a reader makes of a file."""

from pathlib import Path
from typing import NamedTuple

from llem_events import (
    CorruptError,
    Damage,
    Reading,
    SegmentHeader,
    SegmentReader,
    SegmentWriter,
    Verdict,
    columns,
    unpack,
)
from llem_events.events import Event, WarningRaised, WindowClosed, WindowOpened

SEGMENT_ID = bytes(range(16))
START_NS = 5_000_000_000


def segment_header(segment_id: bytes = SEGMENT_ID, **changes: object) -> SegmentHeader:
    """A header in which nothing depends on this machine or this moment."""
    fields: dict[str, object] = {
        "segment_id": segment_id,
        "experiment_id": "20260101-000000-abcdef",
        "role": "sampler",
        "process_index": 0,
        "host": "node-a",
        "boot_id": "00000000-0000-4000-8000-000000000000",
        "pid": 4711,
        "llem_version": "0.0.0",
        "schema_version": 1,
        "monotonic_ns": 2**62,  # far ahead, so that no clock reading falls due
        "wall_ns": 1_767_225_600_000_000_000,
    }
    return SegmentHeader(**(fields | changes))  # type: ignore[arg-type]


def small_events() -> list[list[Event]]:
    """Three blocks of events: text, a map, columns with a missing value."""
    readings = [Reading(at_ns=n * 10_000_000, power_mw=300_000 + n * n % 977) for n in range(40)]
    readings.append(Reading(at_ns=400_000_000))
    return [
        [WindowOpened(kind="measurement")],
        [
            columns.pack(readings, meter="simulated", device_uuid="GPU-1"),
            WarningRaised(code="sample_gap", text="a gap of 0.3 s\u00b5", value=0.3, threshold=0.1),
        ],
        [WindowClosed(kind="measurement"), WarningRaised(code="throttled", text="x" * 40)],
    ]


def write_segment(
    path: Path,
    blocks: list[list[Event]] | None = None,
    *,
    sealed: bool = True,
    segment_id: bytes = SEGMENT_ID,
) -> list[tuple[int, Event]]:
    """Write the blocks to a new file; the events with their times, in order of their numbers."""
    writer = SegmentWriter(path, segment_header(segment_id), sync="close")
    written: list[tuple[int, Event]] = []
    for events in small_events() if blocks is None else blocks:
        for event in events:
            at_ns = START_NS + len(written)
            writer.append(event, at_ns=at_ns)
            written.append((at_ns, event))
        writer.flush()
    writer.seal() if sealed else writer.close()
    return written


class Outcome(NamedTuple):
    """What a reader made of a file: event number -> (time, event), and the verdict."""

    events: dict[int, tuple[int, object]]
    verdict: Verdict | None
    damages: list[Damage]


def read_segment(path: Path, *, salvage_damage: bool = False) -> Outcome:
    """Read the whole file; anything that is raised besides CorruptError is the caller's failure."""
    events: dict[int, tuple[int, object]] = {}
    try:
        reader = SegmentReader(path, salvage_damage=salvage_damage)
    except CorruptError:
        return Outcome(events, Verdict.CORRUPT, [])
    with reader:
        try:
            for block in reader.blocks():
                for number, envelope in enumerate(reader.events(block), block.header.first_event):
                    events[number] = (envelope.at_ns, unpack(envelope))
        except CorruptError:
            return Outcome(events, Verdict.CORRUPT, reader.damages)
        return Outcome(events, reader.verdict, reader.damages)


class Layout(NamedTuple):
    """Where the records of a whole segment lie: header, blocks, seal."""

    header_end: int
    block_edges: list[int]  # offset of each block, and the end of the last one
    size: int

    def block(self, number: int) -> slice:
        """The bytes of one block."""
        return slice(self.block_edges[number], self.block_edges[number + 1])


def layout(path: Path) -> Layout:
    """The places of the records of an undamaged file."""
    with SegmentReader(path) as reader:
        start = reader.position.offset
        ends = [block.end.offset for block in reader.blocks()]
    return Layout(start, [start, *ends], path.stat().st_size)
