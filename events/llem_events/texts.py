"""The texts of the log that name a kind of something: those that this llem knows, and the one in a record that it does not.

Such texts are open: any text is read. One that is not known here was written by a later llem, so that a log which holds it is newer than
this program, and not damaged.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from llem_events.errors import NewerFormatError
from llem_events.events import (
    SCHEMA_VERSION,
    BaselineMeasured,
    Event,
    MeterStarted,
    ModelLoaded,
    ProcessStarted,
    RequestsCompleted,
    WindowClosed,
    WindowOpened,
)
from llem_events.format import SegmentHeader

ROLES = frozenset({"supervisor", "rank", "worker", "sampler", "import", "load", "server", "study", "note"})
WINDOW_KINDS = frozenset({"baseline", "warmup", "measurement", "drain", "guard"})
DEVICE_KINDS = frozenset({"gpu", "mig", "cpu_package", "dram", "process", "simulated", "wall"})
ENERGY_SOURCES = frozenset({"counter", "integrated", "estimated", "simulated"})
POWER_KINDS = frozenset({"instant", "average", "derived"})
FINISH_REASONS = frozenset({"length", "eos", "finished", "stopped", "error"})
BASELINE_POSITIONS = frozenset({"before", "after", "server_idle"})
WEIGHTS = frozenset({"pretrained", "random", "simulated", "unknown"})
Named = tuple[str, str | None, frozenset[str]]


class UnknownText(msgspec.Struct, frozen=True):
    """A text that this llem does not know, and what it was meant to name."""

    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.what} {self.text!r} is not known to this llem"


def _of_devices(event: MeterStarted) -> Iterator[Named]:
    for metered in event.devices:
        yield "device kind", metered.device.kind, DEVICE_KINDS
        yield "energy source", metered.energy_source, ENERGY_SOURCES
        yield "power kind", metered.power_kind, POWER_KINDS


def _of_requests(event: RequestsCompleted) -> Iterator[Named]:
    yield "window kind", event.window, WINDOW_KINDS
    for reason in {request.finish_reason for request in event.requests}:
        yield "finish reason", reason, FINISH_REASONS


# record -> every open text in it, with the texts known for it
_NAMED: Mapping[type[msgspec.Struct], Callable[[Any], Iterable[Named]]] = {
    SegmentHeader: lambda header: [("role", header.role, ROLES)],
    ProcessStarted: lambda event: [("device kind", device.kind, DEVICE_KINDS) for device in event.devices],
    MeterStarted: _of_devices,
    WindowOpened: lambda event: [("window kind", event.kind, WINDOW_KINDS)],
    WindowClosed: lambda event: [("window kind", event.kind, WINDOW_KINDS)],
    BaselineMeasured: lambda event: [("baseline position", event.position, BASELINE_POSITIONS)],
    ModelLoaded: lambda event: [("kind of weights", event.weights, WEIGHTS)],
    RequestsCompleted: _of_requests,
}


def unknown_text(record: SegmentHeader | Event) -> UnknownText | None:
    """The first text of a header or an event that names something unknown here; None where all are known."""
    named = _NAMED.get(type(record))
    if named is None:
        return None
    return next(
        (
            UnknownText(what, text)
            for what, text, known in named(record)
            if text is not None and text not in known
        ),
        None,
    )


def check_known(record: SegmentHeader | Event) -> None:
    """Raises NewerFormatError where a header or an event says what only a later llem understands."""
    if isinstance(record, SegmentHeader) and record.schema_version > SCHEMA_VERSION:
        raise NewerFormatError(
            f"schema version: found {record.schema_version}, expected at most {SCHEMA_VERSION}; upgrade llem"
        )
    unknown = unknown_text(record)
    if unknown is not None:
        raise NewerFormatError(f"{unknown}; upgrade llem")
