"""`dcgmi dmon -e ...`: samples without times, which follow from --start and --interval."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Mapped, Recording
from llem.importers.sampled import (
    Readings,
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

OPTIONS = frozenset({"window", "timezone", "start", "interval_s"})
AVERAGED_NS = NS_PER_S
MOST_ENTITIES = 256
_LIMIT = 2**53


class Figure(NamedTuple):
    """Our column, and how many of ours one of theirs is."""

    column: str
    scale: int = 1


# Field 155, 156, 150, 203, 204, 252, 100 and 101 under the short names that dcgmi prints.
FIGURES = {
    "POWER": Figure("power_mw", MW_PER_W),
    "TOTEC": Figure("energy_mj"),
    "TMPTR": Figure("temperature_c"),
    "GPUTL": Figure("gpu_utilisation_pct"),
    "MCUTL": Figure("memory_utilisation_pct"),
    "FBUSD": Figure("memory_used_bytes", BYTES_PER_MB),
    "SMCLK": Figure("sm_clock_mhz"),
    "MMCLK": Figure("memory_clock_mhz"),
}


def recognises(document: Document) -> bool:
    """Whether its first line names an entity."""
    return document.text.lstrip().startswith("#Entity")


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """The one run of a file. Raises LlemError."""
    start_ns, interval_ns = asked.start_ns(), asked.interval_ns()
    if start_ns is None or interval_ns is None:
        raise document.refuse(
            "dcgmi dmon writes no times", hint="say --start TIME and --interval SECONDS (its -d, in seconds)"
        )
    names, entities = _read(document, start_ns, interval_ns)
    devices = [
        _sampled(index, entity, spool.readings()) for index, (entity, spool) in enumerate(entities.items())
    ]
    sources = {FIGURES[name].column: name for name in names if name in FIGURES}
    yield recording(
        document,
        asked,
        devices,
        mapping=[Mapped("samples.at_ns", "--start and --interval"), *sample_mapping(devices, sources)],
        notes=[f"its times are made of --start and --interval: {asked.interval_s:g} s after each other"],
    )


def _read(document: Document, start_ns: int, interval_ns: int) -> tuple[list[str], dict[str, Spool]]:
    """Names of the columns, and readings of each entity. Raises ExportError."""
    names: list[str] = []
    entities: dict[str, Spool] = {}
    numbers: dict[str, int] = {}
    for entity, words in _lines(document):
        if not entity:
            names = words
            continue
        number = numbers[entity] = numbers.get(entity, -1) + 1
        reading = _reading(document, dict(zip(names, words, strict=True)), start_ns + number * interval_ns)
        entities.setdefault(entity, Spool()).append(reading)
        if len(entities) > MOST_ENTITIES:
            raise document.refuse("entities", found=len(entities), expected=f"at most {MOST_ENTITIES}")
    if not entities:
        raise document.refuse("it has no samples")
    return names, entities


def _lines(document: Document) -> Iterator[tuple[str, list[str]]]:
    """Cells of each line with its entity, which is empty for names of the columns. Raises ExportError."""
    names: list[str] = []
    is_begun = False
    for number, line in enumerate(document.lines(), 1):
        words = line.split()
        if words[:1] == ["#Entity"] and is_begun and words[1:] != names:
            raise document.refuse(
                f"line {number}: other columns than before", hint="import each part by itself"
            )
        if words[:1] == ["#Entity"]:
            names = words[1:]
            yield "", names
        elif len(words) == len(names) + 2 and words[1].isdigit():
            is_begun = True
            yield f"{words[0]} {words[1]}"[:40], words[2:]
        elif words and words[0].lower() not in ("id", "#") and not words[0].startswith("#"):
            raise document.refuse(f"line {number} cannot be read", found=repr(line[:40]))


def _sampled(index: int, entity: str, readings: Readings) -> Sampled:
    empty = missing(readings)
    source = "counter" if "energy_mj" not in empty else "integrated" if "power_mw" not in empty else None
    device = Device(host="unknown", uuid=entity, index=index, name="unknown", kind="gpu")
    metered = MeteredDevice(device=device, energy_source=source, power_window_ns=AVERAGED_NS, missing=empty)
    return without_repeats(metered, readings)


def _reading(document: Document, cells: Mapping[str, str], at_ns: int) -> Reading:
    values = {
        FIGURES[name].column: _value(document, cell, FIGURES[name].scale)
        for name, cell in cells.items()
        if name in FIGURES
    }
    return Reading(at_ns, **values)


def _value(document: Document, cell: str, scale: int) -> int | None:
    if cell in ("N/A", "-"):
        return None
    try:
        number = float(cell)
    except ValueError:
        number = -1.0
    if not 0 <= number * scale < _LIMIT:
        raise document.refuse("a sample cannot be read", found=repr(cell[:40]), expected="a number or N/A")
    return round(number * scale)
