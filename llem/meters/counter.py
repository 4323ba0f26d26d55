"""Energy counters: how often they tick, reading them just after a tick, and when to stop believing them."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from llem.meters.clock import Clock
from llem.units import MW_PER_W, NS_PER_MS, NS_PER_S

PLAUSIBLE_LIMITS = 1.5  # times the power limit: above it a value is impossible
UNKNOWN_TICK_NS = 200 * NS_PER_MS  # the slowest counters reported tick every 100 ms
STUCK_AFTER_TICKS = 20
STUCK_AFTER_NS = 2 * NS_PER_S
TICK_LIMIT_NS = NS_PER_S // 2
TICKS_ENOUGH = 9
MJ_NS_PER_MW_NS = MW_PER_W * NS_PER_S // 1_000  # milliwatts x nanoseconds in one millijoule

ReadCounter = Callable[[], int | None]


class Change(NamedTuple):
    """The counter's value when it was first seen to be new."""

    at_ns: int
    energy_mj: int


class Tick(NamedTuple):
    """Time between two changes of a counter, or why it is unknown; `moved` says whether there is a counter at all."""

    tick_ns: int | None
    reason: str | None
    moved: bool


class Fault(NamedTuple):
    """What is wrong with a value, in the words of `Meter.faults`."""

    code: str
    text: str


def measure_ticks(counters: Sequence[ReadCounter], *, clock: Clock, limit_ns: int = TICK_LIMIT_NS) -> list[Tick]:
    """Tick of every counter, all watched at once for at most `limit_ns`."""
    changes: list[list[Change]] = [[] for _ in counters]
    last = [read() for read in counters]
    deadline = clock.now_ns() + limit_ns
    while clock.now_ns() < deadline and any(len(seen) < TICKS_ENOUGH for seen in changes):
        clock.sleep_s(0.0005)
        for index, read in enumerate(counters):
            energy_mj = read()
            if energy_mj is not None and energy_mj != last[index]:
                changes[index].append(Change(clock.now_ns(), energy_mj))
                last[index] = energy_mj
    return [_tick(seen, limit_ns=limit_ns) for seen in changes]


def _tick(changes: Sequence[Change], *, limit_ns: int) -> Tick:
    limit_s = limit_ns / NS_PER_S
    if not changes:
        return Tick(None, f"energy counter did not move in {limit_s:g} s", moved=False)
    gaps = [later.at_ns - earlier.at_ns for earlier, later in zip(changes, changes[1:], strict=False)]
    if not gaps:
        return Tick(None, f"energy counter moved only once in {limit_s:g} s", moved=True)
    return Tick(round(median(gaps)), None, moved=True)


def await_changes(
    counters: Sequence[ReadCounter], *, ticks_ns: Sequence[int | None], clock: Clock
) -> list[Change | None]:
    """Every counter's next change, waiting at most two of its ticks; None where none came or the tick is unknown."""
    started_ns = clock.now_ns()
    found: list[Change | None] = [None] * len(counters)
    last = [read() for read in counters]
    waiting = {index for index, tick_ns in enumerate(ticks_ns) if tick_ns is not None and last[index] is not None}
    while waiting:
        clock.sleep_s(min(tick_ns for tick_ns in ticks_ns if tick_ns is not None) / 20 / NS_PER_S)
        for index in tuple(waiting):
            energy_mj = counters[index]()
            at_ns = clock.now_ns()
            if energy_mj is not None and energy_mj != last[index]:
                found[index] = Change(at_ns, energy_mj)
            if found[index] or energy_mj is None or at_ns - started_ns > 2 * (ticks_ns[index] or 0):
                waiting.discard(index)
    return found


class CounterWatch:
    """Believes one energy counter until it lies once: a window over a reset could look plausible and be wrong."""

    def __init__(self, *, power_limit_mw: int | None, tick_ns: int | None) -> None:
        self._limit_mw = power_limit_mw
        self._tick_ns = tick_ns or UNKNOWN_TICK_NS
        self._last: Change | None = None
        self.distrust: str | None = None

    def check(self, energy_mj: int, *, at_ns: int) -> Fault | None:
        """None for a value that can be used; the fault for the first that cannot, after which none can."""
        fault = self._fault(energy_mj, at_ns)
        if fault:
            self.distrust = fault.text
        elif self._last is None or energy_mj != self._last.energy_mj:
            self._last = Change(at_ns, energy_mj)
        return fault

    def _fault(self, energy_mj: int, at_ns: int) -> Fault | None:
        if self._last is None:
            return None
        gained_mj, since_ns = energy_mj - self._last.energy_mj, at_ns - self._last.at_ns
        if gained_mj < 0:
            return Fault("counter_reset", f"energy counter fell by {-gained_mj} mJ")
        if self._limit_mw is not None and gained_mj > self._most_mj(since_ns):
            return Fault("counter_jump", f"energy counter rose by {gained_mj} mJ in {since_ns / NS_PER_MS:.0f} ms")
        if gained_mj == 0 and since_ns > max(STUCK_AFTER_NS, STUCK_AFTER_TICKS * self._tick_ns):
            return Fault("counter_stuck", f"energy counter has not moved for {since_ns / NS_PER_S:.1f} s")
        return None

    def _most_mj(self, since_ns: int) -> float:
        """The most that can be gained: the older value may have been up to one tick stale."""
        limit_mw = PLAUSIBLE_LIMITS * (self._limit_mw or 0)
        return limit_mw * (since_ns + 2 * self._tick_ns) / MJ_NS_PER_MW_NS + 1


def implausible_power(power_mw: int, *, power_limit_mw: int | None) -> Fault | None:
    """The fault of a power outside 0 to 1.5 times the limit."""
    if power_mw < 0 or (power_limit_mw is not None and power_mw > PLAUSIBLE_LIMITS * power_limit_mw):
        limit = "unknown" if power_limit_mw is None else f"{power_limit_mw} mW"
        return Fault("power_implausible", f"power of {power_mw} mW is impossible with a limit of {limit}")
    return None
