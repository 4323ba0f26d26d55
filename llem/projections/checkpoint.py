"""Segment files of a store beside what the tables know of them: their checkpoints, and what a result came from."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from llem.store import Store
from llem_events import LogError, Position, SegmentHeader, SegmentReader, Verdict

REFUSED = ("corrupt", "newer", "unreadable", "unusable")


class SegmentFile(msgspec.Struct, frozen=True, kw_only=True):
    """A segment as the file system shows it."""

    experiment_id: str
    path: Path
    file_bytes: int
    modified_ns: int

    def is_being_written(self) -> bool:
        """Whether its writer lives."""
        try:
            with SegmentReader(self.path) as reader:
                return reader.is_being_written()
        except LogError:
            return False

    def header(self) -> SegmentHeader | None:
        """Its header; None where that cannot be read."""
        try:
            with SegmentReader(self.path) as reader:
                return reader.header
        except LogError:
            return None


class SegmentState(msgspec.Struct, frozen=True, kw_only=True):
    """What a row of the table `segments` says to everybody."""

    experiment_id: str
    file: str
    verdict: str
    problem: str | None
    being_written: bool
    skipped_bytes: int

    @property
    def refused(self) -> bool:
        """Whether it keeps its experiment out of the tables."""
        return self.verdict in REFUSED and self.skipped_bytes == 0


class KnownSegment(SegmentState, frozen=True, kw_only=True):
    """How far the file has been applied."""

    file_bytes: int
    modified_ns: int
    applied_bytes: int
    blocks: int
    events: int
    samples: int
    requests: int
    digest: str | None
    derived_blocks: int | None  # those that its experiment's results include
    clock_offset_ns: int | None  # by which these are placed

    @property
    def position(self) -> Position | None:
        """Where to read on; None where nothing was read."""
        if self.digest is None:
            return None
        return Position(self.applied_bytes, self.blocks, self.events, bytes.fromhex(self.digest))

    def unchanged(self, found: SegmentFile) -> bool:
        """Whether the file, and whether its writer lives, are as they were when it was read."""
        if (self.file_bytes, self.modified_ns) != (found.file_bytes, found.modified_ns):
            return False
        if self.verdict == "unreadable":
            return not os.access(found.path, os.R_OK)
        return not self.being_written or found.is_being_written()

    def is_copied(self, found: SegmentFile) -> bool:
        """Whether the file is unchanged, or, with other times, is as long as the one that was read and ends in the seal of what was read, as a copy does."""
        if self.unchanged(found):
            return True
        if self.verdict != "clean" or self.file_bytes != found.file_bytes:
            return False
        try:
            with SegmentReader(found.path) as reader:
                return not any(reader.blocks(self.position)) and reader.verdict is Verdict.CLEAN
        except LogError:
            return False

    def only_grew(self, found: SegmentFile) -> bool:
        """Whether what was applied of the file can be taken to stand: writers append, and not after their seal."""
        if (self.file_bytes, self.modified_ns) == (found.file_bytes, found.modified_ns):
            return True
        return self.verdict != "clean" and found.file_bytes > self.file_bytes


Files = Mapping[str, Mapping[str, SegmentFile]]  # experiment id -> file name -> file
Known = Mapping[str, Mapping[str, KnownSegment]]


def scan(store: Store, only: Iterable[str] | None = None) -> Files:
    """All segment files of the store, or of some experiments, in the order of their names."""
    chosen = store.experiment_ids() if only is None else only
    return {experiment_id: _files(store, experiment_id) for experiment_id in chosen}


def _files(store: Store, experiment_id: str) -> Mapping[str, SegmentFile]:
    """Its segments; where they cannot be listed, the folder stands for them, and is refused when it is read."""
    folder = store.log_path / experiment_id
    try:
        files = {path.name: _stat(experiment_id, path) for path in store.segments(experiment_id)}
    except FileNotFoundError:
        return {}  # removed while it was looked at
    except PermissionError:
        files = {}
    if files or not folder.is_dir() or store.unreadable(experiment_id) is None:
        return files
    return {folder.name: SegmentFile(experiment_id=experiment_id, path=folder, file_bytes=0, modified_ns=0)}


def _stat(experiment_id: str, path: Path) -> SegmentFile:
    status = path.stat()
    return SegmentFile(
        experiment_id=experiment_id,
        path=path,
        file_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
    )


def known_segments(
    connection: duckdb.DuckDBPyConnection, only: Collection[str] | None = None
) -> dict[str, dict[str, KnownSegment]]:
    """The table `segments`, or the part of it that belongs to some experiments."""
    if only is None:
        return _known(connection, "", [])
    return _known(connection, "WHERE experiment_id IN (SELECT unnest(?::VARCHAR[]))", [list(only)])


def refused_segments(connection: duckdb.DuckDBPyConnection) -> list[KnownSegment]:
    """Those that keep their experiments out of the tables."""
    condition = "WHERE verdict IN (SELECT unnest(?::VARCHAR[])) ORDER BY experiment_id, file"
    known = _known(connection, condition, [list(REFUSED)])
    return [segment for files in known.values() for segment in files.values() if segment.refused]


def _known(
    connection: duckdb.DuckDBPyConnection, condition: str, values: Sequence[Any]
) -> dict[str, dict[str, KnownSegment]]:
    names = KnownSegment.__struct_fields__
    rows = connection.execute(f"SELECT {', '.join(names)} FROM segments {condition}", values).fetchall()
    known: dict[str, dict[str, KnownSegment]] = {}
    for row in rows:
        segment = KnownSegment(**dict(zip(names, row, strict=True)))
        known.setdefault(segment.experiment_id, {})[segment.file] = segment
    return known


def pending(
    files: Files,
    known: Known,
    *,
    salvage: bool,
    is_same: Callable[[KnownSegment, SegmentFile], bool] = KnownSegment.unchanged,
) -> set[str]:
    """Experiments whose tables are behind their log; `is_same` says which files need not be read."""
    return {
        experiment_id
        for experiment_id in files.keys() | known.keys()
        if _is_behind(
            files.get(experiment_id, {}), known.get(experiment_id, {}), salvage=salvage, is_same=is_same
        )
    }


def _is_behind(
    files: Mapping[str, SegmentFile],
    known: Mapping[str, KnownSegment],
    *,
    salvage: bool,
    is_same: Callable[[KnownSegment, SegmentFile], bool],
) -> bool:
    if files.keys() != known.keys():
        return True
    return any(
        segment.derived_blocks != segment.blocks
        or (salvage and segment.refused)
        or not is_same(segment, files[name])
        for name, segment in known.items()
    )


def left_out(files: Iterable[SegmentFile]) -> dict[str, str]:
    """Files whose events stand in another file too, and which: copies, and damaged segments that were recovered."""
    headers = {file.path.name: header for file in files if (header := file.header()) is not None}
    recovered = {header.recovered_from: name for name, header in headers.items() if header.recovered_from}
    first: dict[bytes, str] = {}
    excluded = {}
    for name, header in headers.items():
        if header.segment_id in recovered:
            excluded[name] = f"recovered as {recovered[header.segment_id]}"
        elif first.setdefault(header.segment_id, name) != name:
            excluded[name] = f"a copy of {first[header.segment_id]}"
    return excluded


class SegmentLineage(msgspec.Struct, frozen=True, kw_only=True):
    """The part of one segment that a result includes; numbers count from 0 and include both ends."""

    file: str
    segment_id: str | None
    role: str | None
    process_index: int | None
    verdict: str
    blocks: tuple[int, int] | None  # first and last; None where nothing was read
    events: tuple[int, int] | None
    samples: int
    requests: int
    digest: str | None  # chain digest of the last block: pins every byte before it
    skipped_bytes: int


def lineage(connection: duckdb.DuckDBPyConnection, experiment_id: str) -> list[SegmentLineage]:
    """Every segment that the experiment's results came from, in the order of their files."""
    names = SegmentLineage.__struct_fields__
    rows = connection.execute(
        f"SELECT {', '.join(names)} FROM segments WHERE experiment_id = ? ORDER BY file", [experiment_id]
    ).fetchall()
    segments = (dict(zip(names, row, strict=True)) for row in rows)
    return [
        SegmentLineage(**segment | {"blocks": _ends(segment["blocks"]), "events": _ends(segment["events"])})
        for segment in segments
    ]


def _ends(count: int) -> tuple[int, int] | None:
    """The first and the last of so many."""
    return (0, count - 1) if count else None
