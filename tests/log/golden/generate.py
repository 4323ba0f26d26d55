"""Write the golden segments of today's schema version, with the rows that every reader must find in them.

    python -m tests.log.golden.generate

Run it when an event, a version of one or fields were added. Segments that are there, of today's version or of earlier versions are never written again: that they still read is the point.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llem_events import (
    SCHEMA_VERSION,
    Envelope,
    Reading,
    SegmentReader,
    SegmentWriter,
    UnknownEvent,
    columns,
    unpack,
)
from llem_events.events import Event, SamplesTaken
from tests.log.golden.examples import (
    ADDED_FIELDS,
    CALIBRATION_EVENTS,
    EXAMPLES,
    FACTORS,
    FAILED_RUN,
    LOAD_EVENTS,
    NOTES,
    RANK_EVENTS,
    REGION_EVENTS,
    SERVER_EVENTS,
    SETTING_EVENTS,
    STUDY_EVENTS,
)
from tests.log.segments import START_NS, segment_header

FOLDER = Path(__file__).parent
TODAY = FOLDER / f"schema-{SCHEMA_VERSION}"
Blocks = list[list[Event | bytes]]


def sample_events() -> list[Event]:
    """Samples of three devices: many columns with gaps, extreme values, and a single reading."""
    many = [
        Reading(
            at_ns=START_NS + n * 10_000_000 + n * n * 7919 % 20_011,
            power_mw=None if n in (3, 4, 119) else 310_000 + n * 7_777_777 % 9_973,
            energy_mj=2**41 + 31 * n,
            temperature_c=40 + n // 50,
            gpu_utilisation_pct=97,
            memory_used_bytes=8 * 2**30 + n % 3 * 2**21,
            throttle_reasons=4 if n > 60 else 0,
        )
        for n in range(120)
    ]
    extreme = [
        Reading(at_ns=n, power_mw=(-1) ** n * (2**63 - 1), energy_mj=-(2**63) if n else 2**63 - 1)
        for n in range(9)
    ]
    return [
        columns.pack(many, meter="nvml", device_uuid="GPU-1"),
        columns.pack(extreme, meter="simulated", device_uuid="GPU-2"),
        columns.pack([Reading(at_ns=START_NS)], meter="simulated", device_uuid="GPU-3"),
    ]


def unknown_events() -> list[Event | bytes]:
    """What a later llem may write: another type, another version, another field."""
    at_ns = START_NS
    body = {"code": "throttled", "text": "hot", "advice": ["cool", {"to_c": 60}]}
    return [
        msgspec.msgpack.encode(["model_melted", 1, at_ns, {"temperature_c": 3_000}]),
        msgspec.msgpack.encode(["window_opened", 99, at_ns, {"kinds": [1, {"of": None}]}]),
        msgspec.msgpack.encode(["warning_raised", 1, at_ns, body]),
    ]


def segments() -> dict[str, Blocks]:
    """Name of each golden segment -> its blocks; only `every_event` and `samples` get a seal."""
    third = len(EXAMPLES) // 3
    every = [list(EXAMPLES[:third]), list(EXAMPLES[third : 2 * third]), list(EXAMPLES[2 * third :])]
    return {
        "every_event": every,
        "samples": [[event] for event in sample_events()],
        "unclosed": [unknown_events()],
        "torn": [list(EXAMPLES[:2]), list(EXAMPLES[2:4])],
        "added_fields": [list(ADDED_FIELDS)],
        "load": [list(LOAD_EVENTS)],
        "server": [list(SERVER_EVENTS)],
        "regions": [list(REGION_EVENTS)],
        "study": [list(STUDY_EVENTS)],
        "failed_run": [list(FAILED_RUN)],
        "settings": [list(SETTING_EVENTS)],
        "ranks": [list(RANK_EVENTS)],
        "calibration": [list(CALIBRATION_EVENTS)],
        "notes": [list(NOTES)],
        "factors": [list(FACTORS)],
    }


def write(path: Path, blocks: Blocks, *, sealed: bool, cut_bytes: int = 0) -> None:
    """One segment, with nothing in it of this machine or this moment."""
    writer = SegmentWriter(path, segment_header(schema_version=SCHEMA_VERSION), sync="close")
    number = 0
    for events in blocks:
        for event in events:
            at_ns = START_NS + number
            if isinstance(event, bytes):
                writer.append_message(event, at_ns=at_ns)
            else:
                writer.append(event, at_ns=at_ns)
            number += 1
        writer.flush()
    writer.seal() if sealed else writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut_bytes)


def rows(path: Path, body: Callable[[Envelope], Any] | None = None) -> dict[str, Any]:
    """Header, verdict and events of a segment as plain JSON; byte strings are {"hex": ...}, samples are lists of values."""
    found = []
    with SegmentReader(path) as reader:
        for block in reader.blocks():
            for number, envelope in enumerate(reader.events(block), block.header.first_event):
                row = {"number": number, "type": envelope.type, "version": envelope.version}
                found.append(row | {"at_ns": envelope.at_ns, "body": (body or body_as_written)(envelope)})
        header = {"recovered_from": None} | plain(msgspec.to_builtins(reader.header, builtin_types=(bytes,)))
        return {"header": header, "verdict": str(reader.verdict), "events": found}


def body_as_written(envelope: Envelope) -> Any:
    """A body with all its fields, known or not."""
    if envelope.type == SamplesTaken.TYPE:
        return body_as_understood(envelope)
    return plain(msgspec.msgpack.decode(envelope.body))


def body_as_understood(envelope: Envelope) -> Any:
    """A body as today's Struct holds it."""
    match unpack(envelope):
        case UnknownEvent(body=body):
            return plain(msgspec.msgpack.decode(body))
        case SamplesTaken(meter=meter, device_uuid=device_uuid) as event:
            return {"meter": meter, "device_uuid": device_uuid, "samples": _samples(event)}
        case event:
            return plain(msgspec.msgpack.decode(msgspec.msgpack.encode(event)))


def _samples(event: SamplesTaken) -> dict[str, list[int | None]]:
    return {
        name: [
            None if missing is not None and missing[row] else int(number)
            for row, number in enumerate(numbers)
        ]
        for name, (numbers, missing) in columns.unpack(event).items()
    }


def plain(found: Any) -> Any:
    """The same with byte strings as {"hex": ...}."""
    match found:
        case bytes():
            return {"hex": found.hex()}
        case dict():
            return {key: plain(item) for key, item in found.items()}
        case list():
            return [plain(item) for item in found]
        case _:
            return found


def main() -> None:
    """Write what is missing in today's folder; what is there is the point."""
    TODAY.mkdir(exist_ok=True)
    for name, blocks in segments().items():
        path = TODAY / f"{name}.events.zst"
        if path.exists():
            continue
        sealed = name in ("every_event", "samples")
        write(path, blocks, sealed=sealed, cut_bytes=10 if name == "torn" else 0)
        text = json.dumps(rows(path), indent=1, ensure_ascii=False)
        (TODAY / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
