"""Segment files of a store beside what the tables know of them."""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import msgspec

from llem.store import Store
from llem_events import Position

FileKey = tuple[str, str]
REFUSED = ("corrupt", "newer")


class SegmentFile(msgspec.Struct, frozen=True, kw_only=True):
    """A segment as the file system shows it."""

    experiment_id: str
    path: Path
    file_bytes: int
    modified_ns: int

    @property
    def key(self) -> FileKey:
        return self.experiment_id, self.path.name


class KnownSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table `segments`: how far the file has been applied."""

    experiment_id: str
    file: str
    segment_id: str | None
    process_index: int | None
    verdict: str
    problem: str | None
    file_bytes: int
    modified_ns: int
    applied_bytes: int
    blocks: int
    events: int
    samples: int
    requests: int
    digest: str | None
    skipped_bytes: int
    derived_blocks: int | None

    @property
    def position(self) -> Position | None:
        """Where to read on; None where nothing was read."""
        if self.digest is None:
            return None
        return Position(self.applied_bytes, self.blocks, self.events, bytes.fromhex(self.digest))

    @property
    def refused(self) -> bool:
        """Whether it keeps its experiment out of the tables."""
        return self.verdict in REFUSED and self.skipped_bytes == 0

    def unchanged(self, found: SegmentFile) -> bool:
        """Whether the file is as it was when it was read."""
        return (self.file_bytes, self.modified_ns) == (found.file_bytes, found.modified_ns)


def scan(store: Store) -> dict[FileKey, SegmentFile]:
    """All segment files of the store, in the order of their names."""
    found = {}
    for experiment_id in store.experiment_ids():
        for path in store.segments(experiment_id):
            status = path.stat()
            segment = SegmentFile(
                experiment_id=experiment_id,
                path=path,
                file_bytes=status.st_size,
                modified_ns=status.st_mtime_ns,
            )
            found[segment.key] = segment
    return found


def known_segments(connection: duckdb.DuckDBPyConnection) -> dict[FileKey, KnownSegment]:
    """The table `segments` by experiment and file name."""
    names = ", ".join(KnownSegment.__struct_fields__)
    rows = connection.execute(f"SELECT {names} FROM segments").fetchall()
    known = [KnownSegment(**dict(zip(KnownSegment.__struct_fields__, row, strict=True))) for row in rows]
    return {(segment.experiment_id, segment.file): segment for segment in known}


def pending(
    files: Mapping[FileKey, SegmentFile], known: Mapping[FileKey, KnownSegment], *, salvage: bool
) -> set[str]:
    """Experiments whose tables are behind their log."""
    changed = {key[0] for key, file in files.items() if key not in known or not known[key].unchanged(file)}
    removed = {key[0] for key in known if key not in files}
    unfinished = {
        segment.experiment_id
        for segment in known.values()
        if segment.derived_blocks != segment.blocks or (salvage and segment.refused)
    }
    return changed | removed | unfinished
