"""One segment as Parquet: its samples, these by the second, and its requests; a pure function of the segment's bytes."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import msgspec

from llem.projections import database
from llem.projections.arrow_stream import ArrowStream
from llem.projections.checkpoint import SegmentFile
from llem.projections.containment import MisfitError
from llem.projections.database import Tables
from llem.projections.ingest import PIECE_ROWS, SAMPLE_CELLS, HeldRequests, identity_of, sample_cells
from llem.projections.log_cells import MEASURED, Identity, Reported
from llem.projections.sealed import COPY_OPTIONS, OF_SEGMENTS, ROLLUP, table_folder
from llem.sql import literal
from llem_events import SegmentHeader, SegmentReader, UnknownEvent
from llem_events.events import RequestsCompleted
from llem_events.replay import Occurrence, SampleBatch, replay

_VIEW = "samples_of_the_log"
_MEMORY = "1GB"  # of what is held of a segment's requests; more waits on the disk


class SealedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A Parquet file; `path` is relative to the sealed folder."""

    table: str
    path: str
    rows: int
    bytes: int
    sha256: str


class SealedSegment(msgspec.Struct, frozen=True, kw_only=True):
    """What was made of one segment, and of which bytes."""

    experiment_id: str
    file: str
    log_bytes: int
    segment_id: str | None  # None where the file ends inside its header
    verdict: str
    blocks: int
    digest: str  # chain digest of the last block
    made_by: str  # digest of the code that decodes
    files: Sequence[SealedFile] = ()


class Sealer:
    """Seals segments, one after the other."""

    def __init__(self) -> None:
        self._samples = duckdb.connect(config={"threads": 1})
        self._tables = Tables(database.in_memory())
        self._tables.connection.execute(database.SCHEMA_SQL)
        self._types = dict(self._tables.types("samples"))
        self._tables.connection.execute(f"SET memory_limit = '{_MEMORY}'")
        self._tables.connection.execute("SET threads = 1")

    def seal(self, file: SegmentFile, root: Path) -> SealedSegment:
        """Write and publish the segment's files below a folder. Raises LogError, MisfitError, OSError, duckdb.Error."""
        with SegmentReader(file.path) as reader:
            if reader.header is None:
                return self._told(file, reader, [])
            with _staged(file, reader.header, root) as staged:
                identity = identity_of(reader.header, file)
                rows = self._write(reader, identity, staged)
                files = [staged.finish(table, count) for table, count in rows.items() if count]
                told = self._told(file, reader, files)
        return told

    def _told(self, file: SegmentFile, reader: SegmentReader, files: Sequence[SealedFile]) -> SealedSegment:
        return SealedSegment(
            experiment_id=file.experiment_id,
            file=file.path.name,
            log_bytes=reader.size,
            segment_id=reader.header.segment_id.hex() if reader.header else None,
            verdict=str(reader.verdict),
            blocks=reader.position.blocks,
            digest=reader.position.digest.hex(),
            made_by=database.VERSION.log,
            files=files,
        )

    def _write(self, reader: SegmentReader, identity: Identity, staged: "_Staged") -> dict[str, int]:
        """Rows of each table, written but for those that have none."""
        requests = _Requests(self._tables, identity)
        batches = requests.beside_samples(replay(reader))
        samples = self._copy_samples(batches, identity, staged.hidden("samples"))
        seconds = self._copy_rollup(identity, staged) if samples else 0
        requests.finish()
        told = self._copy_requests(staged.hidden("requests")) if requests.count else 0
        return {"samples": samples, ROLLUP: seconds, "requests": told}

    def _copy_samples(self, batches: Iterator[SampleBatch], identity: Identity, path: Path) -> int:
        first = next(batches, None)
        if first is None:
            return 0
        keys = {
            "process_index": literal(identity.process_index),
            "segment_id": literal(identity.segment_id),
            "device_uuid": "device_uuid",
            "meter": "meter",
        }
        chosen = ", ".join(
            f"({expression})::{self._types[name]} AS {name}" for name, expression in (keys | MEASURED).items()
        )
        with ArrowStream(SAMPLE_CELLS, map(sample_cells, _chained(first, batches))) as stream:
            self._samples.register(_VIEW, stream)
            try:
                return _copy(self._samples, f"SELECT {chosen} FROM {_VIEW}", path)
            except duckdb.Error:
                if stream.failure is not None:
                    raise stream.failure from None
                raise
            finally:
                self._samples.unregister(_VIEW)

    def _copy_rollup(self, identity: Identity, staged: "_Staged") -> int:
        """By the view that the tables have, over the file just written."""
        connection = self._tables.connection
        written = literal(str(staged.hidden("samples")))
        experiment_id = literal(identity.experiment_id)
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW samples AS SELECT {experiment_id} AS experiment_id, * FROM read_parquet({written})"
        )
        return _copy(
            connection, f"SELECT * EXCLUDE (experiment_id) FROM {ROLLUP} ORDER BY ALL", staged.hidden(ROLLUP)
        )

    def _copy_requests(self, path: Path) -> int:
        connection = self._tables.connection
        rows = _copy(connection, "SELECT * EXCLUDE (experiment_id) FROM requests", path)
        connection.execute("CREATE OR REPLACE TABLE requests AS FROM requests LIMIT 0")
        return rows


def _chained(first: SampleBatch, others: Iterator[SampleBatch]) -> Iterator[SampleBatch]:
    yield first
    yield from others


def _copy(connection: duckdb.DuckDBPyConnection, sql: str, path: Path) -> int:
    """Write the rows of a query, and return their number."""
    make_folder(path.parent)
    ((rows,),) = connection.execute(f"COPY ({sql}) TO {literal(str(path))} ({COPY_OPTIONS})").fetchall()
    return int(rows)


class _Requests:
    """Requests of a segment, kept in a table of their own while its samples are written; held back in pieces, as the tables do."""

    def __init__(self, tables: Tables, identity: Identity) -> None:
        self._identity = identity
        self._held = HeldRequests(tables)
        self._piece: list[Reported] = []
        self._waiting = self.count = 0

    def beside_samples(self, replayed: Iterator[SampleBatch | Occurrence]) -> Iterator[SampleBatch]:
        """The samples among what is replayed. Raises MisfitError for an event that does not fit its type."""
        for item in replayed:
            if isinstance(item, SampleBatch):
                yield item
            elif isinstance(item.event, RequestsCompleted):
                self._add(Reported(self._identity, item.event_number, item.event.window, item.event.requests))
            elif isinstance(item.event, UnknownEvent) and item.event.problem is not None:
                raise MisfitError(f"event {item.event_number}: {item.event.problem}")

    def _add(self, reported: Reported) -> None:
        self._piece.append(reported)
        self.count += len(reported.requests)
        self._waiting += len(reported.requests)
        if self._waiting >= PIECE_ROWS:
            self._hold()

    def _hold(self) -> None:
        self._held.add(self._piece)
        self._piece, self._waiting = [], 0

    def finish(self) -> None:
        """All of them into the table."""
        if self.count:
            self._hold()
            self._held.insert()


@contextmanager
def _staged(file: SegmentFile, header: SegmentHeader, root: Path) -> Iterator["_Staged"]:
    """Hidden names beside the final ones; nothing is left of them, and of a killed process they are written over."""
    folders = {table: table_folder(root, table, file.experiment_id, header.host) for table in OF_SEGMENTS}
    staged = _Staged(header.segment_id.hex(), root, folders)
    try:
        yield staged
    finally:
        staged.clear()


class _Staged:
    """The files of one segment before they have their names."""

    def __init__(self, name: str, root: Path, folders: dict[str, Path]) -> None:
        self._name, self._root, self._folders = name, root, folders

    def hidden(self, table: str) -> Path:
        """Where it is written; its name ends as no reader expects."""
        return self._folders[table] / f".{self._name}.tmp"

    def finish(self, table: str, rows: int) -> SealedFile:
        """Give the file its name, durably, and say what it is."""
        path = self._folders[table] / f"{self._name}.parquet"
        publish(self.hidden(table), path)
        return SealedFile(
            table=table,
            path=str(path.relative_to(self._root)),
            rows=rows,
            bytes=path.stat().st_size,
            sha256=sha256(path),
        )

    def clear(self) -> None:
        """Remove what was not published."""
        for table in self._folders:
            self.hidden(table).unlink(missing_ok=True)


def publish(hidden: Path, path: Path) -> None:
    """A file that is whole and durable gets its name; one of that name goes.

    The name itself may be lost with the power: the manifest's next reader misses the file, and it is made again.
    """
    hidden.chmod(0o600)
    fd = os.open(hidden, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    hidden.replace(path)


def make_folder(folder: Path) -> None:
    """The folder and those above it, for their owner alone."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
