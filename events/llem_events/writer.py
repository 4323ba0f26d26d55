"""The writer of one segment: appends events, closes blocks, and says when they are durable."""

import contextlib
import errno
import time
from pathlib import Path
from typing import Literal, NoReturn

from llem_events import envelope
from llem_events.clock import ClockPair, read_clocks
from llem_events.errors import LogWriteError, SegmentExistsError
from llem_events.events import ClockRead, Event, LogFailed
from llem_events.files import Files, OsFiles
from llem_events.format import (
    BLOCK_TARGET_BYTES,
    BLOCK_TARGET_NS,
    BlockHeader,
    Seal,
    SegmentHeader,
    compressor,
    header_digest,
    pack_block,
    pack_header,
    pack_seal,
)

SyncPolicy = Literal["block", "close"]
RESERVE_BYTES = 64 * 2**10
CLOCK_INTERVAL_NS = 10_000_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SegmentWriter:
    """One writer for the whole life of one file; not safe for use from two threads.

    `append` only buffers. What `flush` has returned for is durable: on the disk under sync policy "block", with the
    operating system (safe from a killed process, not from a power cut) under "close". The first failure is
    final: every later call raises LogWriteError.
    """

    def __init__(
        self, path: Path, segment: SegmentHeader, *, sync: SyncPolicy = "block", files: Files | None = None
    ) -> None:
        """Create the file; it and its directory entry are durable on return. Raises SegmentExistsError, LogWriteError."""
        self.path = path
        self.header = segment
        self.failure: LogWriteError | None = None
        self._files = files or OsFiles()
        self._sync_blocks = sync == "block"
        self._compressor = compressor(segment.role)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._oldest_ns = 0
        self._clocks = ClockPair(segment.monotonic_ns, segment.wall_ns)
        self._good_offset = 0
        self._unsynced = self._inside_write = False
        self._fd: int | None = None
        self._reserve: int | None = None
        frame = pack_header(segment)
        self._totals = Seal(0, 0, 0, 0, header_digest(frame))
        self._create(frame)

    @property
    def pending_events(self) -> int:
        """How many events wait for the next flush."""
        return len(self._pending)

    def append(self, event: Event, *, at_ns: int | None = None) -> int:
        """Buffer one event, dated `at_ns` or now, and return its number in the segment. Raises EventError, TooLargeError."""
        at_ns = time.monotonic_ns() if at_ns is None else at_ns
        return self.append_message(envelope.pack(event, at_ns), at_ns=at_ns)

    def append_message(self, message: bytes, *, at_ns: int) -> int:
        """Buffer one event that `envelope.pack` has dated `at_ns`, and return its number in the segment."""
        self._check_open()
        # An event takes five bytes at least, so a block is full by its bytes long before it has too many events.
        if self._pending and self._pending_bytes + len(message) > BLOCK_TARGET_BYTES:
            self.flush()
        self._oldest_ns = min(self._oldest_ns, at_ns) if self._pending else at_ns
        self._pending.append(message)
        self._pending_bytes += len(message)
        return self._totals.events + len(self._pending) - 1

    def due(self) -> bool:
        """Whether the oldest buffered fact is a second old, or the block is large enough."""
        return bool(self._pending) and (
            self._pending_bytes >= BLOCK_TARGET_BYTES
            or time.monotonic_ns() - self._oldest_ns >= BLOCK_TARGET_NS
        )

    def flush(self) -> BlockHeader | None:
        """Write the buffered events as one block; None where there are none. Raises LogWriteError."""
        self._check_open()
        if not self._pending:
            return None
        self._read_clocks_when_due()
        count, raw = len(self._pending), b"".join(self._pending)
        self._inside_write = True  # it stays set where a signal's exception breaks in, and ends the segment
        written = self._write_block(self._compressor.compress(raw), event_count=count, raw_length=len(raw))
        self._pending, self._pending_bytes = [], 0
        self._inside_write = False
        return written

    def write_payload(self, payload: bytes, *, event_count: int, raw_length: int) -> BlockHeader:
        """Flush, then write a block whose events are compressed already. Raises LogWriteError, TooLargeError."""
        self.flush()
        self._inside_write = True
        written = self._write_block(payload, event_count=event_count, raw_length=raw_length)
        self._inside_write = False
        return written

    def seal(self) -> Seal:
        """Flush, write the totals, and close the file for good. Raises LogWriteError."""
        self.flush()
        self._inside_write = True
        self._write(pack_seal(self._totals, self.header.segment_id), sync=True)
        self.close()
        return self._totals

    def close(self) -> None:
        """Close the file as it is; without a seal it reads as unclosed. May be called twice. Raises LogWriteError.

        What was never synced is synced first; a close that fails after that has nothing left to lose.
        """
        fd, self._fd = self._fd, None
        reserve, self._reserve = self._reserve, None
        refused: OSError | None = None
        if fd is not None and self._unsynced and self.failure is None:
            refused = self._sync(fd)
        for each in (fd, reserve):
            if each is not None:
                with contextlib.suppress(OSError):
                    self._files.close(each)
        if refused is not None:
            self._fail(refused)

    def _create(self, frame: bytes) -> None:
        try:
            self._fd = self._files.create(self.path)
        except FileExistsError as error:
            raise SegmentExistsError(f"segment {self.path}: a segment is never written twice") from error
        except OSError as error:
            self._fail(error)
        self._write(frame, sync=True)
        try:
            self._files.sync_directory(self.path.parent)
        except OSError as error:
            self._fail(error)
        self._open_reserve()

    def _open_reserve(self) -> None:
        """A file system without room for the reserve has none for a measurement; one that cannot reserve goes without."""
        try:
            self._reserve = self._files.reserve(self.path.parent, RESERVE_BYTES)
        except OSError as error:
            if error.errno in _FULL:
                self._fail(error)

    def _read_clocks_when_due(self) -> None:
        if self.header.role == "import":
            return  # its events happened by other clocks
        if time.monotonic_ns() - self._clocks.monotonic_ns >= CLOCK_INTERVAL_NS:
            self._clocks = read_clocks()
            event = ClockRead(monotonic_ns=self._clocks.monotonic_ns, wall_ns=self._clocks.wall_ns)
            self._pending.append(envelope.pack(event, self._clocks.monotonic_ns))

    def _write_block(self, payload: bytes, *, event_count: int, raw_length: int) -> BlockHeader:
        written, data = self._pack_block(payload, event_count=event_count, raw_length=raw_length)
        self._write(data, sync=self._sync_blocks)
        self._count(written)
        return written

    def _pack_block(self, payload: bytes, *, event_count: int, raw_length: int) -> tuple[BlockHeader, bytes]:
        return pack_block(
            payload,
            segment_id=self.header.segment_id,
            block_number=self._totals.blocks,
            first_event=self._totals.events,
            event_count=event_count,
            raw_length=raw_length,
            previous_digest=self._totals.last_digest,
        )

    def _count(self, written: BlockHeader) -> None:
        self._totals = Seal(
            self._totals.blocks + 1,
            self._totals.events + written.event_count,
            self._totals.raw_bytes + written.raw_length,
            self._totals.compressed_bytes + written.compressed_length,
            written.digest,
        )

    def _write(self, data: bytes, *, sync: bool) -> None:
        """All of `data` after the last whole record. Nothing is tried a second time: the first refusal ends the segment."""
        assert self._fd is not None
        try:
            _write_all(self._files, self._fd, data)
        except OSError as error:
            self._leave_note(self._fd, error)
            self._fail(error)
        self._unsynced = True
        refused = self._sync(self._fd) if sync else None
        if refused is not None:
            self._fail(refused)
        self._good_offset += len(data)

    def _sync(self, fd: int) -> OSError | None:
        try:
            self._files.sync(fd)
        except OSError as error:
            return error
        self._unsynced = False
        return None

    def _leave_note(self, fd: int, error: OSError) -> None:
        """Cut back to the last whole block and, from the reserve, say in the log what was lost."""
        with contextlib.suppress(OSError):
            self._files.truncate(fd, self._good_offset)
            reserve, self._reserve = self._reserve, None
            if reserve is None:
                return
            self._files.close(reserve)
            note = LogFailed(error=error.strerror or str(error), events_lost=len(self._pending))
            raw = envelope.pack(note, time.monotonic_ns())
            _, data = self._pack_block(self._compressor.compress(raw), event_count=1, raw_length=len(raw))
            try:
                _write_all(self._files, fd, data)
            except OSError:
                self._files.truncate(fd, self._good_offset)
            self._files.sync(fd)

    def _fail(self, error: OSError) -> NoReturn:
        """Close for good, and remember why."""
        reason = error.strerror or error
        kept = (
            f"{self._totals.events} events in {self._good_offset} bytes are kept, this segment takes no more"
        )
        self.failure = LogWriteError(
            f"segment {self.path}: {reason}; {kept}"
            if self._good_offset
            else f"segment {self.path} cannot be made: {reason}"
        )
        self._pending, self._pending_bytes = [], 0
        self.close()
        raise self.failure from error

    def _check_open(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._fd is None:
            raise LogWriteError(f"segment {self.path} is closed")
        if self._inside_write:
            raise LogWriteError(f"segment {self.path}: interrupted inside a write, it takes no more")


def _write_all(files: Files, fd: int, data: bytes) -> None:
    """Write until nothing is left: a write may be short, and one that a signal interrupts has written nothing."""
    rest = memoryview(data)
    while rest:
        try:
            written = files.write(fd, rest)
        except InterruptedError:
            continue
        if written <= 0:
            raise OSError(errno.EIO, "nothing was written")
        rest = rest[written:]
