"""The byte format of a segment: skippable frames with the format's own records, and zstd frames of events between them.

Each record stands beside its writing and its reading, in the order of FORMAT.md. The caps are checked before any allocation: a reader refuses
what exceeds them, a writer never writes it.
"""

import hashlib
import struct
import zlib
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec
import zstandard

from llem_events.errors import CorruptError, NewerFormatError, TooLargeError
from llem_events.events import Int32, Int64
from llem_events.files import open_segment_file

MAX_COMPRESSED_BLOCK_BYTES = 16 * 2**20
MAX_RAW_BLOCK_BYTES = 16 * 2**20  # a block target and the largest event, with room
MAX_ZSTD_WINDOW_BYTES = 8 * 2**20
MAX_EVENTS_PER_BLOCK = 2**16
MAX_HEADER_BYTES = 64 * 2**10

BLOCK_TARGET_BYTES = 256 * 2**10  # a writer closes its block at this raw size
BLOCK_TARGET_NS = 1_000_000_000  # or when its first event is this old

# every record: a skippable frame
RECORD_MAGIC = 0x184D2A5E  # one of the sixteen magic numbers that zstd decoders skip
_PREFIX = struct.Struct("<III4sHH")  # magic, content length, CRC-32, kind, format version, length echo
_HEAD, _CRC, _TAIL = struct.Struct("<II"), struct.Struct("<I"), struct.Struct("<4sHH")
FRAME_HEAD_BYTES = 8  # magic and content length, not counted in the content length
MAGIC_BYTES = RECORD_MAGIC.to_bytes(4, "little")
DIGEST_BYTES = 32

# the block: a header record followed by one zstd frame of events
BLOCK_HEADER_KIND = b"LLEB"
BLOCK_VERSION = 1
COMPRESSION_LEVEL = 3
SAMPLES_LEVEL = -1  # their noise cannot be compressed: level 1 saves 3 % and makes writing a tenth slower
# block number, first event, event count, compressed length, raw length
_BLOCK_COUNTS = struct.Struct("<QQIII")
_BLOCK_FIELDS = struct.Struct(f"{_BLOCK_COUNTS.format}{DIGEST_BYTES}s{DIGEST_BYTES}s")  # and both digests
BLOCK_HEADER_BYTES = _PREFIX.size + _BLOCK_FIELDS.size

# the segment header
SEGMENT_HEADER_KIND = b"LLEH"
FORMAT_VERSION = 1
SEGMENT_ID_BYTES = 16
_PEEK_BYTES = 2**12

# the seal
SEAL_KIND = b"LLES"
SEAL_VERSION = 1
_SEAL_TOTALS = struct.Struct("<QQQQ")  # blocks, events, raw bytes, compressed bytes
SEAL_BYTES = _PREFIX.size + _SEAL_TOTALS.size + 2 * DIGEST_BYTES


def pack_record(kind: bytes, version: int, fields: bytes) -> bytes:
    """One skippable frame: prefix and fields. The CRC covers every other byte of the frame."""
    length = _PREFIX.size - FRAME_HEAD_BYTES + len(fields)
    head = _HEAD.pack(RECORD_MAGIC, length)
    tail = _TAIL.pack(kind, version, length & 0xFFFF) + fields
    return head + _CRC.pack(crc(head, tail)) + tail


def kind_of(prefix: bytes) -> bytes:
    """The kind that a record's prefix names."""
    # asked of every block of a log, and so not unpacked with the rest of the prefix, which takes five times as long
    return prefix[12:16]


def frame_length(prefix: bytes, offset: int) -> int:
    """Length of the whole frame, within its cap; the echo tells a changed length from a frame that is cut short."""
    magic, length, _, _, _, echo = _PREFIX.unpack_from(prefix)
    if magic != RECORD_MAGIC:
        raise CorruptError(
            f"no record of the log here: found magic {magic:#010x}, expected {RECORD_MAGIC:#010x}",
            offset=offset,
        )
    whole: int = length + FRAME_HEAD_BYTES
    if length & 0xFFFF != echo or not _PREFIX.size <= whole <= MAX_HEADER_BYTES:
        raise CorruptError(
            f"record length: found {length} with echo {echo}, expected at most {MAX_HEADER_BYTES - FRAME_HEAD_BYTES}",
            offset=offset,
        )
    return whole


def crc(head: bytes, tail: bytes) -> int:
    """CRC-32 (ISO-HDLC, as zlib's) over the frame without its CRC field."""
    return zlib.crc32(tail, zlib.crc32(head))


def check_record(frame: bytes, offset: int) -> tuple[bytes, int, bytes]:
    """(kind, version, fields) of a complete frame. Raises CorruptError where magic, length or CRC do not fit."""
    if len(frame) < _PREFIX.size:
        raise CorruptError(
            f"record: found {len(frame)} bytes, expected at least {_PREFIX.size}", offset=offset
        )
    length = frame_length(frame, offset)
    if length != len(frame):
        raise CorruptError(f"record: found {len(frame)} bytes, expected {length}", offset=offset)
    _, _, stored, kind, version, _ = _PREFIX.unpack_from(frame)
    computed = crc(frame[:FRAME_HEAD_BYTES], frame[FRAME_HEAD_BYTES + 4 :])
    if computed != stored:
        raise CorruptError(f"record CRC: found {stored:#010x}, computed {computed:#010x}", offset=offset)
    return kind, version, frame[_PREFIX.size :]


def fields_of(frame: bytes, offset: int, *, kind: bytes, newest: int, what: str) -> bytes:
    """The fields of a complete frame of one kind. Raises CorruptError, or NewerFormatError over version `newest`."""
    found, version, fields = check_record(frame, offset)
    if found != kind:
        raise CorruptError(f"not a {what}: found kind {found!r}, expected {kind!r}", offset=offset)
    if version > newest:
        raise NewerFormatError(
            f"{what}: found format version {version}, expected at most {newest}; upgrade llem"
        )
    return fields


class BlockHeader(NamedTuple):
    """Place of a block in its segment, its sizes in bytes, and its link in the chain of digests."""

    block_number: int
    first_event: int
    event_count: int
    compressed_length: int
    raw_length: int
    previous_digest: bytes
    digest: bytes


def compressor(role: str) -> zstandard.ZstdCompressor:
    """The compressor of every payload that a writer of this role writes: content size and checksum written, no dictionary."""
    level = SAMPLES_LEVEL if role == "sampler" else COMPRESSION_LEVEL
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)


def chain_digest(segment_id: bytes, previous_digest: bytes, fields: bytes, payload: bytes) -> bytes:
    """SHA-256 over segment id, previous digest, header fields and compressed payload, in this order."""
    return hashlib.sha256(b"".join((segment_id, previous_digest, fields, payload))).digest()


def pack_block(
    payload: bytes,
    *,
    segment_id: bytes,
    block_number: int,
    first_event: int,
    event_count: int,
    raw_length: int,
    previous_digest: bytes,
) -> tuple[BlockHeader, bytes]:
    """Header and bytes of one block. Raises TooLargeError for what a reader would refuse."""
    _check_caps(event_count, len(payload), raw_length)
    counts = (block_number, first_event, event_count, len(payload), raw_length)
    digest = chain_digest(segment_id, previous_digest, _BLOCK_COUNTS.pack(*counts), payload)
    header = BlockHeader(*counts, previous_digest, digest)
    frame = pack_record(BLOCK_HEADER_KIND, BLOCK_VERSION, _BLOCK_FIELDS.pack(*header))
    return header, frame + payload


def _check_caps(event_count: int, compressed_length: int, raw_length: int) -> None:
    if event_count > MAX_EVENTS_PER_BLOCK:
        _refuse("events in a block", event_count, MAX_EVENTS_PER_BLOCK)
    if compressed_length > MAX_COMPRESSED_BLOCK_BYTES:
        _refuse("compressed block", compressed_length, MAX_COMPRESSED_BLOCK_BYTES)
    if raw_length > MAX_RAW_BLOCK_BYTES:
        _refuse("raw block", raw_length, MAX_RAW_BLOCK_BYTES)


def _refuse(name: str, found: int, cap: int) -> NoReturn:
    raise TooLargeError(f"{name}: found {found}, expected at most {cap}")


def unpack_block_header(frame: bytes, offset: int) -> BlockHeader:
    """The header of a complete frame of HEADER_BYTES. Raises CorruptError or NewerFormatError; no length is believed before."""
    fields = fields_of(frame, offset, kind=BLOCK_HEADER_KIND, newest=BLOCK_VERSION, what="block header")
    if len(frame) != BLOCK_HEADER_BYTES:
        raise CorruptError(
            f"block header: found {len(frame)} bytes, expected {BLOCK_HEADER_BYTES}", offset=offset
        )
    header = BlockHeader(*_BLOCK_FIELDS.unpack(fields))
    try:
        _check_caps(header.event_count, header.compressed_length, header.raw_length)
    except TooLargeError as error:
        raise CorruptError(str(error), offset=offset) from error
    return header


def check_payload(
    header: BlockHeader, frame: bytes, payload: bytes, *, segment_id: bytes, offset: int
) -> None:
    """Raises CorruptError unless the digest in the header is the digest of header fields and payload."""
    counts = frame[_PREFIX.size : _PREFIX.size + _BLOCK_COUNTS.size]
    if chain_digest(segment_id, header.previous_digest, counts, payload) != header.digest:
        raise CorruptError(f"digest of block {header.block_number} does not fit its bytes", offset=offset)


def decompress(
    header: BlockHeader, payload: bytes, *, decompressor: zstandard.ZstdDecompressor, offset: int
) -> bytes:
    """The raw events. Sizes that the zstd frame declares are checked before anything is allocated."""
    try:
        declared = zstandard.get_frame_parameters(payload)
        if declared.content_size != header.raw_length:
            raise CorruptError(
                f"zstd content size: found {declared.content_size}, expected {header.raw_length}",
                offset=offset,
            )
        if declared.window_size > MAX_ZSTD_WINDOW_BYTES:
            raise CorruptError(
                f"zstd window: found {declared.window_size}, expected at most {MAX_ZSTD_WINDOW_BYTES}",
                offset=offset,
            )
        return decompressor.decompress(payload, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise CorruptError(f"zstd frame of block {header.block_number}: {error}", offset=offset) from error


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Identity of a segment and of its only writer; `monotonic_ns` and `wall_ns` were read together."""

    segment_id: bytes
    experiment_id: str
    role: str  # supervisor, rank, worker, sampler, import, load, server, study or note
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


_header_decoder = msgspec.msgpack.Decoder(SegmentHeader)


def pack_header(header: SegmentHeader) -> bytes:
    """The header's frame. Raises TooLargeError over MAX_HEADER_BYTES."""
    frame = pack_record(SEGMENT_HEADER_KIND, FORMAT_VERSION, msgspec.msgpack.encode(header))
    if len(frame) > MAX_HEADER_BYTES:
        raise TooLargeError(f"segment header: found {len(frame)} bytes, expected at most {MAX_HEADER_BYTES}")
    return frame


def unpack_header(frame: bytes) -> SegmentHeader:
    """The header of a complete frame. Raises CorruptError or NewerFormatError."""
    fields = fields_of(frame, 0, kind=SEGMENT_HEADER_KIND, newest=FORMAT_VERSION, what="segment header")
    try:
        header = _header_decoder.decode(fields)
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError) as error:
        raise CorruptError(f"segment header fields: {error}", offset=0) from error
    if len(header.segment_id) != SEGMENT_ID_BYTES:
        raise CorruptError(
            f"segment id: found {len(header.segment_id)} bytes, expected {SEGMENT_ID_BYTES}", offset=0
        )
    return header


def peek_header(path: Path) -> SegmentHeader:
    """The header of a segment, without reading further. Raises SegmentReadError, CorruptError, NewerFormatError."""
    with open_segment_file(path, read_ahead_bytes=_PEEK_BYTES) as file:
        start = file.read(_PREFIX.size)
        if len(start) < _PREFIX.size:
            raise CorruptError("the file ends inside its header", offset=0)
        return unpack_header(start + file.read(frame_length(start, 0) - len(start)))


def header_digest(frame: bytes) -> bytes:
    """SHA-256 of the whole header frame: what the first block names as its predecessor."""
    return hashlib.sha256(frame).digest()


class Seal(NamedTuple):
    """Totals of a segment; bytes are those of the payloads."""

    blocks: int
    events: int
    raw_bytes: int
    compressed_bytes: int
    last_digest: bytes


def pack_seal(seal: Seal, segment_id: bytes) -> bytes:
    """The seal's frame."""
    totals = _SEAL_TOTALS.pack(seal.blocks, seal.events, seal.raw_bytes, seal.compressed_bytes)
    digest = chain_digest(segment_id, seal.last_digest, totals, b"")
    return pack_record(SEAL_KIND, SEAL_VERSION, totals + seal.last_digest + digest)


def unpack_seal(frame: bytes, segment_id: bytes, offset: int) -> Seal:
    """The seal of a complete frame. Raises CorruptError or NewerFormatError."""
    fields = fields_of(frame, offset, kind=SEAL_KIND, newest=SEAL_VERSION, what="seal")
    if len(frame) != SEAL_BYTES:
        raise CorruptError(f"seal: found {len(frame)} bytes, expected {SEAL_BYTES}", offset=offset)
    totals, last_digest, digest = (
        fields[: _SEAL_TOTALS.size],
        fields[_SEAL_TOTALS.size : -DIGEST_BYTES],
        fields[-DIGEST_BYTES:],
    )
    if chain_digest(segment_id, last_digest, totals, b"") != digest:
        raise CorruptError("digest of the seal does not fit its bytes", offset=offset)
    blocks, events, raw_bytes, compressed_bytes = _SEAL_TOTALS.unpack(totals)
    return Seal(blocks, events, raw_bytes, compressed_bytes, last_digest)
