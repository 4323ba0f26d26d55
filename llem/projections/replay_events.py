"""Events of one segment as rows: requests and samples into their own tables, all others as they are."""

from collections import defaultdict
from typing import Any

import msgspec

from llem.projections.samples import SampleBatch, append_samples
from llem.projections.tables import Tables
from llem_events import Block, Envelope, EventError, SegmentReader, UnknownEvent, unpack
from llem_events.events import Event, Request, RequestsCompleted, SamplesTaken

MAX_PENDING = 20_000  # rows, and samples events, held before they are inserted


class Replay:
    """Collects the rows of one segment and inserts them in large pieces."""

    def __init__(
        self, tables: Tables, *, experiment_id: str, segment_id: str, process_index: int | None
    ) -> None:
        self._tables = tables
        self._identity: dict[str, Any] = {
            "experiment_id": experiment_id,
            "segment_id": segment_id,
            "process_index": process_index,
        }
        self._events: list[dict[str, Any]] = []
        self._requests: list[dict[str, Any]] = []
        self._samples: dict[tuple[str, str], list[SamplesTaken]] = defaultdict(list)
        self._pending = 0
        self.samples = self.requests = 0

    def add(self, block: Block, reader: SegmentReader) -> None:
        """Take the events of the next block."""
        for place, envelope in enumerate(reader.events(block)):
            self._add(envelope, block.header.block_number, block.header.first_event + place)
            self._pending += 1
        if self._pending >= MAX_PENDING:
            self.insert()

    def insert(self) -> None:
        """Insert what has been collected."""
        self._tables.insert("events", self._events)
        self._tables.insert("requests", self._requests)
        batches = [
            SampleBatch(**self._identity, meter=meter, device_uuid=device_uuid, events=events)
            for (meter, device_uuid), events in self._samples.items()
        ]
        append_samples(self._tables.connection, batches)
        self._pending = 0
        for collected in (self._events, self._requests, self._samples):
            collected.clear()

    def _add(self, envelope: Envelope, block_number: int, event_number: int) -> None:
        try:
            event = unpack(envelope)
        except EventError:  # kept as it is; what does not fit its type says nothing of the figures
            event = UnknownEvent(envelope.type, envelope.version, envelope.body)
        match event:
            case SamplesTaken():
                self._samples[event.meter, event.device_uuid].append(event)
                self.samples += event.count
            case RequestsCompleted():
                self._requests += [self._request(event, request, event_number) for request in event.requests]
                self.requests += len(event.requests)
            case _:
                row = {
                    "block_number": block_number,
                    "event_number": event_number,
                    "type": envelope.type,
                    "version": event.VERSION if isinstance(event, Event) else envelope.version,
                    "at_ns": envelope.at_ns,
                    "body": _as_json(event),
                }
                self._events.append(self._identity | row)

    def _request(self, event: RequestsCompleted, request: Request, event_number: int) -> dict[str, Any]:
        fields = {name: getattr(request, name) for name in Request.__struct_fields__}
        return {**self._identity, **fields, "window_kind": event.window, "event_number": event_number}


def _as_json(event: Any) -> msgspec.Raw | None:
    """The fields of an event as JSON; of an unknown one, None where msgpack holds what JSON cannot."""
    try:
        fields = msgspec.msgpack.decode(event.body) if isinstance(event, UnknownEvent) else event
        return msgspec.Raw(msgspec.json.encode(fields))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None
