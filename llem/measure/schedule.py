"""Absolute deadlines: a sampler that is late once does not drift, and knows how late it was."""

import time

from llem.measure.histogram import Histogram


class Schedule:
    """Deadlines at a fixed rate from the first call; a missed one is counted, never made up for."""

    def __init__(self, hz: float) -> None:
        self._period_ns = round(1e9 / hz)
        self._next_ns = time.monotonic_ns()
        self._last_ns: int | None = None
        self._lateness_ns = Histogram()
        self.missed = 0
        self.max_gap_ns: int | None = None

    def remaining_s(self) -> float:
        """Seconds until the next deadline, 0 when it has passed."""
        return max(0, self._next_ns - time.monotonic_ns()) / 1e9

    def reached(self) -> bool:
        """Whether a sample is due; if so, the deadline moves on by whole periods."""
        now_ns = time.monotonic_ns()
        if now_ns < self._next_ns:
            return False
        skipped = (now_ns - self._next_ns) // self._period_ns
        self.missed += skipped
        self._lateness_ns.add(now_ns - self._next_ns)
        if self._last_ns is not None:
            self.max_gap_ns = max(self.max_gap_ns or 0, now_ns - self._last_ns)
        self._last_ns = now_ns
        self._next_ns += (skipped + 1) * self._period_ns
        return True

    def jitter_p99_ns(self) -> int | None:
        """99th percentile of how late the samples were, to a sixteenth; None before the first."""
        return self._lateness_ns.quantile(0.99)
