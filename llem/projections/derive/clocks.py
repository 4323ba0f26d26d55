"""When something happened: the clocks of an experiment's hosts on one, by their comparisons with rank 0's, and that one as wall-clock time."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from llem.projections.derive.history import NOTE, Clock, ExperimentFacts, Segment
from llem.units import NS_PER_S, NS_PER_US
from llem_events.events import ClockRead, ClocksCompared

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_DRIFT_NS = NS_PER_S // 10


class Clocks:
    """One offset per host and boot: durations on one host stay exact, whatever NTP does.

    That of rank 0's host, and of every host whose clock was not compared with it, is that of the earliest pair; a host that was
    compared is placed on rank 0's clock.
    """

    def __init__(self, facts: ExperimentFacts) -> None:
        pairs: dict[Clock, list[tuple[int, int]]] = {}
        by_id = {segment.segment_id: segment for segment in facts.segments}
        for segment in sorted(facts.segments, key=lambda segment: segment.role == NOTE):
            if segment.role == NOTE and segment.clock in pairs:
                continue  # days later on the same clock, which has drifted: no matter of the measurement
            if segment.monotonic_ns is not None and segment.wall_ns is not None:
                pairs.setdefault(segment.clock, []).append((segment.monotonic_ns, segment.wall_ns))
        for fact in facts.all:
            if isinstance(fact.event, ClockRead):
                pair = (fact.event.monotonic_ns, fact.event.wall_ns)
                pairs.setdefault(by_id[fact.segment_id].clock, []).append(pair)
        self.offsets: dict[Clock, int] = {clock: _offset(min(found)) for clock, found in pairs.items()}
        self.errors_ns: Mapping[Clock, int] = {}  # of hosts that stand on rank 0's clock, its own included
        self._place(facts, by_id)
        drifts = {clock: _drift(found) for clock, found in pairs.items()}
        self.stepped = {clock: drift_ns for clock, drift_ns in drifts.items() if drift_ns > MAX_DRIFT_NS}

    def _place(self, facts: ExperimentFacts, by_id: Mapping[str | None, Segment]) -> None:
        leader = next((segment for segment in facts.segments if segment.role == "supervisor"), None)
        if leader is None or (reference_ns := self.offsets.get(leader.clock)) is None:
            return
        compared = [
            (by_id[fact.segment_id].clock, fact.event)
            for fact in facts.all
            if isinstance(fact.event, ClocksCompared)
        ]
        found = placements((clock, event) for clock, event in compared if clock != leader.clock)
        self.offsets |= {clock: reference_ns - placement.offset_ns for clock, placement in found.items()}
        self.errors_ns = {clock: placement.error_ns for clock, placement in found.items()} | {leader.clock: 0}

    def offset_ns(self, segment: Segment) -> int | None:
        """Wall clock minus monotonic clock of the segment's host; None for one torn inside its header."""
        return self.offsets.get(segment.clock)

    def wall_ns(self, segment: Segment, at_ns: int) -> int:
        """Nanoseconds since 1970 of a moment in a segment whose header is whole."""
        return at_ns + self.offsets[segment.clock]


def _offset(pair: tuple[int, int]) -> int:
    return pair[1] - pair[0]


def _drift(pairs: Sequence[tuple[int, int]]) -> int:
    offsets = [_offset(pair) for pair in pairs]
    return max(offsets) - min(offsets)


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The monotonic clock of a host minus rank 0's, within `error_ns`."""

    offset_ns: int
    error_ns: int


def placements(compared: Iterable[tuple[Clock, ClocksCompared]]) -> Mapping[Clock, Placement]:
    """Of every clock that was compared.

    Of the comparisons before, and of those after, the one with the least bound counts. Between the two the clock may have
    drifted: it is taken to be in the middle, and half the drift is added to the bound.
    """
    best: dict[Clock, dict[str, ClocksCompared]] = {}
    for clock, event in compared:
        known = best.setdefault(clock, {}).get(event.position)
        if known is None or event.error_ns < known.error_ns:
            best[clock][event.position] = event
    return {clock: _placement(list(of_clock.values())) for clock, of_clock in best.items()}


def _placement(compared: list[ClocksCompared]) -> Placement:
    offsets_ns = [event.monotonic_offset_ns for event in compared]
    drift_ns = max(offsets_ns) - min(offsets_ns)
    return Placement(
        offset_ns=(max(offsets_ns) + min(offsets_ns)) // 2,
        error_ns=max(event.error_ns for event in compared) + (drift_ns + 1) // 2,
    )


def utc(wall_ns: int) -> datetime:
    """To the microsecond."""
    return EPOCH + timedelta(microseconds=wall_ns // NS_PER_US)


def in_microseconds(wall_ns: int) -> int:
    """The nanoseconds of `utc`, so that a duration is the same by both."""
    return wall_ns // NS_PER_US * NS_PER_US


def timestamp(wall_ns: int | None) -> str | None:
    """The text of a TIMESTAMP column."""
    return None if wall_ns is None else utc(wall_ns).replace(tzinfo=None).isoformat()
