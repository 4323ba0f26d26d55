"""Energy counters: how often they tick, reading them just after a tick, and when to stop believing them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from llem.meters.base import Clock
from llem.units import NS_PER_MS, NS_PER_S
from llem_events.events import EnergyEdge

PLAUSIBLE_LIMITS = 1.5  # times the power limit: above it a value is impossible
UNKNOWN_TICK_NS = 200 * NS_PER_MS  # twice the slowest tick reported
STUCK_AFTER_TICKS = 20
STUCK_AFTER_NS = 2 * NS_PER_S
TICK_LIMIT_NS = NS_PER_S // 2
TICKS_ENOUGH = 9
POLL_S = 0.0005
# From the asking to the date of an edge: more is a machine that took its time in between, or a driver that always does.
EDGE_WITHIN_NS = 5 * NS_PER_MS

AskCounter = Callable[[], int | None]


class Tick(NamedTuple):
    """Time between two changes of a counter, or why it is unknown; a counter that never moved is no counter."""

    tick_ns: int | None
    reason: str | None
    moved: bool


class CountedDevice(NamedTuple):
    """A device and how its energy counter is asked in mJ, or why it has none."""

    uuid: str
    ask: AskCounter | None
    reason: str | None = None
    power_limit_mw: int | None = None


class Fault(NamedTuple):
    """What is wrong with a value, in the words of `Meter.faults`."""

    code: str
    text: str


def measure_ticks(
    counters: Sequence[AskCounter], *, clock: Clock, limit_ns: int = TICK_LIMIT_NS
) -> list[Tick]:
    """Tick of every counter, all watched at once for at most `limit_ns`."""
    changes_ns: list[list[int]] = [[] for _ in counters]
    last = [ask() for ask in counters]
    deadline = clock.now_ns() + limit_ns
    while clock.now_ns() < deadline and any(len(seen) < TICKS_ENOUGH for seen in changes_ns):
        clock.sleep_s(POLL_S)
        for index, ask in enumerate(counters):
            energy_mj = ask()
            if energy_mj is not None and energy_mj != last[index]:
                changes_ns[index].append(clock.now_ns())
                last[index] = energy_mj
    return [_tick(seen, limit_s=limit_ns / NS_PER_S) for seen in changes_ns]


def _tick(changes_ns: Sequence[int], *, limit_s: float) -> Tick:
    match len(changes_ns):
        case 0:
            return Tick(None, f"the energy counter did not move in {limit_s:g} s", moved=False)
        case 1:
            return Tick(None, f"the energy counter moved only once in {limit_s:g} s", moved=True)
    gaps = [later - earlier for earlier, later in pairwise(changes_ns)]
    return Tick(round(median(gaps)), None, moved=True)


class EnergyCounter:
    """One counter, believed until it lies once: a window over a reset could look plausible and be wrong."""

    def __init__(
        self, uuid: str, ask: AskCounter, *, clock: Clock, tick_ns: int | None, power_limit_mw: int | None
    ) -> None:
        self.uuid = uuid
        self.tick_ns = tick_ns
        self.distrusted: str | None = None
        self._ask, self._clock, self._limit_mw = ask, clock, power_limit_mw
        self._changed_ns: int | None = None
        self._energy_mj = 0
        # The last value was read after this: a busy machine may have taken its time between the reading and its date.
        self._read_after_ns = self._checked_ns = clock.now_ns()
        self._faults: list[Fault] = []

    def now_mj(self) -> int | None:
        """The counter's value; None when it cannot be read or believed."""
        return self.check(self._ask())

    def check(self, energy_mj: int | None) -> int | None:
        """The value if it can be used, read this moment by whatever means."""
        if energy_mj is None or self.distrusted:
            return None
        at_ns = self._clock.now_ns()
        if fault := self._fault(energy_mj, at_ns):
            self.distrusted = fault.text
            self._faults.append(fault)
            return None
        if self._changed_ns is None or energy_mj != self._energy_mj:
            self._changed_ns, self._energy_mj = at_ns, energy_mj
            self._read_after_ns = self._checked_ns
        self._checked_ns = at_ns
        return energy_mj

    def _fault(self, energy_mj: int, at_ns: int) -> Fault | None:
        if self._changed_ns is None:
            return None
        gained_mj, since_ns = energy_mj - self._energy_mj, at_ns - self._changed_ns
        if gained_mj < 0:
            return Fault("counter_reset", f"the energy counter fell by {-gained_mj} mJ")
        longest_ns = at_ns - self._read_after_ns
        if self._limit_mw is not None and gained_mj > self._most_mj(longest_ns, limit_mw=self._limit_mw):
            return Fault(
                "counter_jump", f"the energy counter rose by {gained_mj} mJ in {since_ns / NS_PER_MS:.0f} ms"
            )
        if gained_mj == 0 and since_ns > max(
            STUCK_AFTER_NS, STUCK_AFTER_TICKS * (self.tick_ns or UNKNOWN_TICK_NS)
        ):
            return Fault("counter_stuck", f"the energy counter has not moved for {since_ns / NS_PER_S:.1f} s")
        return None

    def _most_mj(self, since_ns: int, *, limit_mw: int) -> float:
        """The most that can have been gained; the older value may have been up to a tick stale."""
        return PLAUSIBLE_LIMITS * limit_mw * (since_ns + 2 * (self.tick_ns or UNKNOWN_TICK_NS)) / NS_PER_S + 1

    def distrust(self, reason: str) -> None:
        """Never use it again."""
        self.distrusted = self.distrusted or reason

    def faults(self) -> list[Fault]:
        """What was wrong, told once."""
        told, self._faults = self._faults, []
        return told


def read_edges(counters: Sequence[EnergyCounter], *, clock: Clock) -> list[EnergyEdge]:
    """Every counter just after its next tick, waiting at most two ticks; at once where the tick is unknown."""
    started_ns = clock.now_ns()
    edges = {counter.uuid: _edge(counter, clock) for counter in counters}
    first = {uuid: edge.energy_mj for uuid, edge in edges.items()}
    waiting = [counter for counter in counters if counter.tick_ns and first[counter.uuid] is not None]
    while waiting:
        clock.sleep_s(min(counter.tick_ns or 0 for counter in waiting) / 20 / NS_PER_S)
        for counter in waiting:
            edges[counter.uuid] = _edge(counter, clock)
        waited_ns = clock.now_ns() - started_ns
        waiting = [
            counter
            for counter in waiting
            if edges[counter.uuid].energy_mj == first[counter.uuid] and waited_ns < 2 * (counter.tick_ns or 0)
        ]
    return [edges[counter.uuid] for counter in counters]


def _edge(counter: EnergyCounter, clock: Clock) -> EnergyEdge:
    """The counter with its date; asked once more where the date is late, for the device goes on meanwhile."""
    asked_ns = clock.now_ns()
    energy_mj, at_ns = counter.now_mj(), clock.now_ns()
    if at_ns - asked_ns > EDGE_WITHIN_NS:
        energy_mj, at_ns = counter.now_mj(), clock.now_ns()
    reason = (counter.distrusted or "the energy counter could not be read") if energy_mj is None else None
    return EnergyEdge(device_uuid=counter.uuid, at_ns=at_ns, energy_mj=energy_mj, reason=reason)


class CounterSet:
    """The energy counters of a meter's devices: what they tick, what to believe, and what they say at a window's boundary."""

    def __init__(
        self,
        devices: Sequence[CountedDevice],
        *,
        clock: Clock,
        limit_ns: int = TICK_LIMIT_NS,
        keep_unmoved: bool = False,
    ) -> None:
        """Watch all of them at once for at most `limit_ns`; one that does not move is none, unless `keep_unmoved`."""
        self._devices, self._clock = devices, clock
        asks = {device.uuid: device.ask for device in devices if device.ask}
        ticks = measure_ticks(list(asks.values()), clock=clock, limit_ns=limit_ns)
        self._ticks = dict(zip(asks, ticks, strict=True))
        self._counters = {
            device.uuid: EnergyCounter(
                device.uuid,
                device.ask,
                clock=clock,
                tick_ns=self._ticks[device.uuid].tick_ns,
                power_limit_mw=device.power_limit_mw,
            )
            for device in devices
            if device.ask and (keep_unmoved or self._ticks[device.uuid].moved)
        }

    def __contains__(self, uuid: str) -> bool:
        """Whether the device has a counter that counts."""
        return uuid in self._counters

    def tick_ns(self, uuid: str) -> int | None:
        """Time between two changes of the device's counter; None where it is unknown."""
        return self._ticks[uuid].tick_ns if uuid in self._ticks else None

    def missing(self, uuid: str) -> dict[str, str]:
        """The reason for a counter, or only its tick, that the device does not have."""
        if uuid in self._ticks:
            reason = self._ticks[uuid].reason
            return {"counter_tick_ns" if uuid in self else "energy_mj": reason} if reason else {}
        reasons = {device.uuid: device.reason for device in self._devices}
        return {"energy_mj": reasons[uuid] or "no energy counter"}

    def now_mj(self, uuid: str) -> int | None:
        """Ask the device's counter; None when it cannot be read or believed."""
        return self._counters[uuid].now_mj() if uuid in self else None

    def check(self, uuid: str, energy_mj: int | None) -> int | None:
        """The value if it can be believed, read this moment together with others."""
        return self._counters[uuid].check(energy_mj) if uuid in self else None

    def distrust(self, reason: str) -> None:
        """Never use any of them again."""
        for counter in self._counters.values():
            counter.distrust(reason)

    def read_edges(self) -> list[EnergyEdge]:
        """Every device's counter just after its next tick; one without says why."""
        edges = {
            edge.device_uuid: edge for edge in read_edges(list(self._counters.values()), clock=self._clock)
        }
        return [edges.get(device.uuid) or self._no_edge(device.uuid) for device in self._devices]

    def _no_edge(self, uuid: str) -> EnergyEdge:
        return EnergyEdge(
            device_uuid=uuid, at_ns=self._clock.now_ns(), reason=self.missing(uuid)["energy_mj"]
        )

    def faults(self) -> list[tuple[str, str, str]]:
        """(device UUID, code, text) of every counter that was caught lying, told once."""
        return [(uuid, *fault) for uuid, counter in self._counters.items() for fault in counter.faults()]


class FaultLog:
    """Faults of devices, each kind told once: a text with figures in it would be told at every sample."""

    def __init__(self) -> None:
        self._new: list[tuple[str, str, str]] = []
        self._told: set[tuple[str, str, str]] = set()

    def tell(self, uuid: str, code: str, text: str, *, about: str = "") -> None:
        """Once for each device, code and `about`."""
        if (uuid, code, about) not in self._told:
            self._told.add((uuid, code, about))
            self._new.append((uuid, code, text))

    def take(self) -> list[tuple[str, str, str]]:
        """What is new since the last call."""
        new, self._new = self._new, []
        return new


def implausible_power(power_mw: int, *, power_limit_mw: int | None) -> Fault | None:
    """The fault of a power outside 0 to 1.5 times the limit."""
    if power_mw < 0 or (power_limit_mw is not None and power_mw > PLAUSIBLE_LIMITS * power_limit_mw):
        limit = "unknown" if power_limit_mw is None else f"{power_limit_mw} mW"
        return Fault("power_implausible", f"a power of {power_mw} mW is impossible with a limit of {limit}")
    return None
