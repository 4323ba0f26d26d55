"""How far the clocks of two machines are apart, from questions and answers over a network, and how well that is known."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

EXCHANGES = 32


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question that was sent and answered, by the own monotonic clock; and what the other's clocks said in between."""

    sent_ns: int
    received_ns: int
    monotonic_ns: int
    wall_ns: int

    @property
    def round_trip_ns(self) -> int:
        """How long it took, there and back."""
        return self.received_ns - self.sent_ns


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """Own clock minus the other's, for both kinds of clock; the truth is within `error_ns` of it."""

    monotonic_ns: int
    wall_ns: int
    error_ns: int
    exchanges: int


def compare(ask: Callable[[], tuple[int, int]], *, exchanges: int = EXCHANGES) -> ClockOffset:
    """Ask so often for the other's monotonic and wall clock, and believe the quickest answer."""
    taken = [_exchange(ask) for _ in range(exchanges)]
    return offset_of(taken, wall_minus_monotonic_ns=wall_minus_monotonic())


def offset_of(exchanges: Sequence[Exchange], *, wall_minus_monotonic_ns: int) -> ClockOffset:
    """From the exchange that took least: the other's clock was read at some moment within it, at most half of it from its middle."""
    quickest = min(exchanges, key=lambda exchange: exchange.round_trip_ns)
    middle_ns = (quickest.sent_ns + quickest.received_ns) // 2
    return ClockOffset(
        monotonic_ns=middle_ns - quickest.monotonic_ns,
        wall_ns=middle_ns + wall_minus_monotonic_ns - quickest.wall_ns,
        error_ns=-(-quickest.round_trip_ns // 2) + 1,
        exchanges=len(exchanges),
    )


def wall_minus_monotonic() -> int:
    """Between this machine's two clocks, read as close to each other as can be."""
    pairs = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(5)]
    before_ns, wall_ns, after_ns = min(pairs, key=lambda pair: pair[2] - pair[0])
    return wall_ns - (before_ns + after_ns) // 2


def _exchange(ask: Callable[[], tuple[int, int]]) -> Exchange:
    sent_ns = time.monotonic_ns()
    monotonic_ns, wall_ns = ask()
    return Exchange(sent_ns, time.monotonic_ns(), monotonic_ns, wall_ns)
