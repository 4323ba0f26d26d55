"""Damage: what can be said of a whole segment and of each part that does not verify; is there anything after it, and would a crash explain it?"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from llem_events.errors import CorruptError, NewerFormatError
from llem_events.format import (
    _PREFIX,
    BLOCK_HEADER_BYTES,
    FRAME_HEAD_BYTES,
    MAGIC_BYTES,
    MAX_COMPRESSED_BLOCK_BYTES,
    MAX_HEADER_BYTES,
    SEAL_BYTES,
    SEAL_KIND,
    SEGMENT_HEADER_KIND,
    BlockHeader,
    Seal,
    check_payload,
    frame_length,
    kind_of,
    unpack_block_header,
    unpack_seal,
)

SECTOR_BYTES = 512
_CHUNK_BYTES = 2**20
# The magic number of a record with the kind of a block or a seal; looking ahead, so that matches may overlap.
_START = re.compile(re.escape(MAGIC_BYTES) + rb"(?=.{8}(?:LLEB|LLES))", re.DOTALL)
_START_BYTES = 16
# The first bytes that each record of a fixed length has.
_HEADS = tuple(
    (MAGIC_BYTES + (length - FRAME_HEAD_BYTES).to_bytes(4, "little"), length)
    for length in (BLOCK_HEADER_BYTES, SEAL_BYTES)
)


class Verdict(StrEnum):
    """What can be said of a whole segment."""

    CLEAN = "clean"  # sealed, everything verifies
    UNCLOSED = "unclosed"  # no seal, ends on a block's edge: the writer is at work, or was killed
    TORN = "torn"  # no seal, ends inside its last write: a crash
    CORRUPT = "corrupt"  # anything else


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes [offset, end) that did not verify, and the block and event numbers that they held, where known."""

    offset: int
    end: int
    text: str
    first_block: int
    first_event: int
    next_block: int | None = None
    next_event: int | None = None

    @property
    def missing_blocks(self) -> int:
        """How many blocks were there, as far as the numbers around them tell."""
        return 0 if self.next_block is None else self.next_block - self.first_block

    @property
    def missing_events(self) -> int:
        """The same for events."""
        return 0 if self.next_event is None else self.next_event - self.first_event


@dataclass(frozen=True, slots=True)
class Found:
    """A record that verifies, after damage: a block, or the seal."""

    offset: int
    record: BlockHeader | Seal

    @property
    def blocks_before(self) -> int:
        """Blocks that the writer had written before this record."""
        return self.record.block_number if isinstance(self.record, BlockHeader) else self.record.blocks

    @property
    def events_before(self) -> int:
        """Events that the writer had written before this record."""
        return self.record.first_event if isinstance(self.record, BlockHeader) else self.record.events


class Searcher:
    """Finds the next record of one segment that verifies, in time that is linear in the file's length.

    Headers with a valid CRC are cheap to forge and may each claim a large payload; so what is hashed is paid from
    an allowance that grows with the bytes searched, and a claim beyond it is passed over.
    """

    def __init__(self, file: BinaryIO, segment_id: bytes) -> None:
        self._file = file
        self._segment_id = segment_id
        self._allowance = 4 * MAX_COMPRESSED_BLOCK_BYTES

    def find(self, start: int, *, end: int, blocks: int, events: int) -> Found | None:
        """The first record in [start, end) that verifies and continues `blocks` blocks and `events` events or later ones."""
        at = start
        for offset in self._starts(start, end):
            self._allowance += 4 * (offset - at)
            at = offset
            try:
                record = self._record(offset, end)
            except (CorruptError, NewerFormatError):
                continue
            found = Found(offset, record)
            if found.blocks_before >= blocks and found.events_before >= events:
                return found
        return None

    def _record(self, offset: int, end: int) -> BlockHeader | Seal:
        self._file.seek(offset)
        frame = self._file.read(min(max(BLOCK_HEADER_BYTES, SEAL_BYTES), end - offset))
        if kind_of(frame.ljust(_PREFIX.size, b"\0")) == SEAL_KIND:
            return unpack_seal(frame[:SEAL_BYTES], self._segment_id, offset)
        frame = frame[:BLOCK_HEADER_BYTES]
        found = unpack_block_header(frame, offset)
        payload_start = offset + BLOCK_HEADER_BYTES
        if payload_start + found.compressed_length > end or found.compressed_length > self._allowance:
            raise CorruptError("a claim that is not followed", offset=offset)
        self._allowance -= found.compressed_length
        self._file.seek(payload_start)
        payload = self._file.read(found.compressed_length)
        check_payload(found, frame, payload, segment_id=self._segment_id, offset=offset)
        return found

    def _starts(self, start: int, end: int) -> Iterator[int]:
        """Every place in [start, end) where a record seems to begin."""
        for at in range(start, end, _CHUNK_BYTES - _START_BYTES + 1):
            self._file.seek(at)
            chunk = self._file.read(min(_CHUNK_BYTES, end - at))
            yield from (at + match.start() for match in _START.finditer(chunk))


def explains_crash(rest: bytes, offset: int) -> bool:
    """Whether `rest`, the last bytes of an unsealed file, is what one interrupted write leaves.

    Either the write is cut short, or a whole sector of it never reached the disk and reads as zeros. A whole record with
    other bytes in it was changed after it was written, and so was a record that others follow.
    """
    written = _written_length(rest, offset)
    if written is not None:
        return len(rest) < written or (len(rest) == written and _has_zero_sector(rest, offset))
    if any(head.startswith(rest[: len(head)]) and 0 < len(rest) < length for head, length in _HEADS):
        return True
    return _has_zero_sector(rest, offset, before=BLOCK_HEADER_BYTES) and _START.search(rest, 1) is None


def explains_torn_header(whole: bytes) -> bool:
    """Whether `whole`, a file whose header does not verify, is what the one write of a header leaves."""
    if len(whole) < _PREFIX.size:
        return MAGIC_BYTES.startswith(whole[:4]) or not any(whole)
    if len(whole) > MAX_HEADER_BYTES or _START.search(whole) is not None:
        return False
    try:
        length = frame_length(whole[: _PREFIX.size], 0)
    except CorruptError:
        return _has_zero_sector(whole, 0, before=_PREFIX.size)
    return kind_of(whole) == SEGMENT_HEADER_KIND and (
        len(whole) < length or (len(whole) == length and _has_zero_sector(whole, 0))
    )


def _written_length(rest: bytes, offset: int) -> int | None:
    """Length of the first record of `rest` with its payload; None where its header does not verify."""
    try:
        return BLOCK_HEADER_BYTES + unpack_block_header(rest[:BLOCK_HEADER_BYTES], offset).compressed_length
    except (CorruptError, NewerFormatError):
        return None


def _has_zero_sector(rest: bytes, offset: int, *, before: int | None = None) -> bool:
    """Whether one of the disk's sectors, as far as `rest` covers it, is all zeros; if asked, one that starts `before`."""
    edges = [0, *range(-offset % SECTOR_BYTES or SECTOR_BYTES, len(rest), SECTOR_BYTES), len(rest)]
    return any(
        start < (len(rest) if before is None else before) and not rest[start:end].strip(b"\0")
        for start, end in itertools.pairwise(edges)
        if start < end
    )
