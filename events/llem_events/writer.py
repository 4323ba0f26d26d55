"""The writer of one segment: appends events, closes blocks, and says when they are durable."""

import errno
import time
from pathlib import Path
from typing import Literal

from llem_events import block, envelope, header, seal
from llem_events.block import BlockHeader
from llem_events.clock import ClockPair, read_clocks
from llem_events.errors import LogWriteError, SegmentExistsError, TooLargeError
from llem_events.events import ClockRead, Event, LogFailed
from llem_events.files import Files, OsFiles
from llem_events.header import SegmentHeader
from llem_events.limits import BLOCK_TARGET_BYTES, BLOCK_TARGET_NS, MAX_EVENTS_PER_BLOCK, MAX_RAW_BLOCK_BYTES
from llem_events.seal import Seal

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
        self._compressor = block.compressor()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._oldest_ns = 0
        self._block_number = self._first_event = self._raw_bytes = self._compressed_bytes = (
            self._good_offset
        ) = 0
        self._clocks = ClockPair(segment.monotonic_ns, segment.wall_ns)
        frame = header.pack(segment)
        self._previous_digest = header.digest(frame)
        self._fd: int | None = self._create(frame)
        self._reserve: int | None = self._open_reserve()

    def append(self, event: Event, *, at_ns: int | None = None) -> int:
        """Buffer one event, dated `at_ns` or now, and return its number in the segment."""
        self._check_open()
        at_ns = time.monotonic_ns() if at_ns is None else at_ns
        return self._buffer(envelope.pack(event, at_ns), at_ns)

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
        written = self._write_block(count, raw)
        self._pending, self._pending_bytes = [], 0
        return written

    def seal(self) -> Seal:
        """Flush, write the totals, and close the file for good. Raises LogWriteError."""
        self.flush()
        totals = Seal(
            self._block_number,
            self._first_event,
            self._raw_bytes,
            self._compressed_bytes,
            self._previous_digest,
        )
        self._write(seal.pack(totals, self.header.segment_id), sync=True)
        self.close()
        return totals

    def close(self) -> None:
        """Close the file as it is; without a seal it reads as unclosed. May be called twice."""
        for fd in (self._fd, self._reserve):
            if fd is not None:
                self._close(fd)
        self._fd = self._reserve = None

    def _create(self, frame: bytes) -> int:
        try:
            fd = self._files.create(self.path)
        except FileExistsError as error:
            raise SegmentExistsError(f"segment {self.path}: a segment is never written twice") from error
        except OSError as error:
            raise self._failed(error) from error
        self._fd = fd
        self._write(frame, sync=True)
        try:
            self._files.sync_directory(self.path.parent)
        except OSError as error:
            self._close_failed(error)
        return fd

    def _open_reserve(self) -> int | None:
        """A file system without room for the reserve has none for a measurement; one that cannot reserve goes without."""
        try:
            return self._files.reserve(self.path.parent, RESERVE_BYTES)
        except OSError as error:
            if error.errno in _FULL:
                self._close_failed(error)
            return None

    def _buffer(self, message: bytes, at_ns: int) -> int:
        if len(message) > MAX_RAW_BLOCK_BYTES:
            raise TooLargeError(f"event: found {len(message)} bytes, expected at most {MAX_RAW_BLOCK_BYTES}")
        too_many = len(self._pending) >= MAX_EVENTS_PER_BLOCK - 1  # one place is kept for the clock
        if self._pending and (too_many or self._pending_bytes + len(message) > BLOCK_TARGET_BYTES):
            self.flush()
        self._oldest_ns = min(self._oldest_ns, at_ns) if self._pending else at_ns
        self._pending.append(message)
        self._pending_bytes += len(message)
        return self._first_event + len(self._pending) - 1

    def _read_clocks_when_due(self) -> None:
        if time.monotonic_ns() - self._clocks.monotonic_ns >= CLOCK_INTERVAL_NS:
            self._clocks = read_clocks()
            event = ClockRead(monotonic_ns=self._clocks.monotonic_ns, wall_ns=self._clocks.wall_ns)
            self._pending.append(envelope.pack(event, self._clocks.monotonic_ns))

    def _write_block(self, event_count: int, raw: bytes) -> BlockHeader:
        payload = self._compressor.compress(raw)
        written, data = block.pack(
            payload,
            segment_id=self.header.segment_id,
            block_number=self._block_number,
            first_event=self._first_event,
            event_count=event_count,
            raw_length=len(raw),
            previous_digest=self._previous_digest,
        )
        self._write(data, sync=self._sync_blocks)
        self._block_number += 1
        self._first_event += event_count
        self._raw_bytes += len(raw)
        self._compressed_bytes += len(payload)
        self._previous_digest = written.digest
        return written

    def _write(self, data: bytes, *, sync: bool) -> None:
        assert self._fd is not None
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._files.write(self._fd, rest) :]
        except OSError as error:
            self._record_failure(error)
        if sync:
            try:
                self._files.sync(self._fd)
            except OSError as error:
                self._close_failed(error)
        self._good_offset += len(data)

    def _record_failure(self, error: OSError) -> None:
        """Cut back to the last whole block and, from the reserve, say in the log what was lost. Always raises."""
        reserve, self._reserve = self._reserve, None
        lost, self._pending, self._pending_bytes = len(self._pending), [], 0
        if self._fd is None or reserve is None or self.failure is not None:
            self._close_failed(error)
        self.failure = self._failed(error)
        try:
            self._files.truncate(self._fd, self._good_offset)
            self._close(reserve)
            event = LogFailed(error=error.strerror or str(error), events_lost=lost)
            self._write_block(1, envelope.pack(event, time.monotonic_ns()))
            self._files.sync(self._fd)
        except OSError as second:
            self._close_failed(second)
        self._close_failed(error)

    def _close_failed(self, error: OSError) -> None:
        self.failure = self._failed(error)
        self.close()
        raise self.failure from error

    def _close(self, fd: int) -> None:
        """A failed close loses nothing that a sync had not already reported."""
        try:
            self._files.close(fd)
        except OSError:
            if self.failure is None and self._sync_blocks is False:
                raise

    def _failed(self, error: OSError) -> LogWriteError:
        return LogWriteError(
            f"segment {self.path}: {error.strerror or error}; {self._first_event} events in {self._good_offset} bytes are kept, "
            "this segment takes no more"
        )

    def _check_open(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self._fd is None:
            raise LogWriteError(f"segment {self.path} is closed")
