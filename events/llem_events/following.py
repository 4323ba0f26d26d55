"""Following segments that are being written: every event once, as it becomes readable."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from llem_events.damage import Verdict
from llem_events.envelope import Envelope
from llem_events.reader import SegmentReader

TICK_S = 0.25


def follow(
    paths: Callable[[], Iterable[Path]], *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[tuple[Path, int, Envelope]]:
    """(path, number, event) of all segments that `paths` names, now and later, until every writer has ended.

    Raises CorruptError where a segment turns out damaged.
    """
    readers: dict[Path, SegmentReader] = {}
    try:
        while True:
            for path in paths():
                if path not in readers:
                    readers[path] = SegmentReader(path)
            at_work = [reader.is_being_written() for reader in readers.values()]
            for path, reader in readers.items():
                for number, envelope in numbered_events(reader):
                    yield path, number, envelope
            if not any(at_work):
                return
            sleep(TICK_S)
    finally:
        for reader in readers.values():
            reader.close()


def numbered_events(reader: SegmentReader) -> Iterator[tuple[int, Envelope]]:
    """(number in the segment, event) of what has become readable since the reader last looked."""
    if reader.verdict is Verdict.CLEAN:
        return
    for block in reader.blocks():
        yield from enumerate(reader.events(block), block.header.first_event)
