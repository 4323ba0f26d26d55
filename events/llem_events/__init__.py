"""The event log of llem: append-only segments of zstd frames, readable without llem.

A name is imported when it is first used: whoever needs only the errors waits for no decoder and no numpy.
"""

from typing import TYPE_CHECKING

from llem_events.lazy import root_of

if TYPE_CHECKING:
    from llem_events.background import BackgroundWriter as BackgroundWriter
    from llem_events.clock import ClockPair as ClockPair
    from llem_events.clock import boot_id as boot_id
    from llem_events.clock import read_clocks as read_clocks
    from llem_events.damage import Damage as Damage
    from llem_events.damage import Verdict as Verdict
    from llem_events.envelope import Envelope as Envelope
    from llem_events.envelope import UnknownEvent as UnknownEvent
    from llem_events.envelope import unpack as unpack
    from llem_events.errors import CorruptError as CorruptError
    from llem_events.errors import DamageError as DamageError
    from llem_events.errors import EventError as EventError
    from llem_events.errors import LogError as LogError
    from llem_events.errors import LogWriteError as LogWriteError
    from llem_events.errors import NewerFormatError as NewerFormatError
    from llem_events.errors import RecoveryRefusedError as RecoveryRefusedError
    from llem_events.errors import SegmentExistsError as SegmentExistsError
    from llem_events.errors import SegmentReadError as SegmentReadError
    from llem_events.errors import TooLargeError as TooLargeError
    from llem_events.errors import TornTailError as TornTailError
    from llem_events.events import SAMPLE_COLUMNS as SAMPLE_COLUMNS
    from llem_events.events import SCHEMA_VERSION as SCHEMA_VERSION
    from llem_events.events import Reading as Reading
    from llem_events.format import SegmentHeader as SegmentHeader
    from llem_events.inspection import SegmentDigest as SegmentDigest
    from llem_events.inspection import Survey as Survey
    from llem_events.inspection import root_digest as root_digest
    from llem_events.inspection import segment_digest as segment_digest
    from llem_events.inspection import survey as survey
    from llem_events.reader import Block as Block
    from llem_events.reader import Position as Position
    from llem_events.reader import SegmentReader as SegmentReader
    from llem_events.recovery import Recovery as Recovery
    from llem_events.recovery import recover as recover
    from llem_events.redaction import Redaction as Redaction
    from llem_events.redaction import redact as redact
    from llem_events.texts import UnknownText as UnknownText
    from llem_events.texts import check_known as check_known
    from llem_events.texts import unknown_text as unknown_text
    from llem_events.writer import SegmentWriter as SegmentWriter
    from llem_events.writer import SyncPolicy as SyncPolicy

__all__, __getattr__, __dir__ = root_of(
    __name__,
    {
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
    },
)
