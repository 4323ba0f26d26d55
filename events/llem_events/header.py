"""The segment header: who writes this segment, where, since when."""

import hashlib
from pathlib import Path

import msgspec

from llem_events import skippable
from llem_events.errors import CorruptError, TooLargeError
from llem_events.limits import MAX_HEADER_BYTES
from llem_events.records import Int32, Int64
from llem_events.segment_file import open_segment_file

KIND = b"LLEH"
FORMAT_VERSION = 1
SEGMENT_ID_BYTES = 16
_PEEK_BYTES = 2**12


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Identity of a segment and of its only writer; `monotonic_ns` and `wall_ns` were read together."""

    segment_id: bytes
    experiment_id: str
    role: str  # supervisor, worker, sampler, import, load, server, study or note
    process_index: Int32 | None
    host: str
    boot_id: str
    pid: Int32
    llem_version: str
    schema_version: Int32
    monotonic_ns: Int64
    wall_ns: Int64
    recovered_from: bytes | None = None  # id of the damaged segment whose blocks these are
    skipped_bytes: Int64 = 0  # of that segment, not taken over because they do not verify
    skipped_blocks: Int64 = 0  # blocks known to be missing, as far as the numbers around them tell
    skipped_events: Int64 = 0
    redacted_digest: bytes | None = None  # last digest of the segment that this one is, without some texts


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


def peek(path: Path) -> SegmentHeader:
    """The header of a segment, without reading further. Raises SegmentReadError, CorruptError, NewerFormatError."""
    with open_segment_file(path, read_ahead_bytes=_PEEK_BYTES) as file:
        start = file.read(skippable.PREFIX.size)
        if len(start) < skippable.PREFIX.size:
            raise CorruptError("the file ends inside its header", offset=0)
        return unpack(start + file.read(skippable.frame_length(start, 0) - len(start)))


def digest(frame: bytes) -> bytes:
    """SHA-256 of the whole header frame: what the first block names as its predecessor."""
    return hashlib.sha256(frame).digest()
