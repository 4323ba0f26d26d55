"""Reading a segment that is still being written, and the thread that writes it."""

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

import llem_events
from llem_events import (
    BackgroundWriter,
    CorruptError,
    EventError,
    LogWriteError,
    Position,
    SegmentReader,
    SegmentReadError,
    SegmentWriter,
    TooLargeError,
    Verdict,
    unpack,
)
from llem_events.events import ProcessCompleted, RequestsCompleted, SamplesDropped, WarningRaised
from llem_events.files import OsFiles
from tests.conftest import PATIENCE_S
from tests.log.golden.examples import REQUEST
from tests.log.segments import read_segment, segment_header, write_segment


def warning(text: str) -> WarningRaised:
    """An event of some text."""
    return WarningRaised(code="sample_gap", text=text)


def texts(reader: SegmentReader, start: Position | None = None) -> list[str]:
    """The texts of the events that can be read now."""
    return [unpack(envelope).text for block in reader.blocks(start) for envelope in reader.events(block)]


def test_an_incomplete_write_is_waited_for(tmp_path: Path) -> None:
    """A reader at a growing file calls its end torn for now, and reads on once the write is complete."""
    whole = tmp_path / "whole.events.zst"
    write_segment(whole, [[warning("a")], [warning("b")]])
    data, growing = whole.read_bytes(), tmp_path / "growing.events.zst"
    seen: list[str] = []
    growing.write_bytes(b"")
    with SegmentReader(growing) as reader:
        for end in range(0, len(data) + 1, 7):
            growing.write_bytes(data[:end])
            seen += texts(reader)
            assert reader.verdict in (Verdict.TORN, Verdict.UNCLOSED)
        growing.write_bytes(data)
        seen += texts(reader)
        assert reader.verdict is Verdict.CLEAN
    assert seen == ["a", "b"]


def test_reading_goes_on_from_a_position(tmp_path: Path) -> None:
    """A position kept from an earlier reader gives only what was written since, and a changed past is noticed."""
    path = tmp_path / "a.events.zst"
    writer = SegmentWriter(path, segment_header())
    writer.append(warning("a"))
    writer.flush()
    with SegmentReader(path) as reader:
        assert texts(reader) == ["a"]
        position = reader.position
    writer.append(warning("b"))
    writer.seal()
    with SegmentReader(path) as reader:
        assert texts(reader, position) == ["b"]
        assert reader.verdict is Verdict.CLEAN
        assert texts(reader, position) == ["b"]
        end = reader.position
    with SegmentReader(path) as reader:
        assert texts(reader, end) == []
        assert reader.verdict is Verdict.CLEAN
    other = Position(position.offset, position.blocks, position.events, b"\0" * 32)
    with SegmentReader(path) as reader, pytest.raises(CorruptError):
        texts(reader, other)
    path.write_bytes(path.read_bytes()[: position.offset - 1])
    with SegmentReader(path) as reader, pytest.raises(CorruptError, match="shrunk"):
        texts(reader, position)


def test_a_writer_at_work_is_told_from_a_killed_one(tmp_path: Path) -> None:
    """The kernel holds the writer's lock as long as the writer has the file open."""
    path = tmp_path / "a.events.zst"
    writer = SegmentWriter(path, segment_header())
    with SegmentReader(path) as reader:
        assert reader.is_being_written()
        writer.close()
        assert not reader.is_being_written()
        # Whoever asks keeps no lock.
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_where_nothing_can_be_locked_nobody_is_said_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without locks does not make every segment of it one that is still being written."""

    def refuse(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    write_segment(tmp_path / "a.events.zst")
    with SegmentReader(tmp_path / "a.events.zst") as reader:
        monkeypatch.setattr(fcntl, "flock", refuse)
        assert not reader.is_being_written()


def test_what_is_written_while_one_reads_is_for_the_next_time(tmp_path: Path) -> None:
    """A block or a seal that is not whole when reading begins is torn, though its end comes before it is read."""
    growing = tmp_path / "growing.events.zst"
    write_segment(growing, [[warning("a")], [warning("b")]])
    data = growing.read_bytes()
    with SegmentReader(growing) as reader:
        ends = {block.end.offset for block in reader.blocks()}
    for size in range(min(ends) + 1, len(data)):
        growing.write_bytes(data[:size])
        with SegmentReader(growing) as reader:
            blocks = reader.blocks()
            next(blocks)
            growing.write_bytes(data)
            list(blocks)
            assert reader.verdict is (Verdict.UNCLOSED if size in ends else Verdict.TORN), size


def test_files_that_are_no_files(tmp_path: Path) -> None:
    """A pipe is not waited for, a link not followed, a folder not read; a missing file is named."""
    fifo, link, missing = tmp_path / "fifo", tmp_path / "link", tmp_path / "missing"
    os.mkfifo(fifo)
    write_segment(tmp_path / "a.events.zst")
    link.symlink_to(tmp_path / "a.events.zst")
    unreadable = Path("/proc/self/mem")  # a regular file that fails in the kernel
    for path in (fifo, link, missing, tmp_path, unreadable):
        with pytest.raises(SegmentReadError, match=str(path)):
            SegmentReader(path)


@pytest.mark.slow
def test_events_that_cannot_be_written(tmp_path: Path) -> None:
    """An event that no column can hold, or over its cap, is refused to whoever appends it, and the log goes on."""
    path = tmp_path / "a.events.zst"
    log = BackgroundWriter(SegmentWriter(path, segment_header()))
    for bad, error in (
        (SamplesDropped(count=2**70, reason=""), EventError),
        (SamplesDropped(count=2**63, reason=""), EventError),
        (ProcessCompleted(process_index=2**31), EventError),
        (RequestsCompleted(window="warmup", requests=[replace(REQUEST, input_tokens=2**31)]), EventError),
        (RequestsCompleted(window="warmup", requests=[replace(REQUEST, token_times_ns=[2**63])]), EventError),
        (RequestsCompleted(window="warmup", requests=[replace(REQUEST, prompt="x" * 2**23)]), TooLargeError),
    ):
        with pytest.raises(error):
            log.append(bad, at_ns=0)
    with pytest.raises(EventError):
        log.append(warning("late"), at_ns=2**63)
    log.append(warning("good"), at_ns=0)
    log.seal()
    assert [event.text for _, event in read_segment(path).events.values()] == ["good"]


def test_a_message_that_no_text_can_hold_is_kept_as_far_as_it_can_be(tmp_path: Path) -> None:
    """Bytes that are no text become escapes, and a report of megabytes is cut, with its length: neither ends a measurement."""
    path = tmp_path / "a.events.zst"
    with BackgroundWriter(SegmentWriter(path, segment_header())) as log:
        log.append(warning("no \udce9 text"), at_ns=0)
        log.append(warning("x" * 2**21), at_ns=0)
        log.seal()
    first, second = (event.text for _, event in read_segment(path).events.values())
    assert first == "no \\udce9 text"
    assert second.endswith("x ... (cut, 2097152 characters)") and len(second) < 2**16 + 50


class SlowDisk(OsFiles):
    """A disk that takes no second block until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.blocks = 0

    def write(self, fd: int, chunk: memoryview) -> int:
        self.blocks += 1
        if self.blocks > 1:
            self.released.wait()
        return super().write(fd, chunk)


def test_offering_never_waits_and_counts_what_it_drops(tmp_path: Path) -> None:
    """While the disk stands still, offers return at once, and the log says how many samples it has lost."""
    path, disk = tmp_path / "a.events.zst", SlowDisk()
    log = BackgroundWriter(SegmentWriter(path, segment_header(), files=disk), capacity=2)
    log.append(warning("old enough to be flushed"), at_ns=0)
    deadline = time.monotonic() + PATIENCE_S
    while log.offer(warning("taken"), at_ns=0, weight=100) and time.monotonic() < deadline:
        pass
    assert not log.offer(warning("dropped"), at_ns=0, weight=100)
    dropped = log.dropped_total
    disk.released.set()
    log.seal()
    events = [event for _, event in read_segment(path).events.values()]
    assert sum(event.count for event in events if isinstance(event, SamplesDropped)) == dropped >= 200


def test_events_of_many_threads_are_all_there(tmp_path: Path) -> None:
    """Threads that append at once lose nothing, and each thread's events keep their order."""
    path = tmp_path / "a.events.zst"
    log = BackgroundWriter(SegmentWriter(path, segment_header(), sync="close"), capacity=8)

    def append(thread: int) -> None:
        for number in range(200):
            log.append(SamplesDropped(count=number, reason=str(thread)), at_ns=number)

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.seal()
    with pytest.raises(LogWriteError):
        log.append(warning("late"), at_ns=0)
    events = [event for _, event in read_segment(path).events.values()]
    for thread in range(4):
        assert [event.count for event in events if event.reason == str(thread)] == list(range(200))


def test_what_is_importable_is_what_is_public() -> None:
    """Every public name can be imported, and no module of the package hides one of them."""
    assert {name for name in llem_events.__all__ if getattr(llem_events, name, None) is None} == set()
    modules = {path.stem for path in Path(llem_events.__file__).parent.glob("*.py")}
    assert not modules & set(llem_events.__all__)
