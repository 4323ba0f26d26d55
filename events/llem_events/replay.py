"""Replaying a segment, in bounded memory: its samples in large batches of columns, every other event as it stands."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from llem_events import columns
from llem_events.columns import Column
from llem_events.envelope import Envelope, UnknownEvent, unpack
from llem_events.errors import EventError
from llem_events.events import Event, SamplesTaken
from llem_events.reader import Position, SegmentReader
from llem_events.texts import check_known

BATCH_SAMPLES = 122_880  # a row group of DuckDB's tables


class SampleBatch(NamedTuple):
    """Samples of one device by one meter, in the order of the log: one column for each of SAMPLE_COLUMNS."""

    meter: str
    device_uuid: str
    samples: int
    columns: Mapping[str, Column]


class Occurrence(NamedTuple):
    """Any other event, with its place in the segment."""

    block_number: int
    event_number: int
    envelope: Envelope
    event: Event | UnknownEvent


def replay(
    reader: SegmentReader, start: Position | None = None, *, batch_samples: int = BATCH_SAMPLES
) -> Iterator[SampleBatch | Occurrence]:
    """All that follows `start`, each block verified as `reader.blocks` does and raising what that raises.

    Samples wait until another event would make more than `batch_samples` of one device and meter, or the segment ends. An event whose body
    does not fit its type is kept as an UnknownEvent that names its problem. Raises NewerFormatError at a schema version or a text that
    only a later llem knows.
    """
    waiting = _Waiting(batch_samples)
    if reader.header is not None:
        check_known(reader.header)
    for block in reader.blocks(start):
        for event_number, envelope in enumerate(reader.events(block), block.header.first_event):
            event = _unpacked(envelope)
            if isinstance(event, SamplesTaken):
                if (batch := waiting.add(event)) is not None:
                    yield batch
                continue
            if isinstance(event, Event):
                check_known(event)
            yield Occurrence(block.header.block_number, event_number, envelope, event)
    yield from waiting.take_all()


def _unpacked(envelope: Envelope) -> Event | UnknownEvent:
    try:
        return unpack(envelope)
    except EventError as error:
        return UnknownEvent(envelope.type, envelope.version, envelope.body, problem=str(error))


class _Waiting:
    """Sample events that have not been decoded yet, by meter and device."""

    def __init__(self, batch_samples: int) -> None:
        self._batch_samples = batch_samples
        self._events: dict[tuple[str, str], list[SamplesTaken]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, event: SamplesTaken) -> SampleBatch | None:
        """Keep the event; where it would make a batch too large, the batch before it is returned."""
        key = event.meter, event.device_uuid
        full = None
        if self._counts.get(key, 0) + event.count > self._batch_samples and key in self._events:
            full = self._take(*key)
        self._events.setdefault(key, []).append(event)
        self._counts[key] = self._counts.get(key, 0) + event.count
        return full

    def _take(self, meter: str, device_uuid: str) -> SampleBatch:
        key = meter, device_uuid
        events = self._events.pop(key)
        return SampleBatch(*key, self._counts.pop(key), columns.unpack_all(events))

    def take_all(self) -> Iterator[SampleBatch]:
        """What is left, in the order in which it began."""
        for key in list(self._events):
            yield self._take(*key)
