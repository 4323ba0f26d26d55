"""The queue of the thread that writes, and what the writer says of what it wrote."""

import contextlib
import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llem_events import BackgroundWriter, LogWriteError, SegmentReader, SegmentWriter, clock
from llem_events.events import SamplesDropped, WarningRaised
from llem_events.files import OsFiles
from llem_events.following import follow
from tests.conftest import PATIENCE_S, wait_until
from tests.delays import best_of_rounds, delays
from tests.log.segments import read_segment, segment_header

NOTE = WarningRaised(code="c", text="t")


class SlowDisk(OsFiles):
    """A disk that writes nothing while `open` is not set; `waiting` says that somebody waits for it."""

    def __init__(self) -> None:
        self.open, self.waiting = threading.Event(), threading.Event()
        self.open.set()

    def write(self, fd: int, chunk: memoryview) -> int:
        self.waiting.set()
        assert self.open.wait(PATIENCE_S)
        return super().write(fd, chunk)


class FailingDisk(OsFiles):
    """A disk that writes until something goes wrong."""

    wrong: Exception | None = None

    def write(self, fd: int, chunk: memoryview) -> int:
        if self.wrong is not None:
            raise self.wrong
        return super().write(fd, chunk)


def stalled(path: Path, disk: SlowDisk, *, capacity: int) -> BackgroundWriter:
    """A log whose thread is inside a write that does not end."""
    log = BackgroundWriter(SegmentWriter(path, segment_header(), files=disk), capacity=capacity)
    disk.open.clear()
    disk.waiting.clear()
    log.append(NOTE, at_ns=0)
    log.hurry()
    assert disk.waiting.wait(PATIENCE_S)
    return log


def test_a_queue_holds_its_capacity(tmp_path: Path) -> None:
    """Three more are taken, the fourth is dropped with its weight, and the log says so."""
    disk = SlowDisk()
    log = stalled(tmp_path / "a", disk, capacity=3)
    taken = [log.offer(NOTE, at_ns=0, weight=10) for _ in range(5)]
    assert (taken, log.dropped_total) == ([True, True, True, False, False], 20)
    disk.open.set()
    log.seal()
    events = [event for _, event in read_segment(tmp_path / "a").events.values()]
    assert events.count(NOTE) == 4
    assert [event.count for event in events if isinstance(event, SamplesDropped)] == [20]


@pytest.mark.parametrize("ended", [BackgroundWriter.close, BackgroundWriter.seal])
def test_what_is_queued_is_written_before_the_end(
    tmp_path: Path, ended: Callable[[BackgroundWriter], None]
) -> None:
    """Whether the segment is sealed or not."""
    log = BackgroundWriter(SegmentWriter(tmp_path / "a", segment_header()))
    for _ in range(3):
        log.append(NOTE, at_ns=0)
    ended(log)
    assert len(read_segment(tmp_path / "a").events) == 3
    with SegmentReader(tmp_path / "a") as reader:
        assert not reader.is_being_written()


def test_a_writer_with_nothing_to_do_takes_no_time(tmp_path: Path) -> None:
    """Its thread sleeps: the processor is for what is measured."""
    with BackgroundWriter(SegmentWriter(tmp_path / "a", segment_header())):
        began_s = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - began_s < 0.02


def test_an_append_waits_for_room(tmp_path: Path) -> None:
    """It returns once the disk has taken what was queued before."""
    disk = SlowDisk()
    log = stalled(tmp_path / "a", disk, capacity=1)
    log.append(NOTE, at_ns=0)
    late = threading.Thread(target=log.append, args=(NOTE,), kwargs={"at_ns": 0})
    late.start()
    late.join(0.1)
    assert late.is_alive()
    disk.open.set()
    late.join(PATIENCE_S)
    assert not late.is_alive()
    log.seal()
    assert len(read_segment(tmp_path / "a").events) == 3


@pytest.mark.parametrize("wrong", [None, OSError(errno.ENOSPC, "full"), RuntimeError("not ours")])
def test_a_sealed_log_is_let_go_of(tmp_path: Path, wrong: Exception | None) -> None:
    """Also where the seal cannot be written: nobody waits for a writer that has ended."""
    path, disk = tmp_path / "a", FailingDisk()
    log = BackgroundWriter(SegmentWriter(path, segment_header(), files=disk))
    with SegmentReader(path) as reader:
        assert reader.is_being_written()
        log.append(NOTE, at_ns=0)
        disk.wrong = wrong
        with pytest.raises(LogWriteError) if wrong else contextlib.nullcontext():
            log.seal()
        assert not reader.is_being_written()


def test_a_hurried_event_is_on_the_disk_at_once(tmp_path: Path) -> None:
    """Others wait up to a second for company."""
    path = tmp_path / "a"
    with BackgroundWriter(SegmentWriter(path, segment_header())) as log:
        log.append(NOTE, at_ns=time.monotonic_ns() + 10**12)
        time.sleep(0.05)
        assert read_segment(path).events == {}
        log.hurry()
        wait_until(lambda: len(read_segment(path).events) == 1)


@best_of_rounds
def test_an_event_that_becomes_old_is_soon_on_the_disk(tmp_path: Path) -> None:
    """The thread looks four times a second."""
    with BackgroundWriter(SegmentWriter(tmp_path / "a", segment_header())) as log:
        began_s = time.monotonic()
        log.append(NOTE, at_ns=time.monotonic_ns() - 9 * 10**8)
        wait_until(lambda: len(read_segment(tmp_path / "a").events) == 1)
        with delays():
            assert time.monotonic() - began_s < 1.0


def test_an_old_event_is_on_the_disk_without_a_word(tmp_path: Path) -> None:
    """Whatever is a second old is written, and a closed log takes no more."""
    path = tmp_path / "a"
    with BackgroundWriter(SegmentWriter(path, segment_header())) as log:
        log.append(NOTE, at_ns=time.monotonic_ns() - 10**9)
        wait_until(lambda: len(read_segment(path).events) == 1)
        log.append(NOTE, at_ns=time.monotonic_ns() - 7 * 10**8)
        wait_until(lambda: len(read_segment(path).events) == 2)
    for refused in (lambda: log.append(NOTE, at_ns=0), lambda: log.offer(NOTE, at_ns=0, weight=1)):
        with pytest.raises(LogWriteError, match="is closed"):
            refused()


def test_a_flush_says_what_it_wrote(tmp_path: Path) -> None:
    """Block and event numbers count on; nothing to write is None."""
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    assert writer.flush() is None
    assert [writer.append(NOTE, at_ns=0), writer.append(NOTE, at_ns=0)] == [0, 1]
    assert writer.pending_events == 2
    first = writer.flush()
    assert first is not None
    assert (first.block_number, first.first_event, first.event_count) == (0, 0, 2)
    assert writer.append(NOTE, at_ns=0) == 2
    second = writer.flush()
    assert second is not None
    assert (second.block_number, second.first_event, second.previous_digest) == (1, 2, first.digest)
    seal = writer.seal()
    assert (seal.blocks, seal.events, seal.last_digest) == (2, 3, second.digest)
    assert seal.raw_bytes == first.raw_length + second.raw_length
    assert seal.compressed_bytes == first.compressed_length + second.compressed_length


def test_a_block_is_due_when_it_is_old_or_large(tmp_path: Path) -> None:
    """The oldest of its events counts, and 256 KiB do."""
    writer = SegmentWriter(tmp_path / "a", segment_header(), sync="close")
    now_ns = time.monotonic_ns()
    assert not writer.due()
    writer.append(NOTE, at_ns=now_ns + 10**12)
    assert not writer.due()
    writer.append(NOTE, at_ns=now_ns - 10**9)
    writer.append(NOTE, at_ns=now_ns + 10**12)
    assert writer.due()
    writer.flush()
    assert not writer.due()
    writer.append_message(bytes(256 * 2**10), at_ns=now_ns + 10**12)
    assert writer.due()
    writer.close()


def test_who_follows_rests_between_two_looks(tmp_path: Path) -> None:
    """A quarter of a second, for as long as a writer is at work; then what it wrote last is still told."""
    writer, rests = SegmentWriter(tmp_path / "a", segment_header()), []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        writer.append(NOTE, at_ns=0)
        writer.seal() if len(rests) == 2 else writer.flush()

    told = [(path, number) for path, number, _ in follow(lambda: [tmp_path / "a"], sleep=rest)]
    assert (told, rests) == ([(tmp_path / "a", 0), (tmp_path / "a", 1)], [0.25, 0.25])


def test_a_kernel_without_an_id_of_its_boot_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty text, as a header has it; with one it stands without its end of line."""
    assert clock.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().rstrip("\n") != ""
    monkeypatch.setattr(clock, "Path", lambda _: tmp_path / "none")
    assert clock.boot_id() == ""
