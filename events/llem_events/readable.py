"""Events as plain rows for people and for JSON: byte strings as hex, samples as lists of values, unknown types kept."""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from llem_events import columns
from llem_events.envelope import FOREIGN_ERRORS, Envelope, UnknownEvent, unpack
from llem_events.errors import EventError
from llem_events.events import Event, SamplesTaken


def row(envelope: Envelope, number: int) -> dict[str, Any]:
    """One event with its number in the segment. `problem` says why a body is shown as bare bytes."""
    found = {"number": number, "at_ns": envelope.at_ns, "type": envelope.type, "version": envelope.version}
    try:
        return found | {"body": _body(envelope)}
    except (EventError, *FOREIGN_ERRORS) as error:
        return found | {"body": plain(bytes(envelope.body)), "problem": str(error)}


def _body(envelope: Envelope) -> Any:
    if envelope.type == SamplesTaken.TYPE and isinstance(event := unpack(envelope), SamplesTaken):
        return _samples(event)
    if isinstance(unpack(envelope), UnknownEvent) and len(memoryview(envelope.body)) > Event.MAX_BYTES:
        raise EventError(f"an unknown event over {Event.MAX_BYTES} bytes is not decoded")
    return plain(msgspec.msgpack.decode(envelope.body))


def _samples(event: SamplesTaken) -> dict[str, Any]:
    samples = {name: _values(*column) for name, column in columns.unpack(event).items()}
    return {"meter": event.meter, "device_uuid": event.device_uuid, "count": event.count, "samples": samples}


def _values(values: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_] | None) -> list[int | None]:
    numbers: list[int | None] = values.tolist()
    if missing is not None:
        for place in missing.nonzero()[0].tolist():
            numbers[place] = None
    return numbers


def plain(found: Any) -> Any:
    """The same in what JSON has: byte strings as {"hex": ...}, other keys than text as text."""
    match found:
        case bytes():
            return {"hex": found.hex()}
        case dict():
            return {key if isinstance(key, str) else repr(key): plain(item) for key, item in found.items()}
        case list():
            return [plain(item) for item in found]
        case None | bool() | int() | float() | str():
            return found
        case _:
            return repr(found)
