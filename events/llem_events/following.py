"""Following segments that are still written: of each, what has become readable since it was last looked at."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from llem_events.damage import Verdict
from llem_events.envelope import Envelope
from llem_events.reader import SegmentReader

TICK_S = 0.25


class GrowingSegments:
    """A reader of each segment that `paths` names, now and later; nothing is changed, and what was read is read once."""

    def __init__(self, paths: Callable[[], Iterable[Path]], *, salvage_damage: bool = False) -> None:
        self._paths, self._salvage = paths, salvage_damage
        self._readers: dict[Path, SegmentReader] = {}
        self._looked_at: list[SegmentReader] = []
        self._seen_bytes: dict[Path, int] = {}

    def __enter__(self) -> "GrowingSegments":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; may be called twice."""
        for reader in self._readers.values():
            reader.close()

    def are_written(self) -> bool:
        """Whether any of those that were looked at has its writer. To be asked before they are read: what is read then is all."""
        return any(reader.is_being_written() for reader in self._readers.values())

    def look(self) -> list[SegmentReader]:
        """The readers of all segments there are now, in the order of their paths. Raises what opening a segment raises."""
        self._looked_at = [self._reader(path) for path in self._paths()]
        return self._looked_at

    def grown(self) -> list[SegmentReader]:
        """Of those that were looked at last, the ones whose files have other sizes than when this was last asked."""
        grown = []
        for reader in self._looked_at:
            size = os.fstat(reader.fileno()).st_size
            if self._seen_bytes.get(reader.path) != size:
                self._seen_bytes[reader.path] = size
                grown.append(reader)
        return grown

    def _reader(self, path: Path) -> SegmentReader:
        if path not in self._readers:
            self._readers[path] = SegmentReader(path, salvage_damage=self._salvage)
        return self._readers[path]


def follow(
    paths: Callable[[], Iterable[Path]], *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[tuple[Path, int, Envelope]]:
    """(path, number, event) of all segments that `paths` names, now and later, until every writer has ended.

    Raises CorruptError where a segment turns out damaged.
    """
    with GrowingSegments(paths) as segments:
        while True:
            readers = segments.look()
            at_work = segments.are_written()
            for reader in readers:
                for number, envelope in numbered_events(reader):
                    yield reader.path, number, envelope
            if not at_work:
                return
            sleep(TICK_S)


def numbered_events(reader: SegmentReader) -> Iterator[tuple[int, Envelope]]:
    """(number in the segment, event) of what has become readable since the reader last looked."""
    if reader.verdict is Verdict.CLEAN:
        return
    for block in reader.blocks():
        yield from enumerate(reader.events(block), block.header.first_event)
