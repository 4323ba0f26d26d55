"""The reader of one segment: blocks in order, one at a time, until the end or the first damage."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import zstandard

from llem_events import block, envelope, header, salvage, seal, skippable
from llem_events.block import BlockHeader
from llem_events.envelope import Envelope
from llem_events.errors import CorruptError, DamageError, TornTailError
from llem_events.header import SegmentHeader
from llem_events.limits import MAX_COMPRESSED_BLOCK_BYTES, MAX_HEADER_BYTES, MAX_ZSTD_WINDOW_BYTES
from llem_events.seal import Seal


class Verdict(StrEnum):
    """What can be said of a whole segment."""

    CLEAN = "clean"  # sealed, everything verifies
    UNCLOSED = "unclosed"  # no seal, ends on a block's edge: the writer is at work, or was killed
    TORN = "torn"  # no seal, ends inside its last write: a crash
    CORRUPT = "corrupt"  # anything else


@dataclass(frozen=True, slots=True)
class Position:
    """The edge after a block: where to read on, and what the next block must continue."""

    offset: int
    blocks: int
    events: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """A verified block; `end` is the position after it."""

    header: BlockHeader
    offset: int
    end: Position
    payload: bytes

    def raw(self, decompressor: zstandard.ZstdDecompressor) -> bytes:
        """The bare msgpack stream. Raises CorruptError."""
        return block.decompress(self.header, self.payload, decompressor=decompressor, offset=self.offset)


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


class SegmentReader:
    """Reads a file that may still be growing; never modifies it.

    Iterate `blocks()`; afterwards `verdict`, `seal` and `damages` say what was found. A torn tail ends the iteration quietly;
    corruption raises CorruptError, unless `salvage_damage` is set: then reading goes on at the next block that verifies.
    """

    def __init__(self, path: Path, *, salvage_damage: bool = False) -> None:
        self.path = path
        self.header: SegmentHeader | None = None  # None: not even the header is whole
        self.seal: Seal | None = None
        self.verdict: Verdict | None = None
        self.damages: list[Damage] = []
        self.position = Position(0, 0, 0, b"")
        self._salvage = salvage_damage
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        self._file: BinaryIO = open(
            os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb", buffering=2**20
        )
        self._size = os.fstat(self._file.fileno()).st_size
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "SegmentReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def events(self, found: Block) -> list[Envelope]:
        """The events of a block, bodies still as bytes. Raises CorruptError."""
        return envelope.unpack_all(
            found.raw(self._decompressor), found.header.event_count, offset=found.offset
        )

    def blocks(self, start: Position | None = None) -> Iterator[Block]:
        """Every block from `start` on, its digest and its place in the chain checked."""
        if start is not None:
            self.position = start
            self._file.seek(start.offset)
        while self.header is not None and self.verdict is None:
            try:
                found = self._next(self.header)
            except DamageError as error:
                self._judge(error)
                continue
            if found is None:
                return
            self.position = found.end
            yield found

    def _read_header(self) -> None:
        """The header at the start; a file that ends inside it was torn at birth and holds nothing."""
        try:
            head = self._read(skippable.PREFIX.size, 0)
            length = skippable.declared_length(head, 0)
            if not skippable.PREFIX.size <= length <= MAX_HEADER_BYTES or not head.startswith(
                skippable.MAGIC_BYTES
            ):
                raise CorruptError("no segment header", offset=0)
            frame = head + self._read(length - len(head), 0)
            self.header = header.unpack(frame)
        except TornTailError:
            self.verdict = Verdict.TORN
            self.damages.append(Damage(0, self._size, "the file ends inside its header", 0, 0))
            return
        self.position = Position(len(frame), 0, 0, header.digest(frame))

    def _next(self, segment: SegmentHeader) -> Block | None:
        """The record at the position: a block, or None at the end. Raises DamageError."""
        offset = self.position.offset
        if offset == self._size:
            self.verdict = Verdict.CORRUPT if self.damages else Verdict.UNCLOSED
            return None
        prefix = self._read(skippable.PREFIX.size, offset)
        if prefix[12:16] == seal.KIND:
            self._read_seal(prefix, segment)
            return None
        frame = prefix + self._read(block.HEADER_BYTES - len(prefix), offset)
        found = block.unpack_header(frame, offset)
        payload = self._read(found.compressed_length, offset)
        block.check_payload(found, frame, payload, segment_id=segment.segment_id, offset=offset)
        self._check_chain(found)
        end = offset + len(frame) + len(payload)
        return Block(
            found,
            offset,
            Position(end, found.block_number + 1, found.first_event + found.event_count, found.digest),
            payload,
        )

    def _check_chain(self, found: BlockHeader) -> None:
        at = self.position
        if (found.block_number, found.first_event, found.previous_digest) != (
            at.blocks,
            at.events,
            at.digest,
        ):
            raise CorruptError(
                f"block out of place: found block {found.block_number} with first event {found.first_event}, "
                f"expected block {at.blocks} with first event {at.events} after digest {at.digest.hex()[:12]}",
                offset=at.offset,
            )

    def _read_seal(self, prefix: bytes, segment: SegmentHeader) -> None:
        offset = self.position.offset
        found = seal.unpack(
            prefix + self._read(seal.SEAL_BYTES - len(prefix), offset), segment.segment_id, offset
        )
        if (found.blocks, found.events, found.last_digest) != (
            self.position.blocks,
            self.position.events,
            self.position.digest,
        ):
            raise CorruptError(
                f"the seal counts {found.blocks} blocks and {found.events} events, found {self.position.blocks} and {self.position.events}",
                offset=offset,
            )
        self.seal = found
        if offset + seal.SEAL_BYTES != self._size:
            raise CorruptError("bytes after the seal", offset=offset + seal.SEAL_BYTES)
        self.verdict = Verdict.CORRUPT if self.damages else Verdict.CLEAN

    def _read(self, length: int, offset: int) -> bytes:
        chunk = self._file.read(length)
        if len(chunk) < length:
            raise TornTailError("the file ends inside a record", offset=offset)
        return chunk

    def _judge(self, error: DamageError) -> None:
        """Torn tail, or corruption: then raise, or go on at the next block that verifies."""
        assert self.header is not None
        at = self.position
        following = salvage.find_record(
            self._file, at.offset, segment_id=self.header.segment_id, first_block=at.blocks
        )
        if following is None and self._is_torn(at.offset):
            self.damages.append(
                Damage(at.offset, self._size, "the file ends inside its last write", at.blocks, at.events)
            )
            self.verdict = Verdict.CORRUPT if len(self.damages) > 1 else Verdict.TORN
            return
        self._record_damage(error, following)
        if not self._salvage:
            self.verdict = Verdict.CORRUPT
            raise CorruptError(str(error), offset=error.offset) from error
        self._resume(following)

    def _is_torn(self, offset: int) -> bool:
        if self.seal is not None or self._size - offset > block.HEADER_BYTES + MAX_COMPRESSED_BLOCK_BYTES:
            return False
        self._file.seek(offset)
        return salvage.explains_crash(self._file.read(), offset)

    def _record_damage(self, error: DamageError, following: tuple[int, BlockHeader | None] | None) -> None:
        at = self.position
        end, found = following or (self._size, None)
        numbers = (found.block_number, found.first_event) if found else (None, None)
        self.damages.append(Damage(at.offset, end, str(error), at.blocks, at.events, *numbers))

    def _resume(self, following: tuple[int, BlockHeader | None] | None) -> None:
        """Continue at a block that verifies; at a seal or at nothing, the segment ends here."""
        if following is None or following[1] is None:
            self.verdict = Verdict.CORRUPT
            return
        offset, found = following
        self.position = Position(offset, found.block_number, found.first_event, found.previous_digest)
        self._file.seek(offset)
