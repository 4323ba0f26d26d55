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
    RecoveryRefusedError,
    SegmentExistsError,
    SegmentReadError,
    TooLargeError,
    TornTailError,
)
from llem_events.header import SegmentHeader
from llem_events.reader import Block, Position, SegmentReader
from llem_events.reading import SAMPLE_COLUMNS, Reading
from llem_events.recovery import Recovery, recover
from llem_events.root_digest import SegmentDigest, root_digest, segment_digest
from llem_events.schema import SCHEMA_VERSION
from llem_events.survey import Survey, survey
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
    "Recovery",
    "RecoveryRefusedError",
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
    "Verdict",
    "boot_id",
    "read_clocks",
    "recover",
    "root_digest",
    "segment_digest",
    "survey",
    "unpack",
]
