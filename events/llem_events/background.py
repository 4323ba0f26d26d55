"""A thread that writes a segment, so that whoever measures never waits for the disk."""

import queue
import threading
from types import TracebackType

from llem_events.errors import LogError, LogWriteError
from llem_events.events import Event, SamplesDropped
from llem_events.limits import BLOCK_TARGET_NS
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
        self._queue: queue.Queue[tuple[Event, int]] = queue.Queue(capacity)
        self._closing = threading.Event()
        self._failure: LogError | None = None
        self._lock = threading.Lock()
        self._dropped = 0
        self.dropped_total = 0
        self._thread = threading.Thread(target=self._run, name="llem-log", daemon=True)
        self._thread.start()

    def append(self, event: Event, *, at_ns: int) -> None:
        """Queue a fact that must not be lost; waits while the queue is full."""
        while True:
            self._raise_failure()
            try:
                return self._queue.put((event, at_ns), timeout=_TICK_S)
            except queue.Full:
                continue

    def offer(self, event: Event, *, at_ns: int, weight: int) -> bool:
        """Queue a fact without ever waiting; `weight` samples are counted as dropped where there is no room."""
        self._raise_failure()
        try:
            self._queue.put_nowait((event, at_ns))
        except queue.Full:
            with self._lock:
                self._dropped += weight
                self.dropped_total += weight
            return False
        return True

    def seal(self) -> None:
        """Write everything queued, seal the segment and end the thread. Raises LogWriteError."""
        self._stop()
        self._raise_failure()
        self._writer.seal()

    def close(self) -> None:
        """End the thread and close the file without a seal; may be called twice."""
        self._stop()
        self._writer.close()

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop(self) -> None:
        self._closing.set()
        self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise LogWriteError(str(self._failure)) from self._failure

    def _run(self) -> None:
        try:
            while not (self._closing.is_set() and self._queue.empty()):
                self._take()
                self._report_dropped()
                if self._writer.due():
                    self._writer.flush()
            self._report_dropped()
            self._writer.flush()
        except LogError as error:
            self._failure = error

    def _take(self) -> None:
        try:
            event, at_ns = self._queue.get(timeout=0 if self._closing.is_set() else _TICK_S)
        except queue.Empty:
            return
        self._writer.append(event, at_ns=at_ns)

    def _report_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._writer.append(SamplesDropped(count=dropped, reason="the disk was slower than the sampler"))
