"""Judging damage: is there anything that verifies after it, and would a crash explain it?"""

from collections.abc import Iterator
from typing import BinaryIO

from llem_events import block, seal, skippable
from llem_events.block import BlockHeader
from llem_events.errors import CorruptError, NewerFormatError

SECTOR_BYTES = 512
_CHUNK_BYTES = 2**20
_BLOCK_START = skippable.MAGIC_BYTES + (block.HEADER_BYTES - skippable.FRAME_HEAD_BYTES).to_bytes(4, "little")
_SEAL_START = skippable.MAGIC_BYTES + (seal.SEAL_BYTES - skippable.FRAME_HEAD_BYTES).to_bytes(4, "little")


def find_record(
    file: BinaryIO, start: int, *, segment_id: bytes, first_block: int
) -> tuple[int, BlockHeader | None] | None:
    """Offset and header of the next block from `start` that verifies and is not older than `first_block`.

    A seal that verifies is found too, with None for its header. None where nothing more verifies.
    """
    for offset in _magic_offsets(file, start):
        try:
            found = _record_at(file, offset, segment_id)
        except (CorruptError, NewerFormatError):
            continue
        if found is None or found.block_number >= first_block:
            return offset, found
    return None


def _record_at(file: BinaryIO, offset: int, segment_id: bytes) -> BlockHeader | None:
    file.seek(offset)
    frame = file.read(block.HEADER_BYTES)
    if frame.startswith(_SEAL_START):
        seal.unpack(frame[: seal.SEAL_BYTES], segment_id, offset)
        return None
    if len(frame) < block.HEADER_BYTES:
        raise CorruptError("too short for a block", offset=offset)
    found = block.unpack_header(frame, offset)
    block.check_payload(
        found, frame, file.read(found.compressed_length), segment_id=segment_id, offset=offset
    )
    return found


def _magic_offsets(file: BinaryIO, start: int) -> Iterator[int]:
    """Every place from `start` where the magic number stands."""
    at, keep = start, len(skippable.MAGIC_BYTES) - 1
    while True:
        file.seek(at)
        chunk = file.read(_CHUNK_BYTES)
        found = chunk.find(skippable.MAGIC_BYTES)
        while found >= 0:
            yield at + found
            found = chunk.find(skippable.MAGIC_BYTES, found + 1)
        if len(chunk) < _CHUNK_BYTES:
            return
        at += len(chunk) - keep


def explains_crash(rest: bytes, offset: int) -> bool:
    """Whether the last bytes of an unsealed file are what an interrupted write leaves.

    Either the write is cut short, or a whole sector of it never reached the disk and reads as zeros. A whole record with
    other bytes in it was changed after it was written.
    """
    if _has_zero_sector(rest, offset):
        return True
    for start, length in ((_BLOCK_START, block.HEADER_BYTES), (_SEAL_START, seal.SEAL_BYTES)):
        if len(rest) < len(start) and start.startswith(rest):
            return True
        if rest.startswith(start):
            return len(rest) < length or _payload_is_short(rest, offset)
    return False


def _payload_is_short(rest: bytes, offset: int) -> bool:
    try:
        found = block.unpack_header(rest[: block.HEADER_BYTES], offset)
    except (CorruptError, NewerFormatError):
        return False
    return len(rest) < block.HEADER_BYTES + found.compressed_length


def _has_zero_sector(rest: bytes, offset: int) -> bool:
    """Whether one of the disk's sectors, as far as `rest` covers it, is all zeros."""
    edges = [0, *range(-offset % SECTOR_BYTES, len(rest), SECTOR_BYTES), len(rest)]
    return any(start < end and not any(rest[start:end]) for start, end in zip(edges, edges[1:], strict=False))
