"""The skippable zstd frame that carries each of the format's own records, guarded by a CRC of its own."""

import struct
import zlib

from llem_events.errors import CorruptError, NewerFormatError
from llem_events.limits import MAX_HEADER_BYTES

MAGIC = 0x184D2A5E  # one of the sixteen magic numbers that zstd decoders skip
PREFIX = struct.Struct("<III4sHH")  # magic, content length, CRC-32, kind, format version, length echo
_HEAD, _CRC, _TAIL = struct.Struct("<II"), struct.Struct("<I"), struct.Struct("<4sHH")
FRAME_HEAD_BYTES = 8  # magic and content length, not counted in the content length
MAGIC_BYTES = MAGIC.to_bytes(4, "little")


def pack(kind: bytes, version: int, fields: bytes) -> bytes:
    """One skippable frame: prefix and fields. The CRC covers every other byte of the frame."""
    length = PREFIX.size - FRAME_HEAD_BYTES + len(fields)
    head = _HEAD.pack(MAGIC, length)
    tail = _TAIL.pack(kind, version, length & 0xFFFF) + fields
    return head + _CRC.pack(crc(head, tail)) + tail


def kind_of(prefix: bytes) -> bytes:
    """The kind that a record's prefix names."""
    kind: bytes = PREFIX.unpack_from(prefix)[3]
    return kind


def frame_length(prefix: bytes, offset: int) -> int:
    """Length of the whole frame, within its cap; the echo tells a changed length from a frame that is cut short."""
    magic, length, _, _, _, echo = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise CorruptError(
            f"no record of the log here: found magic {magic:#010x}, expected {MAGIC:#010x}", offset=offset
        )
    whole = int(length) + FRAME_HEAD_BYTES
    if length & 0xFFFF != echo or not PREFIX.size <= whole <= MAX_HEADER_BYTES:
        raise CorruptError(
            f"record length: found {length} with echo {echo}, expected at most {MAX_HEADER_BYTES - FRAME_HEAD_BYTES}",
            offset=offset,
        )
    return whole


def crc(head: bytes, tail: bytes) -> int:
    """CRC-32 (ISO-HDLC, as zlib's) over the frame without its CRC field."""
    return zlib.crc32(tail, zlib.crc32(head))


def check(frame: bytes, offset: int) -> tuple[bytes, int, bytes]:
    """(kind, version, fields) of a complete frame. Raises CorruptError where magic, length or CRC do not fit."""
    if len(frame) < PREFIX.size:
        raise CorruptError(
            f"record: found {len(frame)} bytes, expected at least {PREFIX.size}", offset=offset
        )
    length = frame_length(frame[: PREFIX.size], offset)
    if length != len(frame):
        raise CorruptError(f"record: found {len(frame)} bytes, expected {length}", offset=offset)
    _, _, stored, kind, version, _ = PREFIX.unpack_from(frame)
    computed = crc(frame[:FRAME_HEAD_BYTES], frame[FRAME_HEAD_BYTES + 4 :])
    if computed != stored:
        raise CorruptError(f"record CRC: found {stored:#010x}, computed {computed:#010x}", offset=offset)
    return kind, version, frame[PREFIX.size :]


def fields_of(frame: bytes, offset: int, *, kind: bytes, newest: int, what: str) -> bytes:
    """The fields of a complete frame of one kind. Raises CorruptError, or NewerFormatError over version `newest`."""
    found, version, fields = check(frame, offset)
    if found != kind:
        raise CorruptError(f"not a {what}: found kind {found!r}, expected {kind!r}", offset=offset)
    if version > newest:
        raise NewerFormatError(
            f"{what}: found format version {version}, expected at most {newest}; upgrade llem"
        )
    return fields
