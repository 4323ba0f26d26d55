"""The clocks of an experiment's hosts on one: what each host's comparisons with rank 0's say, and how well."""

from collections.abc import Iterable, Mapping

import msgspec

from llem_events.events import ClocksCompared

Clock = tuple[str | None, str | None]  # host and boot: monotonic clocks compare only within one


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
