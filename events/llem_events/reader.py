"""The reader of one segment: blocks in order, one at a time, until the end or the first damage."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import zstandard

from llem_events import damage, envelope
from llem_events.damage import Damage, Found, Searcher, Verdict
from llem_events.envelope import Envelope
from llem_events.errors import (
    CorruptError,
    DamageError,
    NewerFormatError,
    TornTailError,
)
from llem_events.files import open_segment_file
from llem_events.format import (
    _PREFIX,
    BLOCK_HEADER_BYTES,
    BLOCK_HEADER_KIND,
    MAX_COMPRESSED_BLOCK_BYTES,
    MAX_HEADER_BYTES,
    MAX_ZSTD_WINDOW_BYTES,
    SEAL_KIND,
    SEGMENT_HEADER_KIND,
    BlockHeader,
    Seal,
    SegmentHeader,
    check_payload,
    check_record,
    decompress,
    frame_length,
    header_digest,
    kind_of,
    unpack_block_header,
    unpack_header,
    unpack_seal,
)


class Position(NamedTuple):
    """The edge after a block: where to read on, and what the next block must continue."""

    offset: int
    blocks: int
    events: int
    digest: bytes


class Block(NamedTuple):
    """A verified block; `end` is the position after it."""

    header: BlockHeader
    offset: int
    end: Position
    payload: bytes

    def raw(self, decompressor: zstandard.ZstdDecompressor) -> bytes:
        """The bare msgpack stream. Raises CorruptError."""
        return decompress(self.header, self.payload, decompressor=decompressor, offset=self.offset)


class SegmentReader:
    """Reads a file that may still be growing; never modifies it.

    Iterate `blocks()`; afterwards `verdict`, `seal` and `damages` say what was found. A torn tail ends the iteration quietly;
    corruption raises CorruptError, unless `salvage_damage` is set: then reading goes on at the next block that verifies.
    A later `blocks()` goes on where the last one ended, with what was written meanwhile.
    """

    def __init__(self, path: Path, *, salvage_damage: bool = False) -> None:
        """Open the file and read its header. Raises SegmentReadError, CorruptError, NewerFormatError."""
        self.path = path
        self.header: SegmentHeader | None = None  # None: not even the header is whole
        self.seal: Seal | None = None
        self.verdict: Verdict | None = None
        self.damages: list[Damage] = []
        self.position = Position(0, 0, 0, b"")
        self._salvage = salvage_damage
        self._searcher: Searcher | None = None
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW_BYTES)
        self._file = open_segment_file(path)
        try:
            self._size = self._measure()
            self._seek(0)
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

    @property
    def size(self) -> int:
        """Bytes of the file when reading last began."""
        return self._size

    def fileno(self) -> int:
        """The open file, which may have been moved since."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def is_being_written(self) -> bool:
        """Whether the writer holds its lock; False also where the file system knows no locks."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(self._file, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def events(self, found: Block) -> list[Envelope]:
        """The events of a block, bodies still as bytes. Raises CorruptError."""
        return envelope.unpack_all(
            found.raw(self._decompressor), found.header.event_count, offset=found.offset
        )

    def blocks(self, start: Position | None = None) -> Iterator[Block]:
        """Every block from `start`, or from where the last call ended; digests and their chain are checked."""
        self._begin(start)
        while self.header is not None and self.verdict is None:
            try:
                found = self._next(self.header)
            except DamageError as error:
                self._judge(self.header, error)
                continue
            if found is None:
                return
            self.position = found.end
            yield found

    def _begin(self, start: Position | None) -> None:
        """Look at the file anew: what ended it then may have been a write in progress."""
        if start is not None and start.offset > 0:
            self.position, self.verdict, self.seal = start, None, None
            self.damages.clear()
        elif self.verdict in (Verdict.UNCLOSED, Verdict.TORN):
            self.verdict = None
            self.damages.clear()
        self._size = self._measure()
        if self.header is None:
            self._seek(0)
            self._read_header()
        self._seek(self.position.offset)

    def _read_header(self) -> None:
        """The header at the start; a file that ends inside it was torn at birth and holds nothing."""
        try:
            frame = self._read_frame(0)
            self.header = unpack_header(frame)
        except DamageError as error:
            self._seek(0)
            if self._size > MAX_HEADER_BYTES or not damage.explains_torn_header(self._file.read(self._size)):
                raise CorruptError(error.text, offset=0) from error
            self._end_torn("the file ends inside its header")
            return
        self.position = Position(len(frame), 0, 0, header_digest(frame))

    def _next(self, segment: SegmentHeader) -> Block | None:
        """The record at the position: a block, or None at the end. Raises DamageError, NewerFormatError."""
        offset = self.position.offset
        if offset > self._size:
            raise CorruptError(f"the file has shrunk to {self._size} bytes", offset=offset)
        if offset == self._size:
            self.verdict = Verdict.CORRUPT if self.damages else Verdict.UNCLOSED
            return None
        frame = self._read_frame(offset)
        kind = kind_of(frame)
        if kind == BLOCK_HEADER_KIND:
            return self._read_block(frame, segment)
        if kind == SEAL_KIND:
            self._read_seal(frame, segment)
            return None
        check_record(frame, offset)
        if kind == SEGMENT_HEADER_KIND:
            raise CorruptError("a second segment header", offset=offset)
        raise NewerFormatError(f"record kind {kind!r} at byte {offset} is unknown; upgrade llem")

    def _read_block(self, frame: bytes, segment: SegmentHeader) -> Block:
        offset = self.position.offset
        found = unpack_block_header(frame, offset)
        payload = self._read(found.compressed_length, offset + len(frame))
        check_payload(found, frame, payload, segment_id=segment.segment_id, offset=offset)
        self._check_chain(found)
        end = offset + len(frame) + len(payload)
        events = found.first_event + found.event_count
        return Block(found, offset, Position(end, found.block_number + 1, events, found.digest), payload)

    def _check_chain(self, found: BlockHeader) -> None:
        at = self.position
        continues = (at.blocks, at.events, at.digest)
        if (found.block_number, found.first_event, found.previous_digest) != continues:
            raise CorruptError(
                f"block out of place: found block {found.block_number} with first event {found.first_event}, "
                f"expected block {at.blocks} with first event {at.events} after digest {at.digest.hex()[:12]}",
                offset=at.offset,
            )

    def _read_seal(self, frame: bytes, segment: SegmentHeader) -> None:
        at = self.position
        found = unpack_seal(frame, segment.segment_id, at.offset)
        if (found.blocks, found.events, found.last_digest) != (at.blocks, at.events, at.digest):
            raise CorruptError(
                f"the seal counts {found.blocks} blocks and {found.events} events, "
                f"found {at.blocks} and {at.events} before it",
                offset=at.offset,
            )
        self.seal = found  # the position stays before it, so that whoever resumes there finds it again
        if at.offset + len(frame) != self._size:
            raise CorruptError("bytes after the seal", offset=at.offset + len(frame))
        self.verdict = Verdict.CORRUPT if self.damages else Verdict.CLEAN

    def _read_frame(self, offset: int) -> bytes:
        prefix = self._read(_PREFIX.size, offset)
        length = frame_length(prefix, offset)
        return prefix + self._read(length - _PREFIX.size, offset + _PREFIX.size)

    def _read(self, length: int, offset: int) -> bytes:
        """`length` bytes at `offset`, where the file stands; never past the size that was looked up at the start."""
        chunk = self._file.read(length) if offset + length <= self._size else b""
        if len(chunk) < length:
            raise TornTailError("the file ends inside a record", offset=self.position.offset)
        return chunk

    def _seek(self, offset: int) -> None:
        self._file.seek(offset)

    def _measure(self) -> int:
        """The file's size now. A seek from the end also forgets what was read ahead and may have been rewritten."""
        return self._file.seek(0, os.SEEK_END)

    def _judge(self, segment: SegmentHeader, error: DamageError) -> None:
        """Torn tail, or corruption: then raise, or go on at the next block that verifies."""
        following = None if self.seal is not None else self._find_following(segment)
        if following is None and self._is_torn(self.position.offset):
            self._end_torn("the file ends inside its last write")
            return
        self._record_damage(error, following)
        if not self._salvage:
            self.verdict = Verdict.CORRUPT
            raise CorruptError(error.text, offset=error.offset) from error
        self._resume(following)

    def _find_following(self, segment: SegmentHeader) -> Found | None:
        at = self.position
        self._searcher = self._searcher or Searcher(self._file, segment.segment_id)
        return self._searcher.find(at.offset, end=self._size, blocks=at.blocks, events=at.events)

    def _is_torn(self, offset: int) -> bool:
        if self.seal is not None or self._size - offset > BLOCK_HEADER_BYTES + MAX_COMPRESSED_BLOCK_BYTES:
            return False
        self._seek(offset)
        return damage.explains_crash(self._file.read(self._size - offset), offset)

    def _end_torn(self, text: str) -> None:
        at = self.position
        self.damages.append(Damage(at.offset, self._size, text, at.blocks, at.events))
        self.verdict = Verdict.CORRUPT if len(self.damages) > 1 else Verdict.TORN

    def _record_damage(self, error: DamageError, following: Found | None) -> None:
        at = self.position
        if following is None:
            start = at.offset if self.seal is None else error.offset
            self.damages.append(Damage(start, self._size, error.text, at.blocks, at.events))
            return
        numbers = (following.blocks_before, following.events_before)
        self.damages.append(Damage(at.offset, following.offset, error.text, at.blocks, at.events, *numbers))

    def _resume(self, following: Found | None) -> None:
        """Continue at a block that verifies; at a seal or at nothing, the segment ends here."""
        match following:
            case Found(offset=offset, record=BlockHeader() as found):
                self.position = Position(offset, found.block_number, found.first_event, found.previous_digest)
                self._seek(offset)
            case Found(record=Seal() as seal):
                self.seal, self.verdict = seal, Verdict.CORRUPT
            case None:
                self.verdict = Verdict.CORRUPT
