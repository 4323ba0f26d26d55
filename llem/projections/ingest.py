"""One segment into the tables: samples streamed in batches of columns, requests, every other event as it is, and the checkpoint after them."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import duckdb
import msgspec

from llem.projections.arrow_stream import INTEGERS, WORDS, ArrowStream, Cells, measured, repeated
from llem.projections.cells import Batch
from llem.projections.checkpoint import KnownSegment, SegmentFile
from llem.projections.containment import UNUSABLE, MisfitError, reason_against
from llem.projections.database import EMPTIED_CACHE, Row, Rows, Tables, limit_cache, one_thread
from llem.projections.log_cells import MEASURED, Identity, Reported, request_batch, split
from llem.projections.ranges import check_header
from llem.projections.sample_pieces import Counted, Pieces, piece_batch
from llem_events import (
    SAMPLE_COLUMNS,
    SCHEMA_VERSION,
    CorruptError,
    Damage,
    NewerFormatError,
    Position,
    SegmentHeader,
    SegmentReader,
    SegmentReadError,
    UnknownEvent,
    Verdict,
)
from llem_events.events import Event, RequestsCompleted
from llem_events.replay import Occurrence, SampleBatch, replay

_KEYS = (
    {"process_index": "$process_index::INTEGER"}
    | {name: f"${name}" for name in ("experiment_id", "segment_id")}
    | {name: name for name in ("device_uuid", "meter")}
)
_SELECTED = ", ".join(f"{expression} AS {name}" for name, expression in (_KEYS | MEASURED).items())
_VIEW = "samples_of_the_log"
SAMPLE_CELLS = dict.fromkeys(SAMPLE_COLUMNS, INTEGERS) | dict.fromkeys(("device_uuid", "meter"), WORDS)
_STATEMENT_BATCHES = 20
# Blocks already written would fill the memory, and nobody reads them; with less than 320 MB one thread waits for the other.
_WORKING_CACHE = "512MB"
# DuckDB writes a row group to the file at once, and keeps what is less in memory until the commit.
ROW_GROUP = 122_880
STATEMENT_TIMES = 4_000_000
MAX_ROWS = 20_000  # of events and requests of a small segment
PIECE_ROWS = 5_120  # held before they become columns: more of them fit no cache of a processor
TIMES_OF_A_ROW = 32  # times of tokens that take the memory of a row
COUNTS = ("applied_bytes", "blocks", "events", "samples", "requests", "skipped_bytes")
_NOTHING: Row = {"being_written": False, **dict.fromkeys(COUNTS, 0)}
REFUSALS: dict[type[Exception], str] = {
    CorruptError: "corrupt",
    NewerFormatError: "newer",
    SegmentReadError: "unreadable",
}


class ChangedError(Exception):
    """What follows a checkpoint does not continue it: the file is not the one that was applied."""


def apply_segment(
    tables: Tables, file: SegmentFile, known: KnownSegment | None, *, left_out: str | None, salvage: bool
) -> None:
    """Apply new blocks and their checkpoint in one transaction, or none of them and the reason. Raises ChangedError."""
    if known is not None and known.unchanged(file):
        return
    if left_out is not None:
        _save(tables, file, {"verdict": "left_out", "problem": left_out})
        return
    try:
        with tables.transaction():
            _checkpoint(tables, file, _read(tables, file, known, salvage=salvage))
    except Exception as error:
        verdict = REFUSALS.get(type(error), UNUSABLE)
        problem = str(error) if type(error) in REFUSALS else reason_against(error)
        problem = problem.removesuffix("; upgrade llem")  # whoever tells it says so
        if known is not None:
            raise ChangedError from error
        skipped_bytes = file.file_bytes if salvage and isinstance(error, CorruptError) else 0
        _save(tables, file, {"verdict": verdict, "problem": problem, "skipped_bytes": skipped_bytes})


def refuse_segments(tables: Tables, files: Iterable[SegmentFile], reason: str) -> None:
    """A checkpoint for each file that says only why nothing of it is in the tables."""
    for file in files:
        _save(tables, file, {"verdict": UNUSABLE, "problem": reason})


def _read(tables: Tables, file: SegmentFile, known: KnownSegment | None, *, salvage: bool) -> Row:
    """Insert the rows of all new blocks and return what the checkpoint says."""
    with SegmentReader(file.path, salvage_damage=salvage) as reader:
        if reader.header is None:
            return {"verdict": reader.verdict, "problem": _told(reader.damages)}
        replay = Replay(tables, reader, identity_of(reader.header, file))
        try:
            replay.run(known.position if known else None)
        except CorruptError as error:
            raise CorruptError(_told(reader.damages) or error.text, offset=error.offset) from error
        return _header_fields(reader) | _progress(
            reader, samples=replay.samples, requests=replay.requests, known=known
        )


def _header_fields(reader: SegmentReader) -> dict[str, Any]:
    header = reader.header
    assert header is not None
    return {
        "segment_id": header.segment_id.hex(),
        "role": header.role,
        "process_index": header.process_index,
        "host": header.host,
        "boot_id": header.boot_id,
        "pid": header.pid,
        "llem_version": header.llem_version,
        "schema_version": header.schema_version,
        "monotonic_ns": header.monotonic_ns,
        "wall_ns": header.wall_ns,
        "recovered_from": None if header.recovered_from is None else header.recovered_from.hex(),
        "lost_bytes": header.skipped_bytes,
        "being_written": reader.verdict is not Verdict.CLEAN and reader.is_being_written(),
    }


def _progress(
    reader: SegmentReader, *, samples: int, requests: int, known: KnownSegment | None
) -> dict[str, Any]:
    at = reader.position
    skipped = reader.damages if reader.verdict is Verdict.CORRUPT else []
    skipped_bytes = sum(each.end - each.offset for each in skipped)
    return {
        "verdict": reader.verdict,
        "problem": _told(reader.damages),
        "applied_bytes": at.offset,
        "blocks": at.blocks,
        "events": at.events,
        "digest": at.digest.hex(),
        "samples": samples + (known.samples if known else 0),
        "requests": requests + (known.requests if known else 0),
        "skipped_bytes": skipped_bytes + (known.skipped_bytes if known else 0),
        "derived_blocks": known.derived_blocks if known else None,
        "clock_offset_ns": known.clock_offset_ns if known else None,
    }


def _told(damages: list[Damage]) -> str | None:
    """Bytes, blocks and events that did not verify."""
    return "; ".join(map(_tell, damages)) or None


def _tell(damage: Damage) -> str:
    what = f"bytes {damage.offset} to {damage.end}, from block {damage.first_block} and event {damage.first_event}"
    if damage.next_block is not None:
        what += f" to before block {damage.next_block} and event {damage.next_event}"
    return f"{what}: {damage.text}"


def _save(tables: Tables, file: SegmentFile, fields: Row) -> None:
    with tables.transaction():
        _checkpoint(tables, file, fields)


def _checkpoint(tables: Tables, file: SegmentFile, fields: Row) -> None:
    tables.connection.execute(
        "DELETE FROM segments WHERE experiment_id = ? AND file = ?", [file.experiment_id, file.path.name]
    )
    tables.insert("segments", [{**_NOTHING, **fields, **_place(file)}])


def append_samples(
    connection: duckdb.DuckDBPyConnection, batches: Iterable[SampleBatch], *, identity: Identity
) -> int:
    """Insert all samples of the batches, in order, and return their number. Raises what `batches` raises.

    DuckDB's threads pull a batch while others are being inserted, so whatever yields them must not use the connection.
    """
    try:
        return sum(_insert_all(connection, iter(batches), identity))
    finally:
        limit_cache(connection, None)


def _insert_all(
    connection: duckdb.DuckDBPyConnection, batches: Iterator[SampleBatch], identity: Identity
) -> Iterator[int]:
    for first in batches:
        limit_cache(connection, EMPTIED_CACHE)
        limit_cache(connection, _WORKING_CACHE)
        yield _insert(connection, chain([first], islice(batches, _STATEMENT_BATCHES - 1)), identity)


def _insert(connection: duckdb.DuckDBPyConnection, batches: Iterable[SampleBatch], identity: Identity) -> int:
    with ArrowStream(SAMPLE_CELLS, map(sample_cells, batches)) as stream:
        connection.register(_VIEW, stream)
        try:
            inserted = connection.execute(
                f"INSERT INTO samples BY NAME SELECT {_SELECTED} FROM {_VIEW}", identity._asdict()
            ).fetchall()
        except duckdb.Error:
            if stream.failure is not None:
                raise stream.failure from None
            raise
    connection.unregister(_VIEW)
    return int(inserted[0][0])


def sample_cells(batch: SampleBatch) -> Mapping[str, Cells]:
    """The log's columns of a batch, of the kinds in SAMPLE_CELLS."""
    words = {"device_uuid": batch.device_uuid, "meter": batch.meter}
    return {
        **{name: measured(batch.columns[name]) for name in SAMPLE_COLUMNS},
        **{name: repeated([word], [batch.samples]) for name, word in words.items()},
    }


class Collected:
    """What is neither a sample nor unfit for the tables: rows of events, and requests as they were reported."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self.events: Rows = []
        self.reported: list[Reported] = []
        self.requests = self.times = 0

    def __len__(self) -> int:
        """As many rows as take the same memory."""
        return len(self.events) + self.requests + self.times // TIMES_OF_A_ROW

    def add(self, occurrence: Occurrence) -> None:
        """Raises MisfitError for an event that does not fit its type."""
        event = occurrence.event
        if isinstance(event, RequestsCompleted):
            self._add_requests(
                Reported(self._identity, occurrence.event_number, event.window, event.requests)
            )
            return
        if isinstance(event, UnknownEvent) and event.problem is not None:
            raise MisfitError(f"event {occurrence.event_number}: {event.problem}")
        row = {
            "block_number": occurrence.block_number,
            "event_number": occurrence.event_number,
            "type": occurrence.envelope.type,
            "version": event.VERSION if isinstance(event, Event) else occurrence.envelope.version,
            "at_ns": occurrence.envelope.at_ns,
            "body": _as_json(event),
        }
        self.events.append(self._identity._asdict() | row)

    def _add_requests(self, reported: Reported) -> None:
        self.reported.append(reported)
        self.requests += len(reported.requests)
        self.times += reported.times


class HeldRequests:
    """Requests in columns, inserted when they fill a row group of the table: DuckDB writes others anew at the commit."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._batches: list[Batch] = []
        self._requests = self._times = 0

    def add(self, reported: Sequence[Reported]) -> None:
        """Hold some more, in pieces that end with the row group."""
        while reported:
            piece, reported = split(reported, ROW_GROUP - self._requests)
            self._batches.append(request_batch(piece, self._tables.types("requests")))
            self._requests += sum(len(event.requests) for event in piece)
            self._times += sum(event.times for event in piece)
            if self._requests >= ROW_GROUP or self._times >= STATEMENT_TIMES:
                self.insert()

    def insert(self) -> None:
        """All that are held."""
        with one_thread(self._tables.connection):  # two would share a row group out between them
            self._tables.insert_batches("requests", self._batches)
        self._batches, self._requests, self._times = [], 0, 0


class Replay:
    """Takes what follows a position of a segment into the tables, in bounded memory; counts what it took."""

    def __init__(self, tables: Tables, reader: SegmentReader, identity: Identity) -> None:
        self._tables, self._reader, self._identity = tables, reader, identity
        self._collected = Collected(identity)
        self._held = HeldRequests(tables)
        self._pieces: list[Pieces] = []
        self._is_done = False
        self.samples = self.requests = 0

    def run(self, start: Position | None) -> None:
        """Insert everything from `start` on. Raises CorruptError."""
        replayed = replay(self._reader, start)
        counted = Counted({} if start is None else self._sampled_before())
        while not self._is_done:
            batches = self._samples_until_full(replayed, counted)
            first = next(batches, None)
            if first is not None:
                every = itertools.chain([first], batches)
                self.samples += append_samples(self._tables.connection, every, identity=self._identity)
            self._insert()
        self._held.insert()
        self._insert_pieces()

    def _sampled_before(self) -> Mapping[tuple[str, str], int]:
        """Samples of the segment that are in the tables, by meter and device."""
        rows = self._tables.connection.execute(
            "SELECT meter, device_uuid, sum(samples)::BIGINT FROM sample_pieces WHERE experiment_id = ? AND segment_id = ? GROUP BY ALL",
            [self._identity.experiment_id, self._identity.segment_id],
        )
        return {(meter, device_uuid): samples for meter, device_uuid, samples in rows.fetchall()}

    def _insert_pieces(self) -> None:
        if self._pieces:
            self._tables.insert_batches("sample_pieces", [piece_batch(self._pieces)])
        self._pieces = []

    def _samples_until_full(
        self, replayed: Iterator[SampleBatch | Occurrence], counted: Counted
    ) -> Iterator[SampleBatch]:
        """Batches of samples; other events are collected, because the connection is busy with the samples meanwhile."""
        for item in replayed:
            self._tables.course.reach(self._reader.position.offset)
            if isinstance(item, SampleBatch):
                self._pieces += counted.pieces(self._identity, item)
                yield item
            else:
                self._collected.add(item)
            if len(self._collected) >= PIECE_ROWS:
                return
        self._is_done = True

    def _insert(self) -> None:
        found, self._collected = self._collected, Collected(self._identity)
        self._tables.insert("events", found.events)
        self._held.add(found.reported)
        self.requests += found.requests


def _as_json(event: Event | UnknownEvent) -> msgspec.Raw | None:
    """The fields of an event as JSON; of an unknown one, None where msgpack holds what JSON cannot."""
    try:
        fields = msgspec.msgpack.decode(event.body) if isinstance(event, UnknownEvent) else event
        return msgspec.Raw(msgspec.json.encode(fields))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return None


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """All of a small segment, decoded, and the checkpoint after it."""

    identity: Identity
    batches: Sequence[SampleBatch]
    events: Rows
    reported: Sequence[Reported]
    checkpoint: dict[str, Any]


def read_whole(file: SegmentFile) -> Taken | None:
    """A segment that is sealed, whole, an original and small; None for any other. Raises what reading it raises."""
    with SegmentReader(file.path) as reader:
        if reader.header is None or reader.header.recovered_from is not None:
            return None
        identity = identity_of(reader.header, file)
        batches, collected = [], Collected(identity)
        for item in replay(reader):
            if isinstance(item, SampleBatch):
                batches.append(item)
            else:
                collected.add(item)
            if len(collected) >= MAX_ROWS:
                return None
        if reader.verdict is not Verdict.CLEAN:
            return None
        samples = sum(batch.samples for batch in batches)
        fields = _header_fields(reader) | _progress(
            reader, samples=samples, requests=collected.requests, known=None
        )
    return Taken(
        identity=identity,
        batches=batches,
        events=collected.events,
        reported=collected.reported,
        checkpoint={**_NOTHING, **fields, **_place(file)},
    )


def identity_of(header: SegmentHeader, file: SegmentFile) -> Identity:
    """Raises NewerFormatError, CorruptError, MisfitError for a header that cannot be that of the file."""
    if header.schema_version > SCHEMA_VERSION:
        raise NewerFormatError(
            f"store from a newer schema, version {header.schema_version}, expected at most {SCHEMA_VERSION}"
        )
    if header.experiment_id != file.experiment_id:
        raise CorruptError(
            f"the header names experiment {header.experiment_id!r}, the folder is {file.experiment_id!r}",
            offset=0,
        )
    check_header(header)
    return Identity(
        experiment_id=file.experiment_id,
        process_index=header.process_index,
        segment_id=header.segment_id.hex(),
    )


def _place(file: SegmentFile) -> dict[str, Any]:
    return {
        "experiment_id": file.experiment_id,
        "file": file.path.name,
        "file_bytes": file.file_bytes,
        "modified_ns": file.modified_ns,
    }
