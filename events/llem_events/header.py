"""The segment header: who writes this segment, where, since when."""

import hashlib
from typing import Literal

import msgspec

from llem_events import skippable
from llem_events.errors import CorruptError, TooLargeError
from llem_events.limits import MAX_HEADER_BYTES

KIND = b"LLEH"
FORMAT_VERSION = 1
SEGMENT_ID_BYTES = 16


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of a segment and of its only writer; `monotonic_ns` and `wall_ns` were read together."""

    segment_id: bytes
    experiment_id: str
    role: Literal["supervisor", "worker", "sampler", "import"]
    process_index: int | None
    host: str
    boot_id: str
    pid: int
    llem_version: str
    schema_version: int
    monotonic_ns: int
    wall_ns: int
    recovered_from: bytes | None = None  # id of the damaged segment whose blocks these are


_decoder = msgspec.msgpack.Decoder(SegmentHeader)


def pack(header: SegmentHeader) -> bytes:
    """The header's frame. Raises TooLargeError over MAX_HEADER_BYTES."""
    frame = skippable.pack(KIND, FORMAT_VERSION, msgspec.msgpack.encode(header))
    if len(frame) > MAX_HEADER_BYTES:
        raise TooLargeError(f"segment header: found {len(frame)} bytes, expected at most {MAX_HEADER_BYTES}")
    return frame


def unpack(frame: bytes) -> SegmentHeader:
    """The header of a complete frame. Raises CorruptError or NewerFormatError."""
    fields = skippable.fields_of(frame, 0, kind=KIND, newest=FORMAT_VERSION, what="segment header")
    try:
        header = _decoder.decode(fields)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise CorruptError(f"segment header fields: {error}", offset=0) from error
    if len(header.segment_id) != SEGMENT_ID_BYTES:
        raise CorruptError(
            f"segment id: found {len(header.segment_id)} bytes, expected {SEGMENT_ID_BYTES}", offset=0
        )
    return header


def digest(frame: bytes) -> bytes:
    """SHA-256 of the whole header frame: what the first block names as its predecessor."""
    return hashlib.sha256(frame).digest()
