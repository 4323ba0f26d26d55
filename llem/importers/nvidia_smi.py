"""`nvidia-smi --query-gpu=timestamp,... --format=csv`, with units or `nounits`: samples of power, clocks and use."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Mapped, Recording
from llem.importers.sampled import Sampled, missing, recording, sample_mapping, without_repeats
from llem.units import BYTES_PER_MB, MW_PER_W, NS_PER_S
from llem_events import Reading
from llem_events.events import Device, MeteredDevice

OPTIONS = frozenset({"window", "timezone"})
AVERAGED_NS = NS_PER_S  # so documented
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
    """The one run of a file. Raises LlemError."""
    rows = _rows(document)
    gpus = list(_gpus(document, rows, _times(document, rows, asked)))
    sources = _sources(rows[0], has_instant=any(gpu.metered.power_kind == "instant" for gpu in gpus))
    times = Mapped("samples.at_ns", f"timestamp, of {len(gpus)} GPU{'s' * (len(gpus) > 1)}")
    yield recording(
        document,
        asked,
        gpus,
        mapping=[times, *sample_mapping(gpus, sources)],
        notes=[asked.note_of_zone(), *_doubts(gpus)],
    )


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


def _gpus(document: Document, rows: Sequence[Row], times_ns: Sequence[int]) -> Iterator[Sampled]:
    key = next((name for name in _KEYS if name in rows[0]), None)
    of_gpus: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        of_gpus.setdefault("0" if key is None else row[key], []).append(place)
    if len(of_gpus) > MOST_GPUS:
        raise document.refuse("GPUs", found=len(of_gpus), expected=f"at most {MOST_GPUS}")
    for number, (name, places) in enumerate(of_gpus.items()):
        yield _gpu(document, name, number, [rows[at] for at in places], [times_ns[at] for at in places])


def _gpu(document: Document, key: str, number: int, rows: Sequence[Row], times_ns: Sequence[int]) -> Sampled:
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
    empty = missing(readings, energy_mj=_COUNTER)
    limits_mw = [reading.power_limit_mw for reading in readings if reading.power_limit_mw is not None]
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
        energy_source=None if "power_mw" in empty else "integrated",
        power_kind=kind,
        power_window_ns=None if kind == "instant" else AVERAGED_NS,
        missing=empty,
    )
    return without_repeats(metered, readings)


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


def _doubts(gpus: Sequence[Sampled]) -> Iterator[str]:
    for gpu in gpus:
        if gpu.metered.power_kind is None and gpu.has_power:
            yield f"the name of {gpu.uuid} does not say whether its power is a mean over 1 s: the bound takes it for one"


def _sources(row: Row, *, has_instant: bool) -> dict[str, str]:
    """Our column -> theirs, of those that are there."""
    sources = {figure.column: name for name, figure in OTHERS.items() if name in row}
    powers = ["power.draw", "power.draw.average", *(["power.draw.instant"] if has_instant else [])]
    for column, names in (("throttle_reasons", REASONS), ("power_mw", powers)):
        sources.update((column, name) for name in names if name in row)
    if has_instant and "power.draw.average" in row:
        sources["power_average_mw"] = "power.draw.average"
    return sources
