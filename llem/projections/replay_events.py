"""Events of one segment as rows: requests and samples into their own tables, all others as they are."""

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec

from llem.projections.containment import MisfitError
from llem.projections.samples import Identity, append_samples
from llem.projections.tables import Rows, Tables
from llem_events import Position, SegmentReader, UnknownEvent
from llem_events.events import Event, Request, RequestsCompleted
from llem_events.replay import Occurrence, SampleBatch, replay

MAX_ROWS = 20_000  # of events and requests, held before they are inserted


class Replay:
    """Takes what follows a position of a segment into the tables, in bounded memory; counts what it took."""

    def __init__(self, tables: Tables, reader: SegmentReader, identity: Identity) -> None:
        self._tables, self._reader, self._identity = tables, reader, identity
        self._events: Rows = []
        self._requests: Rows = []
        self._is_done = False
        self.samples = self.requests = 0

    def run(self, start: Position | None) -> None:
        """Insert everything from `start` on. Raises CorruptError."""
        replayed = replay(self._reader, start)
        while not self._is_done:
            batches = self._samples_until_full(replayed)
            first = next(batches, None)
            if first is not None:
                every = itertools.chain([first], batches)
                self.samples += append_samples(self._tables.connection, every, identity=self._identity)
            self._insert()

    def _samples_until_full(self, replayed: Iterator[SampleBatch | Occurrence]) -> Iterator[SampleBatch]:
        """Batches of samples; other events are collected, because the connection is busy with the samples meanwhile."""
        for item in replayed:
            self._tables.course.reach(self._reader.position.offset)
            if isinstance(item, SampleBatch):
                yield item
            else:
                self._collect(item)
            if len(self._events) + len(self._requests) >= MAX_ROWS:
                return
        self._is_done = True

    def _collect(self, occurrence: Occurrence) -> None:
        event = occurrence.event
        if isinstance(event, RequestsCompleted):
            self._requests += [
                self._request(event, request, occurrence.event_number) for request in event.requests
            ]
            return
        if isinstance(event, UnknownEvent) and event.problem is not None:
            raise MisfitError(f"event {occurrence.event_number}: {event.problem}")
        row = {
            "block_number": occurrence.block_number,
            "event_number": occurrence.event_number,
            "type": occurrence.envelope.type,
            "version": event.VERSION if isinstance(event, Event) else occurrence.envelope.version,
            "at_ns": occurrence.envelope.at_ns,
            "body": _as_json(event),
        }
        self._events.append(self._identity._asdict() | row)

    def _request(self, event: RequestsCompleted, request: Request, event_number: int) -> dict[str, Any]:
        fields = {name: getattr(request, name) for name in Request.__struct_fields__}
        return {
            **self._identity._asdict(),
            **fields,
            "window_kind": event.window,
            "event_number": event_number,
        }

    def _insert(self) -> None:
        self._tables.insert("events", self._events)
        self._tables.insert("requests", self._requests)
        self.requests += len(self._requests)
        self._events.clear()
        self._requests.clear()


def _as_json(event: Event | UnknownEvent) -> msgspec.Raw | None:
    """The fields of an event as JSON; of an unknown one, None where msgpack holds what JSON cannot."""
    try:
        fields = msgspec.msgpack.decode(event.body) if isinstance(event, UnknownEvent) else event
        return msgspec.Raw(msgspec.json.encode(fields))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None
