"""A power log of MLPerf (spl.txt of PTDaemon): what a power analyser reads of a whole machine at its plug."""

import re
from collections.abc import Iterator
from datetime import datetime

from llem.importers.asked import Asked
from llem.importers.document import Document
from llem.importers.recording import Mapped, Recording, Span
from llem.importers.sampled import Spool, missing, recording, sample_mapping, without_repeats
from llem.units import MW_PER_W
from llem_events import Reading
from llem_events.events import Device, MeteredDevice

OPTIONS = frozenset({"window", "timezone"})
_LINE = re.compile(r"Time,([^,]*),Watts,([^,]*),")
_MARK = re.compile(r",Mark,([^,\r\n]*)")
_TIME = "%m-%d-%Y %H:%M:%S.%f"
_MOST_W = 1e9
_CLOCK = "its times are those of the machine at the analyser, local and without a zone"


def recognises(document: Document) -> bool:
    """Whether its first line is a reading."""
    return _LINE.match(document.text.lstrip()) is not None


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """The one run of a file: its testing phase where it is marked. Raises LlemError."""
    spool, testing_ns = Spool(), list[int]()
    last_ns = 0
    for reading, mark in _lines(document, asked):
        if reading.at_ns < last_ns:
            raise document.refuse("its times go back", hint="is it of two runs?")
        last_ns = reading.at_ns
        spool.append(reading)
        if "testing" in mark:
            testing_ns = [*testing_ns[:1], reading.at_ns]
    readings = spool.readings()
    empty = missing(readings)
    device = Device(host="unknown", uuid="wall", index=0, name="power analyser", kind="wall")
    source = None if "power_mw" in empty else "integrated"
    sampled = without_repeats(MeteredDevice(device=device, energy_source=source, missing=empty), readings)
    # the phase after that in which the analyser's range is found
    testing: Span | None = (testing_ns[0], testing_ns[1]) if len(testing_ns) > 1 else None
    yield recording(
        document,
        asked,
        [sampled],
        window_ns=testing,
        mapping=[
            Mapped("samples.at_ns", "Time"),
            *sample_mapping([sampled], {"power_mw": "Watts"}),
            Mapped("windows", "Mark: the testing phase" if testing else "all of it: no phase is marked"),
        ],
        notes=[asked.note_of_zone(), _CLOCK],
    )


def _lines(document: Document, asked: Asked) -> Iterator[tuple[Reading, str]]:
    """Each reading with its mark. Raises ExportError."""
    for number, line in enumerate(filter(str.strip, document.lines()), 1):
        matched = _LINE.match(line)
        if matched is None:
            raise document.refuse(f"line {number} cannot be read", found=repr(line[:40]))
        at_ns, power_mw = _at_ns(document, matched[1], asked), _power_mw(document, matched[2])
        mark = _MARK.search(line)
        yield Reading(at_ns, power_mw=power_mw), "" if mark is None else mark[1]


def _at_ns(document: Document, written: str, asked: Asked) -> int:
    try:
        return asked.unix_ns(datetime.strptime(written, _TIME))
    except (ValueError, OverflowError, OSError):
        raise document.refuse("a time cannot be read", found=repr(written[:40]), expected=_TIME) from None


def _power_mw(document: Document, written: str) -> int | None:
    """None where the analyser had none, which it writes as -1."""
    try:
        power_w = float(written)
    except ValueError:
        power_w = float("nan")
    if not power_w < _MOST_W:
        raise document.refuse("a power cannot be read", found=repr(written[:40]), expected="watts")
    return None if power_w < 0 else round(power_w * MW_PER_W)
