"""The block: the unit of durability, a header record followed by one zstd frame of events."""

import hashlib
import struct
from typing import NamedTuple

import zstandard

from llem_events import skippable
from llem_events.errors import CorruptError, TooLargeError
from llem_events.limits import (
    MAX_COMPRESSED_BLOCK_BYTES,
    MAX_EVENTS_PER_BLOCK,
    MAX_RAW_BLOCK_BYTES,
    MAX_ZSTD_WINDOW_BYTES,
)

KIND = b"LLEB"
FORMAT_VERSION = 1
DIGEST_BYTES = 32
COMPRESSION_LEVEL = 3
SAMPLES_LEVEL = -1  # their noise cannot be compressed: level 1 saves 3 % and makes writing a tenth slower
_COUNTS = struct.Struct("<QQIII")  # block number, first event, event count, compressed length, raw length
HEADER_BYTES = skippable.PREFIX.size + _COUNTS.size + 2 * DIGEST_BYTES


class BlockHeader(NamedTuple):
    """Place of a block in its segment, its sizes in bytes, and its link in the chain of digests."""

    block_number: int
    first_event: int
    event_count: int
    compressed_length: int
    raw_length: int
    previous_digest: bytes
    digest: bytes


def compressor(*, of_samples: bool) -> zstandard.ZstdCompressor:
    """The compressor of every payload: content size and checksum written, no dictionary."""
    level = SAMPLES_LEVEL if of_samples else COMPRESSION_LEVEL
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)


def chain_digest(segment_id: bytes, previous_digest: bytes, fields: bytes, payload: bytes) -> bytes:
    """SHA-256 over segment id, previous digest, header fields and compressed payload, in this order."""
    return hashlib.sha256(b"".join((segment_id, previous_digest, fields, payload))).digest()


def pack(
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
    fields = _COUNTS.pack(block_number, first_event, event_count, len(payload), raw_length)
    digest = chain_digest(segment_id, previous_digest, fields, payload)
    frame = skippable.pack(KIND, FORMAT_VERSION, fields + previous_digest + digest)
    header = BlockHeader(
        block_number, first_event, event_count, len(payload), raw_length, previous_digest, digest
    )
    return header, frame + payload


def _check_caps(event_count: int, compressed_length: int, raw_length: int) -> None:
    for name, found, cap in (
        ("events in a block", event_count, MAX_EVENTS_PER_BLOCK),
        ("compressed block", compressed_length, MAX_COMPRESSED_BLOCK_BYTES),
        ("raw block", raw_length, MAX_RAW_BLOCK_BYTES),
    ):
        if found > cap:
            raise TooLargeError(f"{name}: found {found}, expected at most {cap}")


def unpack_header(frame: bytes, offset: int) -> BlockHeader:
    """The header of a complete frame of HEADER_BYTES. Raises CorruptError or NewerFormatError; no length is believed before."""
    fields = skippable.fields_of(frame, offset, kind=KIND, newest=FORMAT_VERSION, what="block header")
    if len(frame) != HEADER_BYTES:
        raise CorruptError(f"block header: found {len(frame)} bytes, expected {HEADER_BYTES}", offset=offset)
    number, first_event, event_count, compressed_length, raw_length = _COUNTS.unpack_from(fields)
    try:
        _check_caps(event_count, compressed_length, raw_length)
    except TooLargeError as error:
        raise CorruptError(str(error), offset=offset) from error
    previous_digest, digest = fields[_COUNTS.size : -DIGEST_BYTES], fields[-DIGEST_BYTES:]
    return BlockHeader(
        number, first_event, event_count, compressed_length, raw_length, previous_digest, digest
    )


def check_payload(
    header: BlockHeader, frame: bytes, payload: bytes, *, segment_id: bytes, offset: int
) -> None:
    """Raises CorruptError unless the digest in the header is the digest of header fields and payload."""
    fields = frame[skippable.PREFIX.size : skippable.PREFIX.size + _COUNTS.size]
    if chain_digest(segment_id, header.previous_digest, fields, payload) != header.digest:
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
