"""From a host's monotonic clock to the wall clock, by the pairs in its log."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from llem.projections.derive.history import ExperimentFacts, Segment
from llem.units import NS_PER_S, NS_PER_US
from llem_events.events import ClockRead

Clock = tuple[str | None, str | None]  # host and boot: monotonic clocks compare only within one
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_DRIFT_NS = NS_PER_S // 10


class Clocks:
    """One offset per host and boot, that of the earliest pair: durations on one host stay exact, whatever NTP does."""

    def __init__(self, facts: ExperimentFacts) -> None:
        pairs: dict[Clock, list[tuple[int, int]]] = {}
        by_id = {segment.segment_id: segment for segment in facts.segments}
        for segment in facts.segments:
            if segment.monotonic_ns is not None and segment.wall_ns is not None:
                pairs.setdefault(_clock(segment), []).append((segment.monotonic_ns, segment.wall_ns))
        for fact in facts.all:
            if isinstance(fact.event, ClockRead):
                pair = (fact.event.monotonic_ns, fact.event.wall_ns)
                pairs.setdefault(_clock(by_id[fact.segment_id]), []).append(pair)
        self.offsets: Mapping[Clock, int] = {clock: _offset(min(found)) for clock, found in pairs.items()}
        drifts = {clock: _drift(found) for clock, found in pairs.items()}
        self.stepped = {clock: drift_ns for clock, drift_ns in drifts.items() if drift_ns > MAX_DRIFT_NS}

    def offset_ns(self, segment: Segment) -> int | None:
        """Wall clock minus monotonic clock of the segment's host; None for one torn inside its header."""
        return self.offsets.get(_clock(segment))

    def wall_ns(self, segment: Segment, at_ns: int) -> int:
        """Nanoseconds since 1970 of a moment in a segment whose header is whole."""
        return at_ns + self.offsets[_clock(segment)]


def _clock(segment: Segment) -> Clock:
    return segment.host, segment.boot_id


def _offset(pair: tuple[int, int]) -> int:
    return pair[1] - pair[0]


def _drift(pairs: Sequence[tuple[int, int]]) -> int:
    offsets = [_offset(pair) for pair in pairs]
    return max(offsets) - min(offsets)


def utc(wall_ns: int) -> datetime:
    """To the microsecond."""
    return EPOCH + timedelta(microseconds=wall_ns // NS_PER_US)


def in_microseconds(wall_ns: int) -> int:
    """The nanoseconds of `utc`, so that a duration is the same by both."""
    return wall_ns // NS_PER_US * NS_PER_US


def timestamp(wall_ns: int | None) -> str | None:
    """The text of a TIMESTAMP column."""
    return None if wall_ns is None else utc(wall_ns).replace(tzinfo=None).isoformat()
