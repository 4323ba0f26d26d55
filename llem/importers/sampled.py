"""A log of samples of devices: its readings on disk, because it may be of days; which part of it is the measurement, and where the devices idled around it."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from statistics import StatisticsError, fmean, median
from typing import Any, NamedTuple, overload

import numpy as np

from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Mapped, Measurement, Recording, Span, each_power_w, powers_w
from llem.results.averaged_power import refresh_period_sec
from llem.units import NS_PER_S
from llem_events import Reading
from llem_events.events import MeteredDevice

COLUMNS = Reading._fields[1:]
LARGEST = 2**62  # of a measured number
_WIDTH = len(Reading._fields)
_ROW_BYTES = 8 * _WIDTH
_NOTHING = -(2**63)  # in the place of None
_ROWS = 2**12
LONGEST_GUARD_NS = 4 * NS_PER_S
LONGEST_IDLE_NS = 60 * NS_PER_S
# Readings that lie no further apart are one power.
IDLE_SPREAD, IDLE_SPREAD_W = 0.05, 2.0
FEWEST_IDLE = 3
# Of a long log so many readings tell how often a sensor is read, and how often it changes.
MOST_LOOKED_AT = 2**17


class _File:
    """A temporary file, closed when nobody reads of it any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- see above
        weakref.finalize(self, self._file.close)

    def write(self, rows: list[list[int]]) -> None:
        self._file.write(np.array(rows, np.int64).tobytes())

    def read(self, first: int, end: int) -> list[list[int]]:
        content = os.pread(self._file.fileno(), (end - first) * _ROW_BYTES, first * _ROW_BYTES)
        rows: list[list[int]] = np.frombuffer(content, np.int64).reshape(-1, _WIDTH).tolist()
        return rows


class Readings(Sequence[Reading]):
    """Those of a device, in the order in which they were written; `known` counts those that have a column."""

    def __init__(self, file: _File, count: int, known: dict[str, int], *, origin_ns: int = 0) -> None:
        self._file, self._count, self.known, self._origin_ns = file, count, known, origin_ns

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Reading: ...
    @overload
    def __getitem__(self, place: slice) -> list[Reading]: ...
    def __getitem__(self, place: int | slice) -> Reading | list[Reading]:
        if isinstance(place, slice):
            first, end, _ = place.indices(self._count)
            return [self._reading(row) for row in self._file.read(first, max(first, end))]
        place = range(self._count)[place]
        return self[place : place + 1][0]

    def __iter__(self) -> Iterator[Reading]:
        for first in range(0, len(self), _ROWS):
            yield from self[first : first + _ROWS]

    def since(self, origin_ns: int) -> "Readings":
        """The same, with times from a moment on."""
        return Readings(self._file, self._count, self.known, origin_ns=self._origin_ns + origin_ns)

    def _reading(self, row: list[int]) -> Reading:
        at_ns, *measured = row
        values: list[Any] = [None if number == _NOTHING else number for number in measured]
        return Reading(at_ns - self._origin_ns, *values)


class Spool:
    """What readings are appended to."""

    def __init__(self) -> None:
        self._file = _File()
        self._pending: list[list[int]] = []
        self._count = 0
        self._known = dict.fromkeys(COLUMNS, 0)

    def append(self, reading: Reading) -> None:
        """One more."""
        for name, number in zip(COLUMNS, reading[1:], strict=True):
            self._known[name] += number is not None
        self._pending.append([_NOTHING if number is None else number for number in reading])
        if len(self._pending) >= _ROWS:
            self._flush()

    def readings(self) -> Readings:
        """All of them. Nothing more is appended."""
        self._flush()
        return Readings(self._file, self._count, self._known)

    def _flush(self) -> None:
        self._file.write(self._pending)
        self._count += len(self._pending)
        self._pending = []


def spooled(readings: Iterable[Reading]) -> Readings:
    """All of them on disk."""
    spool = Spool()
    for reading in readings:
        spool.append(reading)
    return spool.readings()


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
