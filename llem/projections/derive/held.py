"""The rows of an experiment that fit into memory: samples and requests in arrays."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from llem.projections.derive.columns import FAILED, LISTS, NO_INTS, Groups, Ints, RequestColumns
from llem.projections.derive.pieces import Asked
from llem.projections.derive.source import (
    LIMITED,
    MEASUREMENT,
    POSSIBLE,
    SERIES,
    WARMUP,
    Column,
    Device,
    Piece,
    Sampled,
    Series,
    Sizes,
    Span,
    Usage,
    Values,
    ascending,
    extremes_in,
    values_in,
)
from llem_events.events import Request

_NO_SAMPLES: Piece = NO_INTS, dict.fromkeys(POSSIBLE, np.empty(0))


class HeldSamples(NamedTuple):
    """Samples of one device in one segment."""

    device: Device
    segment_id: str
    at_ns: Ints
    columns: Mapping[str, Column]

    def counted(self) -> Sampled:
        """What `Source.sampled` says of them."""
        beyond = np.zeros(len(self.at_ns), np.bool_)
        for name, (least, most) in POSSIBLE.items():
            beyond |= (self.columns[name] < least) | (self.columns[name] > most)
        return Sampled(
            self.device,
            self.segment_id,
            samples=len(self.at_ns),
            first_ns=int(self.at_ns.min()),
            last_ns=int(self.at_ns.max()),
            impossible=int(np.count_nonzero(beyond)),
        )


class HeldRequests:
    """All requests of one segment: of each event its number, the kind of the window, and what it reported."""

    def __init__(self, events: Sequence[tuple[int, str, Sequence[Request]]]) -> None:
        self._kinds = np.array([kind for _, kind, requests in events for _ in requests], object)
        self.all = RequestColumns.of([request for _, _, requests in events for request in requests])
        measured = [
            (number, request)
            for number, kind, requests in events
            if kind == MEASUREMENT
            for request in requests
        ]
        self._event_numbers = np.array([number for number, _ in measured], np.int64)
        self.ids = np.array([request.request_id for _, request in measured], np.int64)
        self._requests = [request for _, request in measured]
        places = np.flatnonzero(self._kinds == MEASUREMENT)
        first, end = (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
        self._measured = (
            self.all.rows(first, end)
            if end - first == len(measured)
            else RequestColumns.of([request for _, request in measured])
        )

    def sizes(self) -> Sizes:
        """See Source.request_sizes."""
        measured = self._measured
        values = Groups({"values": np.add})
        lengths = [getattr(measured, name).lengths for name in LISTS]
        values.add(self._event_numbers, {"values": 1 + sum(lengths)})
        numbers, counted = values.found()
        warmup = int(np.count_nonzero(self._kinds == WARMUP))
        return Sizes(numbers, counted["values"], warmup)

    def usage(self) -> Usage:
        """See Source."""
        well = [request for request in self._requests if request.finish_reason != FAILED]
        told = [request for request in well if request.usage_output_tokens is not None]
        return Usage(
            streamed_output_tokens=sum(request.output_tokens for request in well),
            counted_output_tokens=sum(request.output_tokens for request in told) if told else None,
            output_tokens=_known_sum(request.usage_output_tokens for request in well),
            input_tokens=_known_sum(request.usage_input_tokens for request in well),
            cached_input_tokens=_known_sum(request.cached_input_tokens for request in self._requests),
        )

    def of_events(self, first: int, last: int) -> RequestColumns:
        """See Source.requests."""
        edges = np.searchsorted(self._event_numbers, (first, last + 1))
        return self._measured.rows(*edges.tolist())

    def last_end_ns(self, window_kind: str, since_ns: int) -> int | None:
        """See Source."""
        ends_ns = self.all.numbers["end_ns"][self._kinds == window_kind]
        return _latest(ends_ns[ends_ns >= since_ns])


class Held:
    """Rows of an experiment that fit into memory: samples by device and segment, and requests by segment, in the order of the tables."""

    def __init__(
        self, events_ns: Sequence[int], samples: Sequence[HeldSamples], requests: Mapping[str, HeldRequests]
    ) -> None:
        self._events_ns, self._samples, self._requests = events_ns, samples, requests
        self._devices = {device: _joined(samples, device) for device in {each.device for each in samples}}

    def extremes(self, table: str) -> Mapping[str, Span]:
        """See Source."""
        match table:
            case "events":
                return extremes_in({"at_ns": [np.array(self._events_ns, np.int64)]})
            case "samples":
                return extremes_in({"at_ns": [each.at_ns for each in self._samples]})
        held = [requests.all for requests in self._requests.values()]
        return extremes_in({name: [_values(each, name) for each in held] for name in LIMITED[table]})

    def sampled(self) -> Sequence[Sampled]:
        """See Source."""
        counted: dict[tuple[Device, str], Sampled] = {}
        for some in (each.counted() for each in self._samples if len(each.at_ns)):
            key = some.device, some.segment_id
            counted[key] = counted[key].joined(some) if key in counted else some
        return list(counted.values())

    def extent(self, device: Device) -> tuple[int, int, int]:
        """See Source."""
        at_ns, _ = self._devices.get(device, _NO_SAMPLES)
        return (len(at_ns), int(at_ns[0]), int(at_ns[-1])) if len(at_ns) else (0, 0, 0)

    def ranges(self, device: Device, span: Span) -> Iterable[Span]:
        """See Source."""
        return [span]

    def series(self, device: Device, span: Span, asked: Asked) -> Iterable[Series]:
        """See Source."""
        return [(*self.samples(device, span, SERIES), None)]

    def moments(self, device: Device, span: Span) -> Ints:
        """See Source."""
        return NO_INTS

    def samples(self, device: Device, span: Span, names: Sequence[str]) -> Piece:
        """See Source."""
        at_ns, columns = self._devices.get(device, _NO_SAMPLES)
        first, end = np.searchsorted(at_ns, span[0]), np.searchsorted(at_ns, span[1], side="right")
        return at_ns[first:end], {name: columns[name][first:end] for name in names}

    def values(self, device: Device, span: Span, names: Sequence[str]) -> Mapping[str, Values]:
        """See Source."""
        _, columns = self.samples(device, span, names)
        return {name: values_in(columns[name]) for name in names}

    def last_sample_ns(self, process_index: int, since_ns: int) -> int | None:
        """See Source."""
        latest = [
            at_ns[-1:]
            for device, (at_ns, _) in self._devices.items()
            if device.process_index == process_index
        ]
        found = _latest(np.concatenate([NO_INTS, *latest]))
        return found if found is not None and found >= since_ns else None

    def request_sizes(self, segment_id: str) -> Sizes:
        """See Source."""
        held = self._requests.get(segment_id)
        return Sizes(NO_INTS, NO_INTS, 0) if held is None else held.sizes()

    def requests(self, segment_id: str, first_event: int, last_event: int) -> RequestColumns:
        """See Source."""
        return self._requests[segment_id].of_events(first_event, last_event)

    def request_ids(self, segment_id: str) -> Ints:
        """See Source."""
        held = self._requests.get(segment_id)
        return NO_INTS if held is None else held.ids

    def last_end_ns(self, segment_id: str, window_kind: str, since_ns: int) -> int | None:
        """See Source."""
        held = self._requests.get(segment_id)
        return None if held is None else held.last_end_ns(window_kind, since_ns)

    def usage(self, segment_id: str) -> Usage:
        """See Source."""
        held = self._requests.get(segment_id)
        return Usage(0) if held is None else held.usage()

    def repeated_request_ids(self) -> int:
        """See Source."""
        ids = np.concatenate([NO_INTS, *(requests.ids for requests in self._requests.values())])
        return len(ids) - len(np.unique(ids))


def _joined(samples: Sequence[HeldSamples], device: Device) -> Piece:
    """All samples of a device, ascending."""
    parts = [each for each in samples if each.device == device]
    if len(parts) == 1:
        return ascending(parts[0].at_ns, parts[0].columns)
    names = parts[0].columns
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
    return ascending(np.concatenate([part.at_ns for part in parts]), columns)


def _values(columns: RequestColumns, name: str) -> Ints:
    """All that are known of a column."""
    values: Ints = getattr(columns, name).values if name in LISTS else np.ma.compressed(columns.numbers[name])
    return values


def _known_sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _latest(moments_ns: Ints) -> int | None:
    return int(moments_ns.max()) if len(moments_ns) else None
