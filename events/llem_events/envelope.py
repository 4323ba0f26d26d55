"""The envelope of an event: [type, version, at_ns, body], with the body kept as bytes until its type is known."""

from collections.abc import Mapping

import msgspec

from llem_events.errors import CorruptError, EventError
from llem_events.events import EVENT_TYPES, Event

_ARRAY32 = b"\xdd"  # msgpack: array with a 32-bit count


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """One event as it stands in the log; never changes."""

    type: str
    version: int
    at_ns: int
    body: msgspec.Raw


class UnknownEvent(msgspec.Struct, frozen=True):
    """An event of a type or version that this llem does not know, kept as it is."""

    type: str
    version: int
    body: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
_list_decoder = msgspec.msgpack.Decoder(list[Envelope])
_decoders: Mapping[tuple[str, int], msgspec.msgpack.Decoder[Event]] = {
    (event.TYPE, event.VERSION): msgspec.msgpack.Decoder(event) for event in EVENT_TYPES
}
FOREIGN_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MemoryError, OverflowError)


def pack(event: Event, at_ns: int) -> bytes:
    """The msgpack message of one event."""
    return _encoder.encode((event.TYPE, event.VERSION, at_ns, event))


def unpack_all(raw: bytes, event_count: int, *, offset: int) -> list[Envelope]:
    """The `event_count` messages of a payload, decoded in one pass as if an array header stood before them."""
    try:
        return _list_decoder.decode(b"".join((_ARRAY32, event_count.to_bytes(4, "big"), raw)))
    except FOREIGN_ERRORS as error:
        raise CorruptError(f"events of the block: {error}", offset=offset) from error


def unpack(envelope: Envelope) -> Event | UnknownEvent:
    """The event in its envelope; an unknown type or version is kept, not refused. Raises EventError."""
    decoder = _decoders.get((envelope.type, envelope.version))
    if decoder is None:
        return UnknownEvent(envelope.type, envelope.version, envelope.body)
    try:
        return decoder.decode(envelope.body)
    except FOREIGN_ERRORS as error:
        raise EventError(f"{envelope.type} version {envelope.version}: {error}") from error
