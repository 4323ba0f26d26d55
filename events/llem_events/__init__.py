"""The event log of llem: append-only segments of zstd frames, readable without llem.

A name is imported when it is first used: whoever needs only the errors waits for no decoder and no numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llem_events.background import BackgroundWriter
    from llem_events.clock import ClockPair, boot_id, read_clocks
    from llem_events.damage import Damage, Verdict
    from llem_events.envelope import Envelope, UnknownEvent, unpack
    from llem_events.errors import (
        CorruptError,
        DamageError,
        EventError,
        LogError,
        LogWriteError,
        NewerFormatError,
        RecoveryRefusedError,
        SegmentExistsError,
        SegmentReadError,
        TooLargeError,
        TornTailError,
    )
    from llem_events.events import SAMPLE_COLUMNS, SCHEMA_VERSION, Reading
    from llem_events.format import SegmentHeader
    from llem_events.inspection import SegmentDigest, Survey, root_digest, segment_digest, survey
    from llem_events.reader import Block, Position, SegmentReader
    from llem_events.recovery import Recovery, recover
    from llem_events.redaction import Redaction, redact
    from llem_events.texts import UnknownText, check_known, unknown_text
    from llem_events.writer import SegmentWriter, SyncPolicy

_NAMES = {
    "background": "BackgroundWriter",
    "clock": "ClockPair boot_id read_clocks",
    "damage": "Damage Verdict",
    "envelope": "Envelope UnknownEvent unpack",
    "errors": "CorruptError DamageError EventError LogError LogWriteError NewerFormatError RecoveryRefusedError SegmentExistsError SegmentReadError TooLargeError TornTailError",
    "events": "Reading SAMPLE_COLUMNS SCHEMA_VERSION",
    "format": "SegmentHeader",
    "inspection": "SegmentDigest Survey root_digest segment_digest survey",
    "reader": "Block Position SegmentReader",
    "recovery": "Recovery recover",
    "redaction": "Redaction redact",
    "texts": "UnknownText check_known unknown_text",
    "writer": "SegmentWriter SyncPolicy",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "SAMPLE_COLUMNS",
    "SCHEMA_VERSION",
    "BackgroundWriter",
    "Block",
    "ClockPair",
    "CorruptError",
    "Damage",
    "DamageError",
    "Envelope",
    "EventError",
    "LogError",
    "LogWriteError",
    "NewerFormatError",
    "Position",
    "Reading",
    "Recovery",
    "RecoveryRefusedError",
    "Redaction",
    "SegmentDigest",
    "SegmentExistsError",
    "SegmentHeader",
    "SegmentReadError",
    "SegmentReader",
    "SegmentWriter",
    "Survey",
    "SyncPolicy",
    "TooLargeError",
    "TornTailError",
    "UnknownEvent",
    "UnknownText",
    "Verdict",
    "boot_id",
    "check_known",
    "read_clocks",
    "recover",
    "redact",
    "root_digest",
    "segment_digest",
    "survey",
    "unknown_text",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found
