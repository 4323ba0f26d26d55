"""A thread that writes a segment, so that whoever measures never waits for the disk."""

import collections
import threading
import time
from types import TracebackType

from llem_events import envelope
from llem_events.errors import LogWriteError
from llem_events.events import Event, SamplesDropped
from llem_events.format import BLOCK_TARGET_NS
from llem_events.writer import SegmentWriter

QUEUE_EVENTS = 1024
_TICK_S = BLOCK_TARGET_NS / 1e9 / 4


class BackgroundWriter:
    """Takes events from any thread; its own thread appends them, and flushes every second.

    `append` waits for room; `offer` does not: it drops the event, and the log says how many were dropped.
    After the disk failed, both raise LogWriteError.
    """

    def __init__(self, writer: SegmentWriter, *, capacity: int = QUEUE_EVENTS) -> None:
        self._writer = writer
        self._capacity = capacity
        self._queue: collections.deque[tuple[bytes, int]] = collections.deque()
        self._changed = threading.Condition()
        self._closing = self._hurried = False
        self._failure: Exception | None = None
        self._dropped = 0
        self.dropped_total = 0
        self._thread = threading.Thread(target=self._run, name="llem-log", daemon=True)
        self._thread.start()

    def append(self, event: Event, *, at_ns: int) -> None:
        """Queue a fact that must not be lost; waits while the queue is full. Raises EventError, TooLargeError, LogWriteError."""
        message = envelope.pack(event, at_ns)
        with self._changed:
            self._changed.wait_for(self._has_room_or_end)
            self._put(message, at_ns)

    def offer(self, event: Event, *, at_ns: int, weight: int) -> bool:
        """Queue a fact without ever waiting; `weight` samples are counted as dropped where there is no room."""
        message = envelope.pack(event, at_ns)
        with self._changed:
            if self._has_room_or_end():
                self._put(message, at_ns)
                return True
            self._dropped += weight
            self.dropped_total += weight
            return False

    def hurry(self) -> None:
        """What is queued goes to the disk now, not within the second; does not wait for it."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def seal(self) -> None:
        """Write everything queued, seal the segment and end the thread. Raises LogWriteError."""
        self._stop()
        try:
            self._raise_failure()
            self._writer.seal()
        finally:
            self._writer.close()

    def close(self) -> None:
        """Write everything queued, end the thread and close the file without a seal; may be called twice."""
        self._stop()
        self._writer.close()

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _has_room_or_end(self) -> bool:
        return len(self._queue) < self._capacity or self._closing or self._failure is not None

    def _put(self, message: bytes, at_ns: int) -> None:
        self._raise_failure()
        if self._closing:
            raise LogWriteError(f"segment {self._writer.path} is closed")
        self._queue.append((message, at_ns))
        self._changed.notify_all()

    def _stop(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise LogWriteError(str(self._failure)) from self._failure

    def _run(self) -> None:
        try:
            while not self._ended():
                if self._write_queued() or self._writer.due():
                    self._writer.flush()
            self._writer.flush()
        except Exception as error:  # noqa: BLE001 -- the thread's outermost frame: whoever appends must hear of it
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _ended(self) -> bool:
        """Wait for work; True when nothing is left to write and no more will come."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._queue or self._closing or self._hurried,
                timeout=_TICK_S if self._writer.pending_events else None,
            )
            return self._closing and not self._queue and not self._dropped

    def _write_queued(self) -> bool:
        """Returns whether somebody is in a hurry."""
        with self._changed:
            messages, self._queue = self._queue, collections.deque()
            dropped, self._dropped = self._dropped, 0
            hurried, self._hurried = self._hurried, False
            self._changed.notify_all()
        for message, at_ns in messages:
            self._writer.append_message(message, at_ns=at_ns)
        if dropped:
            self._writer.append(
                SamplesDropped(count=dropped, reason="the disk was slower than the sampler"),
                at_ns=time.monotonic_ns(),
            )
        return hurried
