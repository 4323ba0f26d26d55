"""What a client can say of one window: what it asked, how late it was, what that cost it."""

import contextlib
import time
from array import array
from pathlib import Path

from llem_events.events import LoadCompleted, Request

BYTES_PER_KIB = 1024


class Account:
    """Counts from its creation to `completed`."""

    def __init__(self) -> None:
        self.requests = self.failed_requests = self.input_tokens = self.output_tokens = 0
        self.chunks = 0
        self.max_in_flight = self.max_waiting = 0
        self.failed_in_a_row = 0
        self.failing_since_ns: int | None = None
        self.last_error: str | None = None
        self.gave_up: str | None = None
        self._send_lags_ns, self._loop_lags_ns = array("q"), array("q")
        self._cpu_ns = time.process_time_ns()

    def note_turn(self, lag_ns: int) -> None:
        """The client turned to a request so long after it was due."""
        self._send_lags_ns.append(lag_ns)

    def note_loop(self, lag_ns: int) -> None:
        """The event loop came so late to a call at a given time."""
        self._loop_lags_ns.append(lag_ns)

    def note_end(self, request: Request, *, chunks: int) -> None:
        """A request has ended, however it did."""
        self.requests += 1
        self.input_tokens += request.input_tokens
        self.output_tokens += request.output_tokens
        self.chunks += chunks
        if request.finish_reason == "error":
            self.failed_requests += 1
            self.failed_in_a_row += 1
            self.last_error = request.error
            if self.failing_since_ns is None:
                self.failing_since_ns = request.end_ns
        else:
            self.failed_in_a_row, self.failing_since_ns = 0, None

    def completed(
        self,
        *,
        process_index: int,
        window: str,
        starts_ns: int,
        offered_ns: int,
        connections: int,
        stale_connections: int,
    ) -> LoadCompleted:
        """The account as an event, now."""
        return LoadCompleted(
            process_index=process_index,
            window=window,
            requests=self.requests,
            failed_requests=self.failed_requests,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            starts_ns=starts_ns,
            offered_ns=offered_ns,
            ended_ns=time.monotonic_ns(),
            connections=connections,
            stale_connections=stale_connections,
            send_lag_p50_ns=_quantile(self._send_lags_ns, 0.5),
            send_lag_p99_ns=_quantile(self._send_lags_ns, 0.99),
            send_lag_max_ns=max(self._send_lags_ns, default=None),
            loop_lag_p99_ns=_quantile(self._loop_lags_ns, 0.99),
            loop_lag_max_ns=max(self._loop_lags_ns, default=None),
            cpu_time_ns=time.process_time_ns() - self._cpu_ns,
            peak_memory_bytes=_peak_memory_bytes(),
            max_in_flight=self.max_in_flight,
            max_waiting=self.max_waiting,
            gave_up=self.gave_up,
        )


def _quantile(lags_ns: "array[int]", share: float) -> int | None:
    """The lag that `share` of all are no longer than; None without any."""
    if not lags_ns:
        return None
    return sorted(lags_ns)[min(len(lags_ns) - 1, int(len(lags_ns) * share))]


def _peak_memory_bytes() -> int | None:
    """The most that this process has had resident; what getrusage says is also what its parent had when it was forked."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * BYTES_PER_KIB
    return None
