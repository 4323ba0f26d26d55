"""`nvidia-smi --query-gpu=timestamp,... --format=csv`, with units or `nounits`: samples of power, clocks and use."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Literal, NamedTuple

from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Mapped, Recording
from llem.importers.sampled import (
    LARGEST,
    Sampled,
    Spool,
    missing,
    recording,
    sample_mapping,
    without_repeats,
)
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
    names = [_name(cell) for cell in next(document.table(), [])]
    if "timestamp" not in names:
        raise document.refuse("its samples have no times", hint="query timestamp too")
    logs = _logs(document, names, asked)
    gpus = [_gpu(document, log, number) for number, log in enumerate(logs)]
    sources = _sources(names, has_instant=any(gpu.metered.power_kind == "instant" for gpu in gpus))
    times = Mapped("samples.at_ns", f"timestamp, of {len(gpus)} GPU{'s' * (len(gpus) > 1)}")
    yield recording(
        document,
        asked,
        gpus,
        mapping=[times, *sample_mapping(gpus, sources)],
        notes=[asked.note_of_zone(), *_doubts(gpus)],
    )


@dataclass
class Log:
    """A GPU's rows: the first of them, and what was read of all."""

    key: str
    first: Row
    instant: bool
    spool: Spool
    last_ns: int
    limit_mw: int | None = None


def _logs(document: Document, names: list[str], asked: Asked) -> list[Log]:
    """Of every GPU, in the order in which they come. Raises ExportError."""
    key = next((name for name in _KEYS if name in names), None)
    instant = _instant(document, names, key)
    logs: dict[str, Log] = {}
    for row in _rows(document, names):
        gpu, at_ns = "0" if key is None else row[key], _at_ns(document, row, asked)
        log = logs.get(gpu)
        if log is None:
            log = logs[gpu] = Log(gpu, row, gpu in instant, Spool(), at_ns)
        if len(logs) > MOST_GPUS:
            raise document.refuse("GPUs", found=len(logs), expected=f"at most {MOST_GPUS}")
        _take(document, log, row, at_ns)
    if not logs:
        raise document.refuse("it has no samples")
    return [*logs.values()]


def _take(document: Document, log: Log, row: Row, at_ns: int) -> None:
    if at_ns < log.last_ns:
        raise document.refuse(
            f"the times of GPU {log.key} go back",
            hint="is it of two runs, or of the hour in which clocks were changed?",
        )
    reading = _reading(document, row, at_ns, instant=log.instant)
    log.spool.append(reading)
    log.last_ns = at_ns
    if reading.power_limit_mw is not None:
        log.limit_mw = max(reading.power_limit_mw, log.limit_mw or 0)


def _instant(document: Document, names: list[str], key: str | None) -> set[str]:
    """The GPUs that tell the moment's power in any row."""
    if "power.draw.instant" not in names:
        return set()
    return {
        "0" if key is None else row[key]
        for row in _rows(document, names)
        if _is_known(row["power.draw.instant"])
    }


def _rows(document: Document, names: list[str]) -> Iterator[dict[str, str]]:
    """Name -> cell, of every complete row. Raises ExportError."""
    for cells in islice(document.table(), 1, None):
        if len(cells) == len(names):
            yield dict(zip(names, cells, strict=True))


def _name(cell: str) -> str:
    """Without its unit."""
    return cell.strip().split(" [")[0].lower()


def _at_ns(document: Document, row: Row, asked: Asked) -> int:
    try:
        return asked.unix_ns(datetime.fromisoformat(row["timestamp"].replace("/", "-")))
    except (ValueError, OverflowError, OSError) as error:
        raise document.refuse("a timestamp cannot be read", found=str(error)) from None


def _gpu(document: Document, log: Log, number: int) -> Sampled:
    key, first, readings = log.key, log.first, log.spool.readings()
    kind = _power_kind(first, instant=log.instant)
    empty = missing(readings, energy_mj=_COUNTER)
    device = Device(
        host="unknown",
        uuid=key if key.startswith("GPU-") else f"GPU {key}",
        index=_index(first, number),
        name=first.get("name") or first.get("gpu_name") or "unknown",
        kind="gpu",
        pci_id=first.get("pci.bus_id") or first.get("gpu_bus_id"),
        memory_bytes=_value(document, first.get("memory.total", ""), _MEMORY),
        power_limit_mw=log.limit_mw,
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
    number = round(float(matched[1]) * figure.scale)
    if abs(number) > LARGEST:
        raise document.refuse("a sample cannot be read", found=repr(cell[:40]), expected="a smaller number")
    return number


def _is_known(cell: str) -> bool:
    return bool(cell) and not cell.startswith("[") and cell not in ("N/A", "ERR!")


def _bits(cell: str) -> int | None:
    """A mask such as 0x0000000000000001."""
    return int(cell, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,15}|0x0[0-9a-fA-F]{15}", cell) else None


def _doubts(gpus: Sequence[Sampled]) -> Iterator[str]:
    for gpu in gpus:
        if gpu.metered.power_kind is None and gpu.has_power:
            yield f"the name of {gpu.uuid} does not say whether its power is a mean over 1 s: the bound takes it for one"


def _sources(row: Sequence[str], *, has_instant: bool) -> dict[str, str]:
    """Our column -> theirs, of those that are there."""
    sources = {figure.column: name for name, figure in OTHERS.items() if name in row}
    powers = ["power.draw", "power.draw.average", *(["power.draw.instant"] if has_instant else [])]
    for column, names in (("throttle_reasons", REASONS), ("power_mw", powers)):
        sources.update((column, name) for name in names if name in row)
    if has_instant and "power.draw.average" in row:
        sources["power_average_mw"] = "power.draw.average"
    return sources
