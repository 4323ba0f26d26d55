"""A log of samples of devices: which part of it is the measurement, and where the devices idled around it."""

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from statistics import StatisticsError, fmean, median
from typing import Any, NamedTuple

import numpy as np

from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Mapped, Measurement, Recording, Span, each_power_w, powers_w
from llem.importers.spool import Readings, spooled
from llem.results.averaged_power import refresh_period_sec
from llem.units import NS_PER_S
from llem_events import Reading
from llem_events.events import MeteredDevice

LONGEST_GUARD_NS = 4 * NS_PER_S
LONGEST_IDLE_NS = 60 * NS_PER_S
# Readings that lie no further apart are one power.
IDLE_SPREAD, IDLE_SPREAD_W = 0.05, 2.0
FEWEST_IDLE = 3
# Of a long log so many readings tell how often a sensor is read, and how often it changes.
MOST_LOOKED_AT = 2**17


class Sampled(NamedTuple):
    """A device and its samples, in the order of time; `repeated` others had the time of one of these."""

    metered: MeteredDevice
    readings: Readings
    repeated: int = 0

    @property
    def uuid(self) -> str:
        """What it is called."""
        return self.metered.device.uuid

    @property
    def has_power(self) -> bool:
        """Whether any sample has."""
        return any(self.readings.known[name] for name in ("power_mw", "power_average_mw"))

    def from_origin(self, origin_ns: int) -> "Sampled":
        """With times from a moment on."""
        return self._replace(readings=self.readings.since(origin_ns))

    def settles_ns(self, span: Span) -> int:
        """How long after the span a reading knows nothing of it: the averaging time, and a refresh of the sensor."""
        powered = ((reading.at_ns, *powers_w([reading], span)) for reading in self.readings)
        known = islice((each for each in powered if len(each) > 1), MOST_LOOKED_AT)
        at_ns, power_w = np.array([*known], np.float64).reshape(-1, 2).T
        averaged_ns = self.metered.power_window_ns or 0
        if len(at_ns) < FEWEST_IDLE:
            return averaged_ns
        taken_sec = at_ns[1:][np.diff(power_w) != 0] / NS_PER_S
        period_sec = refresh_period_sec(taken_sec, float(np.median(np.diff(at_ns))) / NS_PER_S)
        return averaged_ns + round(period_sec * NS_PER_S)


def without_repeats(metered: MeteredDevice, readings: Readings) -> Sampled:
    """Of ascending readings; two at one moment are one."""
    fresh = spooled(_fresh(readings))
    repeated = len(readings) - len(fresh)
    return Sampled(metered, fresh if repeated else readings, repeated)


def _fresh(readings: Readings) -> Iterator[Reading]:
    yield from readings[:1]
    yield from (later for before, later in pairwise(readings) if later.at_ns > before.at_ns)


def recording(
    document: Document,
    asked: Asked,
    devices: Sequence[Sampled],
    *,
    mapping: Sequence[Mapped],
    notes: Sequence[str],
    window_ns: Span | None = None,
    **fields: Any,
) -> Recording:
    """The run of a log, whose window is the one that was asked for, else `window_ns`, else all of it. Raises ExportError."""
    first_ns = min(each.readings[0].at_ns for each in devices)
    last_ns = max(each.readings[-1].at_ns for each in devices)
    window = asked.window_ns(first_ns) or window_ns
    whole = [] if window else ["the whole file is the window (--window START,END says another)"]
    start_ns, end_ns = window or (first_ns, last_ns)
    _check_window(document, (start_ns, end_ns), (first_ns, last_ns))
    moved = [each.from_origin(first_ns) for each in devices]
    span = start_ns - first_ns, end_ns - first_ns
    quiet = Quiet.around(span, moved)
    return Recording(
        origin_ns=first_ns,
        measurements=[Measurement(span)],
        devices=[each.metered for each in moved],
        readings={each.uuid: each.readings for each in moved},
        sample_hz=_rate_hz(moved),
        idle_before=quiet.before,
        guard=quiet.guard,
        idle_after=quiet.after,
        notes=[*notes, *whole, *_doubts(moved)],
        mapping=[*mapping, *quiet.mapping],
        **fields,
    )


class Quiet(NamedTuple):
    """Where the devices idled around a window."""

    before: Span | None
    guard: Span | None
    after: Span | None

    @classmethod
    def around(cls, span: Span, devices: Sequence[Sampled]) -> "Quiet":
        """For as long as the readings of all of them are one power, which after the window is less than within."""
        before = _idle_before(span, devices)
        quiet_ns = min(_quiet_until(span, each) for each in devices)
        if quiet_ns <= span[1]:
            return cls(before, None, None)
        guard = span[1], min(quiet_ns, span[1] + LONGEST_GUARD_NS)
        after = guard[1], min(quiet_ns, guard[1] + LONGEST_IDLE_NS)
        return cls(before, guard, after if _is_one_power(after, devices) else None)

    @property
    def mapping(self) -> Iterator[Mapped]:
        """Where they come from, or why there is none."""
        if self.before is None:
            yield Mapped("baseline_power_w", reason="no idle stands before the window")
        else:
            yield Mapped("baseline_power_w", "samples before the window, which are one power")
        if self.guard is None:
            reason = "no idle stands after the window, so power is integrated by trapezoids"
            yield Mapped("windows of kind guard", reason=reason)
        else:
            yield Mapped(
                "windows of kind guard", "samples after the window, which are one power below the window's"
            )


def _idle_before(span: Span, devices: Sequence[Sampled]) -> Span | None:
    first_ns = min(each.readings[0].at_ns for each in devices)
    before = max(first_ns, span[0] - LONGEST_IDLE_NS), span[0] - 1
    return before if before[1] - before[0] >= NS_PER_S and _is_one_power(before, devices) else None


def _is_one_power(span: Span, devices: Sequence[Sampled]) -> bool:
    powers = [powers_w(each.readings, span) for each in devices]
    return all(len(each) >= FEWEST_IDLE and max(each) - min(each) <= _spread_w(each[0]) for each in powers)


def _quiet_until(span: Span, device: Sampled) -> int:
    """The last of the readings that are one power once the sensor has forgotten the window; its end where there are too few."""
    mean_w = _mean_w(device.readings, span)
    settled_ns = span[1] + device.settles_ns(span)
    least_w, most_w = np.inf, -np.inf
    count, until_ns = 0, span[1]
    for reading in device.readings:
        for power_w in powers_w([reading], (settled_ns, reading.at_ns)):
            least_w, most_w = min(power_w, least_w), max(power_w, most_w)
            if most_w - least_w > _spread_w(least_w) or most_w >= mean_w:
                return until_ns if count >= FEWEST_IDLE else span[1]
            count, until_ns = count + 1, reading.at_ns
    return until_ns if count >= FEWEST_IDLE else span[1]


def _mean_w(readings: Readings, span: Span) -> float:
    try:
        return fmean(each_power_w(readings, span))
    except StatisticsError:
        return 0.0  # none is known


def _spread_w(power_w: float) -> float:
    return max(IDLE_SPREAD_W, IDLE_SPREAD * power_w)


def _rate_hz(devices: Sequence[Sampled]) -> float:
    gaps = [
        later.at_ns - before.at_ns
        for each in devices
        for before, later in pairwise(islice(each.readings, MOST_LOOKED_AT))
    ]
    return NS_PER_S / median(gaps) if gaps else 0.0


def _check_window(document: Document, window: Span, seen: Span) -> None:
    if window[0] < seen[0] or window[1] > seen[1] or window[0] == window[1]:
        raise document.refuse(
            "the window is not within its samples",
            found=f"{(window[0] - seen[0]) / NS_PER_S:g} to {(window[1] - seen[0]) / NS_PER_S:g} s",
            expected=f"0 to {(seen[1] - seen[0]) / NS_PER_S:g} s",
        )


def _doubts(devices: Sequence[Sampled]) -> Iterator[str]:
    for each in devices:
        if each.repeated:
            yield f"{each.repeated} samples of {each.uuid} have the time of another and were left out"
        averaged = each.metered.power_window_ns and each.metered.energy_source == "integrated"
        if averaged and each.metered.device.power_limit_mw is None:
            yield f"the power limit of {each.uuid} is not in the file, so its averaged power has no bound"


def sample_mapping(devices: Sequence[Sampled], sources: dict[str, str]) -> Iterator[Mapped]:
    """Every column of samples: what it comes from, or why it is NULL."""
    everything = sum(len(each.readings) for each in devices)
    for column in Reading._fields[1:]:
        known = sum(each.readings.known[column] for each in devices)
        if known:
            yield Mapped(f"samples.{column}", f"{sources[column]}: {known} of {everything} samples")
        elif column in sources:
            yield Mapped(f"samples.{column}", reason=f"{sources[column]} has no value in any row")
        else:
            yield Mapped(
                f"samples.{column}", reason=devices[0].metered.missing.get(column, "not in the file")
            )
    yield Mapped("requests, tokens", reason="a log of power tells nothing of requests")


def missing(readings: Readings, **reasons: str) -> dict[str, str]:
    """Why a column has no value in any sample."""
    empty = [name for name, count in readings.known.items() if not count]
    return {name: reasons.get(name, "not in the file") for name in empty}
