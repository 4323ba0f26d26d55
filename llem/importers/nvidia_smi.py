"""`nvidia-smi --query-gpu=timestamp,... --format=csv`, with units or `nounits`: samples of power, clocks and use."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

import numpy as np

from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Mapped, Measurement, Recording, Span, powers_w
from llem.results.averaged_power import refresh_period_sec
from llem.units import BYTES_PER_MB, MW_PER_W, NS_PER_S
from llem_events import Reading
from llem_events.events import Device, MeteredDevice

OPTIONS = frozenset({"window", "timezone"})
AVERAGED_NS = NS_PER_S  # so documented
LONGEST_GUARD_NS = 4 * NS_PER_S
LONGEST_IDLE_NS = 60 * NS_PER_S
# Readings that lie no further apart are one power.
IDLE_SPREAD, IDLE_SPREAD_W = 0.05, 2.0
FEWEST_IDLE = 3
MOST_GPUS = 256
_NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?) ?(\S*)")
# Documented: a mean over 1 s from Ampere on, the moment's before it and on GA100.
_INSTANT = re.compile(
    r"A100|A30\b|A800|CMP|V100|P100|P40\b|P4\b|T4\b|M[46]0|K[48]0|GTX|TITAN|Quadro|RTX 20|RTX [345678]000$",
    re.I,
)
_AVERAGE = re.compile(
    r"[HB][123]?00|H20\b|G[HB]\d00|L4\b|L4\dS?\b|L2\b|L20\b|A1[06]G?\b|A40\b|A2\b|RTX A\d|RTX [345]0\d0|Ada|Blackwell|RTX PRO",
    re.I,
)


class Figure(NamedTuple):
    """A column of theirs: ours, the unit it must have, and how many of ours one is."""

    column: str
    unit: str
    scale: int = 1


POWERS = {
    "power.draw": Figure("power_mw", "W", MW_PER_W),
    "power.draw.average": Figure("power_average_mw", "W", MW_PER_W),
    "power.draw.instant": Figure("power_mw", "W", MW_PER_W),
}
OTHERS = {
    "temperature.gpu": Figure("temperature_c", ""),
    "utilization.gpu": Figure("gpu_utilisation_pct", "%"),
    "utilization.memory": Figure("memory_utilisation_pct", "%"),
    "memory.used": Figure("memory_used_bytes", "MiB", BYTES_PER_MB),
    "clocks.current.sm": Figure("sm_clock_mhz", "MHz"),
    "clocks.sm": Figure("sm_clock_mhz", "MHz"),
    "clocks.current.memory": Figure("memory_clock_mhz", "MHz"),
    "clocks.mem": Figure("memory_clock_mhz", "MHz"),
    "power.limit": Figure("power_limit_mw", "W", MW_PER_W),
    "enforced.power.limit": Figure("power_limit_mw", "W", MW_PER_W),
}
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
_MEMORY = Figure("memory_bytes", "MiB", BYTES_PER_MB)
_KEYS = ("uuid", "gpu_uuid", "pci.bus_id", "gpu_bus_id", "index")
_COUNTER = "nvidia-smi does not print the energy counter"
Row = Mapping[str, str]


def recognises(document: Document) -> bool:
    """Whether its first line names a time and figures of GPUs."""
    names = {_name(cell) for cell in document.header}
    return bool(names & {*POWERS, *OTHERS, *REASONS}) and bool(names & {"timestamp", *POWERS})


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """The one run of a file. Raises ExportError."""
    rows = _rows(document)
    zone_ns = _times(document, rows, asked)
    gpus = list(_gpus(document, rows, zone_ns))
    first_ns = min(gpu.readings[0].at_ns for gpu in gpus)
    last_ns = max(gpu.readings[-1].at_ns for gpu in gpus)
    window = asked.window_ns(first_ns) or (first_ns, last_ns)
    _check_window(document, window, (first_ns, last_ns))
    gpus = [gpu.from_origin(first_ns) for gpu in gpus]
    span = window[0] - first_ns, window[1] - first_ns
    readings = {gpu.uuid: gpu.readings for gpu in gpus}
    quiet = _Quiet.around(span, gpus)
    yield Recording(
        origin_ns=first_ns,
        measurements=[Measurement(span)],
        devices=[gpu.metered for gpu in gpus],
        readings=readings,
        sample_hz=_rate_hz(gpus),
        idle_before=quiet.before,
        guard=quiet.guard,
        idle_after=quiet.after,
        version=None,
        notes=[asked.note_of_zone(), *_doubts(gpus, asked, quiet)],
        mapping=[*_mapping(rows[0], gpus), *quiet.mapping],
    )


class _Gpu(NamedTuple):
    """One GPU of a file."""

    metered: MeteredDevice
    readings: Sequence[Reading]
    repeated: int

    @property
    def uuid(self) -> str:
        return self.metered.device.uuid

    def settles_ns(self, span: Span) -> int:
        """How long after the span a reading knows nothing of it: the averaging time, and a refresh of the sensor."""
        powered = [(reading.at_ns, *powers_w([reading], span)) for reading in self.readings]
        at_sec, power_w = np.array([each for each in powered if len(each) > 1]).reshape(-1, 2).T
        if len(at_sec) < FEWEST_IDLE:
            return self.metered.power_window_ns or 0
        taken_sec = at_sec[1:][np.diff(power_w) != 0] / NS_PER_S
        period_sec = refresh_period_sec(taken_sec, float(np.median(np.diff(at_sec))) / NS_PER_S)
        return (self.metered.power_window_ns or 0) + round(period_sec * NS_PER_S)

    def from_origin(self, origin_ns: int) -> "_Gpu":
        moved = [reading._replace(at_ns=reading.at_ns - origin_ns) for reading in self.readings]
        return self._replace(readings=moved)


class _Quiet(NamedTuple):
    """Where the GPUs idled around a window."""

    before: Span | None
    guard: Span | None
    after: Span | None

    @classmethod
    def around(cls, span: Span, gpus: Sequence[_Gpu]) -> "_Quiet":
        """For as long as the readings of all of them are one power, which after the window is less than within."""
        before = _idle_before(span, gpus)
        quiet_ns = min(_quiet_until(span, gpu) for gpu in gpus)
        if quiet_ns <= span[1]:
            return cls(before, None, None)
        guard = span[1], min(quiet_ns, span[1] + LONGEST_GUARD_NS)
        after = guard[1], min(quiet_ns, guard[1] + LONGEST_IDLE_NS)
        return cls(before, guard, after if _is_one_power(after, gpus) else None)

    @property
    def mapping(self) -> list[Mapped]:
        found = "the same power, below the window's"
        idle = Mapped("baseline_power_w", "samples before the window")
        if self.before is None:
            idle = Mapped(idle.column, reason="no idle stands before the window")
        guard = Mapped("windows of kind guard", f"samples after the window: {found}")
        if self.guard is None:
            guard = Mapped(
                guard.column, reason="no idle stands after the window, so power is integrated by trapezoids"
            )
        return [idle, guard]


def _idle_before(span: Span, gpus: Sequence[_Gpu]) -> Span | None:
    first_ns = min(gpu.readings[0].at_ns for gpu in gpus)
    before = max(first_ns, span[0] - LONGEST_IDLE_NS), span[0] - 1
    return before if before[1] - before[0] >= NS_PER_S and _is_one_power(before, gpus) else None


def _is_one_power(span: Span, gpus: Sequence[_Gpu]) -> bool:
    powers = [powers_w(gpu.readings, span) for gpu in gpus]
    return all(len(each) >= FEWEST_IDLE and max(each) - min(each) <= _spread_w(each[0]) for each in powers)


def _quiet_until(span: Span, gpu: _Gpu) -> int:
    """The last of the readings that are one power once the sensor has forgotten the window; its end where there are too few."""
    within = powers_w(gpu.readings, span)
    settled_ns = span[1] + gpu.settles_ns(span)
    seen: list[float] = []
    until_ns = span[1]
    for reading in gpu.readings:
        power = powers_w([reading], (settled_ns, reading.at_ns))
        if not power:
            continue
        least, most = min(power + seen), max(power + seen)
        if not within or most - least > _spread_w(least) or most >= fmean(within):
            break
        seen, until_ns = [least, most, *seen[:1]], reading.at_ns
    return until_ns if len(seen) >= FEWEST_IDLE else span[1]


def _spread_w(power_w: float) -> float:
    return max(IDLE_SPREAD_W, IDLE_SPREAD * power_w)


def _rows(document: Document) -> list[dict[str, str]]:
    """Name -> cell, of every complete row. Raises ExportError."""
    names = [_name(cell) for cell in document.rows[0]]
    rows = [dict(zip(names, row, strict=False)) for row in document.rows[1:] if len(row) == len(names)]
    if "timestamp" not in names:
        raise document.refuse("its samples have no times", hint="query timestamp too")
    if not rows:
        raise document.refuse("it has no samples")
    return rows


def _name(cell: str) -> str:
    """Without its unit."""
    return cell.strip().split(" [")[0].lower()


def _times(document: Document, rows: Sequence[Row], asked: Asked) -> list[int]:
    try:
        return [asked.unix_ns(datetime.fromisoformat(row["timestamp"].replace("/", "-"))) for row in rows]
    except (ValueError, OverflowError, OSError) as error:
        raise document.refuse("a timestamp cannot be read", found=str(error)) from None


def _gpus(document: Document, rows: Sequence[Row], times_ns: Sequence[int]) -> Iterator[_Gpu]:
    key = next((name for name in _KEYS if name in rows[0]), None)
    of_gpus: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        of_gpus.setdefault("0" if key is None else row[key], []).append(place)
    if len(of_gpus) > MOST_GPUS:
        raise document.refuse("GPUs", found=len(of_gpus), expected=f"at most {MOST_GPUS}")
    for number, (name, places) in enumerate(of_gpus.items()):
        yield _gpu(document, name, number, [rows[at] for at in places], [times_ns[at] for at in places])


def _gpu(document: Document, key: str, number: int, rows: Sequence[Row], times_ns: Sequence[int]) -> _Gpu:
    if any(later < earlier for earlier, later in pairwise(times_ns)):
        raise document.refuse(
            f"the times of GPU {key} go back",
            hint="is it of two runs, or of the hour in which clocks were changed?",
        )
    instant = any(_is_known(row.get("power.draw.instant", "")) for row in rows)
    kind = _power_kind(rows[0], instant=instant)
    readings = [
        _reading(document, row, at_ns, instant=instant) for row, at_ns in zip(rows, times_ns, strict=True)
    ]
    # two within a millisecond are one
    fresh = readings[:1] + [later for before, later in pairwise(readings) if later.at_ns > before.at_ns]
    limits_mw = [reading.power_limit_mw for reading in fresh if reading.power_limit_mw is not None]
    device = Device(
        host="unknown",
        uuid=key if key.startswith("GPU-") else f"GPU {key}",
        index=_index(rows[0], number),
        name=rows[0].get("name") or rows[0].get("gpu_name") or "unknown",
        kind="gpu",
        pci_id=rows[0].get("pci.bus_id") or rows[0].get("gpu_bus_id"),
        memory_bytes=_value(document, rows[0].get("memory.total", ""), _MEMORY),
        power_limit_mw=max(limits_mw, default=None),
    )
    metered = MeteredDevice(
        device=device,
        energy_source="integrated" if _has_power(fresh) else None,
        power_kind=kind,
        power_window_ns=None if kind == "instant" else AVERAGED_NS,
        missing=_missing(fresh),
    )
    return _Gpu(metered, fresh, len(readings) - len(fresh))


def _has_power(readings: Sequence[Reading]) -> bool:
    return any(reading.power_mw is not None or reading.power_average_mw is not None for reading in readings)


def _index(row: Row, number: int) -> int:
    index = row.get("index", "")
    return int(index) if index.isascii() and index.isdigit() and len(index) < 6 else number


def _power_kind(row: Row, *, instant: bool) -> Literal["instant", "average"] | None:
    """None where the name of the GPU does not say it: then it is neither telescoped nor taken for exact."""
    if instant:
        return "instant"
    if "power.draw.average" in row:
        return "average"
    name = row.get("name") or row.get("gpu_name") or ""
    if _INSTANT.search(name):
        return "instant"
    return "average" if _AVERAGE.search(name) else None


def _reading(document: Document, row: Row, at_ns: int, *, instant: bool) -> Reading:
    values: dict[str, Any] = {
        figure.column: _value(document, row[name], figure) for name, figure in OTHERS.items() if name in row
    }
    for name in REASONS:
        if name in row:
            values["throttle_reasons"] = _bits(row[name])
    powers = {name: _value(document, row[name], figure) for name, figure in POWERS.items() if name in row}
    if instant:
        values["power_mw"] = powers["power.draw.instant"]
        values["power_average_mw"] = powers.get("power.draw.average")
    else:
        values["power_mw"] = powers.get("power.draw.average", powers.get("power.draw"))
    return Reading(at_ns, **values)


def _value(document: Document, cell: str, figure: Figure) -> int | None:
    """None where nvidia-smi says that it is not there. Raises ExportError for another unit."""
    if not _is_known(cell):
        return None
    matched = _NUMBER.fullmatch(cell)
    if matched is None or matched[2] not in ("", figure.unit) or len(matched[1]) > 15:
        raise document.refuse(
            "a sample cannot be read", found=repr(cell[:40]), expected=f"a number {figure.unit}".strip()
        )
    return round(float(matched[1]) * figure.scale)


def _is_known(cell: str) -> bool:
    return bool(cell) and not cell.startswith("[") and cell not in ("N/A", "ERR!")


def _bits(cell: str) -> int | None:
    """A mask such as 0x0000000000000001."""
    return int(cell, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,15}|0x0[0-9a-fA-F]{15}", cell) else None


def _missing(readings: Sequence[Reading]) -> dict[str, str]:
    """Why a column has no value in any sample."""
    empty = [
        name for name in Reading._fields[1:] if all(getattr(reading, name) is None for reading in readings)
    ]
    return {name: _COUNTER if name == "energy_mj" else "not in the file" for name in empty}


def _rate_hz(gpus: Sequence[_Gpu]) -> float:
    gaps = [later.at_ns - before.at_ns for gpu in gpus for before, later in pairwise(gpu.readings)]
    return NS_PER_S / median(gaps) if gaps else 0.0


def _check_window(document: Document, window: Span, seen: Span) -> None:
    if window[0] < seen[0] or window[1] > seen[1]:
        raise document.refuse(
            "the window is not within its samples",
            found=f"{(window[0] - seen[0]) / NS_PER_S:g} to {(window[1] - seen[0]) / NS_PER_S:g} s",
            expected=f"0 to {(seen[1] - seen[0]) / NS_PER_S:g} s",
        )


def _doubts(gpus: Sequence[_Gpu], asked: Asked, quiet: _Quiet) -> Iterator[str]:
    if asked.window is None:
        yield "the whole file is the window (--window START,END says another)"
    for gpu in gpus:
        if gpu.repeated:
            yield f"{gpu.repeated} samples of {gpu.uuid} have the time of another and were left out"
        if gpu.metered.power_kind is None and _has_power(gpu.readings):
            yield f"whether the power of {gpu.uuid} is a mean over 1 s is not known of its name: the bound takes it for one"
        if gpu.metered.device.power_limit_mw is None:
            yield f"the power limit of {gpu.uuid} is not in the file, so averaged power has no bound (query power.limit)"


def _mapping(row: Row, gpus: Sequence[_Gpu]) -> Iterator[Mapped]:
    """Every column of samples: what it comes from, or why it is NULL."""
    sources = {figure.column: name for name, figure in OTHERS.items() if name in row}
    sources |= {"throttle_reasons": next((name for name in REASONS if name in row), REASONS[0])}
    averaged = "power.draw.average" if "power.draw.average" in row else "power.draw"
    sources |= {"power_mw": averaged, "power_average_mw": "power.draw.average"}
    if any(gpu.metered.power_kind == "instant" for gpu in gpus) and "power.draw.instant" in row:
        sources["power_mw"] = "power.draw.instant"
    for column in Reading._fields:
        known = sum(getattr(reading, column) is not None for gpu in gpus for reading in gpu.readings)
        everything = sum(len(gpu.readings) for gpu in gpus)
        if column == "at_ns":
            yield Mapped(
                "samples.at", f"timestamp: {everything} samples of {len(gpus)} GPU{'s' * (len(gpus) > 1)}"
            )
        elif known:
            yield Mapped(f"samples.{column}", f"{sources[column]}: {known} of {everything} samples")
        else:
            asked_for = column != "energy_mj" and column in sources and sources[column] in row
            reason = (
                f"{sources[column]} has no value in any row" if asked_for else gpus[0].metered.missing[column]
            )
            yield Mapped(f"samples.{column}", reason=reason)
    yield Mapped("requests, tokens", reason="a log of power tells nothing of requests")
