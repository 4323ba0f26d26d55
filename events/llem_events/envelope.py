"""The envelope of an event: [type, version, at_ns, body], with the body kept as bytes until its type is known."""

from collections.abc import Mapping

import msgspec

from llem_events.errors import CorruptError, EventError, TooLargeError
from llem_events.events import Event, Int32, Int64
from llem_events.upcast import KNOWN_VERSIONS, upcast

_ARRAY32 = b"\xdd"  # msgpack: array with a 32-bit count
# What msgspec and a step of an upcast raise for bytes or objects that do not fit; one border, here.
FOREIGN_ERRORS = (
    msgspec.MsgspecError,
    ValueError,  # with it UnicodeDecodeError and UnicodeEncodeError
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
)
_encoder = msgspec.msgpack.Encoder()
_decoders: Mapping[tuple[str, int], msgspec.msgpack.Decoder[Event]] = {
    name: msgspec.msgpack.Decoder(event) for name, event in KNOWN_VERSIONS.items()
}


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """One event as it stands in the log; never changes."""

    type: str
    version: Int32
    at_ns: Int64
    body: msgspec.Raw


class UnknownEvent(msgspec.Struct, frozen=True):
    """An event of a type or version that this llem does not know, kept as it is; `problem` says why one of a known type is here."""

    type: str
    version: int
    body: msgspec.Raw
    problem: str | None = None  # where it does not fit its declared type: the segment is damaged there


_decoder = msgspec.msgpack.Decoder(Envelope)
_list_decoder = msgspec.msgpack.Decoder(list[Envelope])


def pack(event: Event, at_ns: int) -> bytes:
    """The msgpack message of one event, without the secrets that stood in its texts.

    Every event that is ever written comes through here. Raises EventError for what msgpack or a column cannot hold, that is for what a
    reader would refuse, and TooLargeError over the event's cap.
    """
    try:
        body = _encoder.encode(event.cleaned())
        message = _encoder.encode((event.TYPE, event.VERSION, at_ns, msgspec.Raw(body)))
        _check_readable(event, message, body)
    except FOREIGN_ERRORS as error:
        raise EventError(f"{event.TYPE} cannot be written: {error}") from error
    return message


def _check_readable(event: Event, message: bytes, body: bytes) -> None:
    """Read the message as a reader will: what it would refuse must not be written."""
    if len(message) > event.MAX_BYTES:
        raise TooLargeError(f"{event.TYPE}: found {len(message)} bytes, expected at most {event.MAX_BYTES}")
    _decoder.decode(message)
    if (decoder := _decoders.get((event.TYPE, event.VERSION))) is not None:
        decoder.decode(body)


def unpack_all(raw: bytes, event_count: int, *, offset: int) -> list[Envelope]:
    """The `event_count` messages of a payload, decoded in one pass as if an array header stood before them."""
    try:
        return _list_decoder.decode(b"".join((_ARRAY32, event_count.to_bytes(4, "big"), raw)))
    except FOREIGN_ERRORS as error:
        raise CorruptError(f"events of the block: {error}", offset=offset) from error


def unpack(envelope: Envelope) -> Event | UnknownEvent:
    """The event in its envelope, in today's version; an unknown type or version is kept, not refused. Raises EventError."""
    name = (envelope.type, envelope.version)
    decoder = _decoders.get(name)
    if decoder is None:
        return UnknownEvent(*name, envelope.body)
    body, cap = memoryview(envelope.body), KNOWN_VERSIONS[name].MAX_BYTES
    if len(body) > cap:  # before decoding: small bytes can become large objects
        raise EventError(
            f"{envelope.type} version {envelope.version}: found {len(body)} bytes, expected at most {cap}"
        )
    try:
        return upcast(decoder.decode(body))
    except FOREIGN_ERRORS as error:
        raise EventError(f"{envelope.type} version {envelope.version}: {error}") from error
