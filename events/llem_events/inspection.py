"""What is asked of a segment without its tables: a survey past any damage, its events as plain rows, its digest."""

import collections
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from llem_events import columns
from llem_events.damage import Damage, Verdict
from llem_events.envelope import FOREIGN_ERRORS, Envelope, UnknownEvent, unpack
from llem_events.errors import CorruptError, EventError, NewerFormatError
from llem_events.events import Event, SamplesTaken
from llem_events.format import Seal, SegmentHeader
from llem_events.reader import Block, SegmentReader
from llem_events.texts import check_known

MISFITS_NAMED = 10  # the rest is only counted
_LEAF = struct.Struct("<16sQQ32sB")  # segment id, blocks, events, last digest, sealed


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one segment holds. `raw_bytes` and `compressed_bytes` are those of the payloads, `file_bytes` of the whole file."""

    path: Path
    verdict: Verdict
    header: SegmentHeader | None = None
    seal: Seal | None = None
    blocks: int = 0
    events: int = 0
    raw_bytes: int = 0
    compressed_bytes: int = 0
    file_bytes: int
    events_by_type: dict[tuple[str, int], int]  # (type, version) -> count
    unknown_events: int = 0  # of a type or version that this llem does not know
    misfits: int = 0  # events that do not fit their declared type
    misfit_texts: tuple[str, ...] = ()
    damages: tuple[Damage, ...] = ()
    is_being_written: bool = False  # its writer held the file's lock when reading ended
    newer: str | None = None  # what in it only a later llem understands, though every byte may verify

    @property
    def lost_bytes(self) -> int:
        """Bytes that do not verify and that no crash explains."""
        if self.verdict is not Verdict.CORRUPT:
            return 0
        return sum(damage.end - damage.offset for damage in self.damages)

    @property
    def lost_blocks(self) -> int:
        """Blocks missing between those that verify; of the end of the file only a seal tells how many there were."""
        return sum(damage.missing_blocks for damage in self.damages)

    @property
    def lost_events(self) -> int:
        """The same for events."""
        return sum(damage.missing_events for damage in self.damages)


def survey(path: Path) -> Survey:
    """Read the whole file, one block in memory at a time. Raises SegmentReadError, NewerFormatError."""
    try:
        reader = SegmentReader(path, salvage_damage=True)
    except CorruptError as error:
        size = path.stat().st_size
        damage = Damage(0, size, error.text, 0, 0)
        return Survey(
            path=path, verdict=Verdict.CORRUPT, file_bytes=size, events_by_type={}, damages=(damage,)
        )
    with reader:
        tally = _Tally(reader)
        for block in reader.blocks():
            tally.add(block)
        return tally.result()


class _Tally:
    """Sums over the blocks of one reader."""

    def __init__(self, reader: SegmentReader) -> None:
        self._reader = reader
        self._undecoded: list[Damage] = []
        self._types: collections.Counter[tuple[str, int]] = collections.Counter()
        self._misfit_texts: list[str] = []
        self._newer: str | None = None
        if reader.header is not None:
            self._note_newer(reader.header)
        self._sum = Survey(
            path=reader.path,
            verdict=Verdict.CORRUPT,
            header=reader.header,
            file_bytes=reader.size,
            events_by_type={},
        )

    def add(self, found: Block) -> None:
        try:
            events = self._reader.events(found)
        except CorruptError as error:
            self._undecoded.append(undecoded(found, error))
            return
        unknown, misfits = 0, 0
        for number, envelope in enumerate(events, found.header.first_event):
            self._types[envelope.type, envelope.version] += 1
            fits, known = self._judge(number, envelope)
            misfits += not fits
            unknown += not known
        self._sum = replace(
            self._sum,
            blocks=self._sum.blocks + 1,
            events=self._sum.events + len(events),
            raw_bytes=self._sum.raw_bytes + found.header.raw_length,
            compressed_bytes=self._sum.compressed_bytes + found.header.compressed_length,
            unknown_events=self._sum.unknown_events + unknown,
            misfits=self._sum.misfits + misfits,
        )

    def _judge(self, number: int, envelope: Envelope) -> tuple[bool, bool]:
        """(fits its type, is of a known type)."""
        try:
            event = unpack(envelope)
            if isinstance(event, UnknownEvent):
                return True, False
            self._note_newer(event)
            return True, True
        except EventError as error:
            if len(self._misfit_texts) < MISFITS_NAMED:
                self._misfit_texts.append(f"event {number}: {error}")
            return False, True

    def _note_newer(self, record: SegmentHeader | Event) -> None:
        try:
            check_known(record)
        except NewerFormatError as error:
            self._newer = self._newer or str(error)

    def result(self) -> Survey:
        reader = self._reader
        assert reader.verdict is not None
        return replace(
            self._sum,
            verdict=Verdict.CORRUPT if self._undecoded else reader.verdict,
            seal=reader.seal,
            file_bytes=reader.size,
            is_being_written=reader.is_being_written(),
            events_by_type=dict(self._types),
            misfit_texts=tuple(self._misfit_texts),
            newer=self._newer,
            damages=tuple(sorted((*reader.damages, *self._undecoded), key=lambda damage: damage.offset)),
        )


def undecoded(found: Block, error: CorruptError) -> Damage:
    """The damage that a block is whose digest verifies but whose payload cannot be decoded."""
    header = found.header
    return Damage(
        found.offset,
        found.end.offset,
        error.text,
        header.block_number,
        header.first_event,
        found.end.blocks,
        found.end.events,
    )


def readable_row(envelope: Envelope, number: int) -> dict[str, Any]:
    """One event with its number in the segment. `problem` says why a body is shown as bare bytes."""
    found = {"number": number, "at_ns": envelope.at_ns, "type": envelope.type, "version": envelope.version}
    try:
        return found | {"body": _body(envelope)}
    except (EventError, *FOREIGN_ERRORS) as error:
        return found | {"body": plain(bytes(envelope.body)), "problem": str(error)}


def _body(envelope: Envelope) -> Any:
    if envelope.type == SamplesTaken.TYPE and isinstance(event := unpack(envelope), SamplesTaken):
        return _samples(event)
    if isinstance(unpack(envelope), UnknownEvent) and len(memoryview(envelope.body)) > Event.MAX_BYTES:
        raise EventError(f"an unknown event over {Event.MAX_BYTES} bytes is not decoded")
    return plain(msgspec.msgpack.decode(envelope.body))


def _samples(event: SamplesTaken) -> dict[str, Any]:
    samples = {name: _values(*column) for name, column in columns.unpack(event).items()}
    return {"meter": event.meter, "device_uuid": event.device_uuid, "count": event.count, "samples": samples}


def _values(values: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_] | None) -> list[int | None]:
    numbers: list[int | None] = values.tolist()
    if missing is not None:
        for place in missing.nonzero()[0].tolist():
            numbers[place] = None
    return numbers


def plain(found: Any) -> Any:
    """The same in what JSON has: byte strings as {"hex": ...}, other keys than text as text."""
    match found:
        case bytes():
            return {"hex": found.hex()}
        case dict():
            return {key if isinstance(key, str) else repr(key): plain(item) for key, item in found.items()}
        case list():
            return [plain(item) for item in found]
        case None | bool() | int() | float() | str():
            return found
        case _:
            return repr(found)


@dataclass(frozen=True, order=True)
class SegmentDigest:
    """The last digest of one segment's chain, and the counts that it stands for."""

    segment_id: bytes
    path: Path
    blocks: int
    events: int
    last_digest: bytes
    is_sealed: bool


def segment_digest(path: Path) -> SegmentDigest:
    """Read and verify one segment. Raises CorruptError, SegmentReadError, NewerFormatError."""
    with SegmentReader(path) as reader:
        for _ in reader.blocks():
            pass
        at = reader.position
        segment_id = reader.header.segment_id if reader.header else b""
        return SegmentDigest(
            segment_id, path, at.blocks, at.events, at.digest, reader.verdict is Verdict.CLEAN
        )


def root_digest(segments: Iterable[SegmentDigest]) -> bytes:
    """SHA-256 over the segments in order of their ids; file names do not count, nor files torn before their first byte of content.

    Raises CorruptError where two files hold the same segment.
    """
    hasher = hashlib.sha256(b"LLED\x01")
    previous = b""
    for segment in sorted(segments):
        if not segment.segment_id:
            continue
        if segment.segment_id == previous:
            raise CorruptError(
                f"segment {segment.segment_id.hex()} is there twice, again as {segment.path}", offset=0
            )
        previous = segment.segment_id
        hasher.update(
            _LEAF.pack(
                segment.segment_id, segment.blocks, segment.events, segment.last_digest, segment.is_sealed
            )
        )
    return hasher.digest()
