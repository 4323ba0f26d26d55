"""The event log of llem: append-only segments of zstd frames, readable without llem."""

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
    SegmentExistsError,
    SegmentReadError,
    TooLargeError,
    TornTailError,
)
from llem_events.header import SegmentHeader
from llem_events.reader import Block, Position, SegmentReader
from llem_events.reading import SAMPLE_COLUMNS, Reading
from llem_events.schema import SCHEMA_VERSION
from llem_events.writer import SegmentWriter, SyncPolicy

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
    "SegmentExistsError",
    "SegmentHeader",
    "SegmentReadError",
    "SegmentReader",
    "SegmentWriter",
    "SyncPolicy",
    "TooLargeError",
    "TornTailError",
    "UnknownEvent",
    "Verdict",
    "boot_id",
    "read_clocks",
    "unpack",
]
