"""Each system call of a writer fails once, or for good, in each way that an operating system knows."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from llem_events import BackgroundWriter, LogError, LogWriteError, SegmentWriter, SyncPolicy, Verdict
from llem_events.events import LogFailed, WarningRaised
from llem_events.files import OsFiles
from tests.log.recorded_files import Fault, RecordedFiles
from tests.log.segments import Outcome, read_segment, segment_header

FLUSHES = 3
CALLS_OF_CREATION = 5  # create, write, sync, sync_directory, reserve
CALLS_OF_BLOCK = 2  # write, sync
GOOD = (Verdict.CLEAN, Verdict.UNCLOSED, Verdict.TORN)


def warning(number: int) -> WarningRaised:
    """An event that says its own number."""
    return WarningRaised(code="sample_gap", text=os.urandom(300).hex(), value=float(number))


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def write_until_failure(path: Path, files: OsFiles, sync: SyncPolicy) -> tuple[int, LogError | None]:
    """Two events a flush, then the seal: how many events were acknowledged, and what ended it."""
    acknowledged = 0
    writer = None
    try:
        writer = SegmentWriter(path, segment_header(), sync=sync, files=files)
        for number in range(FLUSHES):
            writer.append(warning(2 * number))
            writer.append(warning(2 * number + 1))
            writer.flush()
            acknowledged = 2 * number + 2
        writer.seal()
        return acknowledged, None
    except LogError as error:
        if writer is not None:
            for call in (writer.flush, writer.seal, lambda: writer.append(warning(0))):
                with pytest.raises(LogWriteError):
                    call()
            writer.close()
        return acknowledged, error


def check_recovered(outcome: Outcome, acknowledged: int) -> None:
    """Acknowledged is a subset of recovered, recovered is a prefix of sent, and only a note follows it."""
    assert outcome.verdict in GOOD
    events = [event for _, event in outcome.events.values()]
    if events and isinstance(events[-1], LogFailed):
        events.pop()
    assert len(events) >= acknowledged
    assert [event.value for event in events] == list(map(float, range(len(events))))


def count_calls(folder: Path, sync: SyncPolicy) -> int:
    """How many calls the whole scenario makes."""
    files = RecordedFiles()
    assert write_until_failure(folder / "count.events.zst", files, sync) == (2 * FLUSHES, None)
    return len(files.calls)


@pytest.mark.parametrize("sync", ["block", "close"])
@pytest.mark.parametrize("until_the_end", [False, True], ids=["once", "for_good"])
@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EINTR", "short"])
def test_each_call_fails_in_each_way(
    tmp_path: Path, fault: Fault, until_the_end: bool, sync: SyncPolicy
) -> None:
    """Whatever fails is told unless it is harmless, nothing acknowledged is lost, the file stays readable, no descriptor leaks, no foreign error escapes."""
    descriptors = open_descriptors()
    for number in range(count_calls(tmp_path, sync)):
        if fault == "EINTR" and until_the_end:
            break  # a write that is interrupted for ever never ends, by definition
        files = RecordedFiles({number: fault}, until_the_end=until_the_end)
        path = tmp_path / f"{number}.events.zst"
        acknowledged, error = write_until_failure(path, files, sync)
        call = next(call for n, call in enumerate(files.calls) if n == number).name
        harmless = call == "close" or fault == "short" or (fault == "EINTR" and call == "write")
        harmless |= call == "reserve" and fault != "ENOSPC"
        if not until_the_end:
            assert (error is None) is harmless, call
        if path.exists():
            check_recovered(read_segment(path), acknowledged)
        assert open_descriptors() == descriptors, call
    assert not list(tmp_path.glob(".reserve-*"))


def test_a_full_disk_is_recorded_from_the_reserve(tmp_path: Path) -> None:
    """After a refused write the log is cut back to its last block and says what was lost."""
    path = tmp_path / "full.events.zst"
    files = RecordedFiles({CALLS_OF_CREATION + CALLS_OF_BLOCK: "ENOSPC"})
    acknowledged, error = write_until_failure(path, files, "block")
    outcome = read_segment(path)
    assert (acknowledged, outcome.verdict) == (2, Verdict.UNCLOSED)
    assert outcome.events[2][1] == LogFailed(error="No space left on device", events_lost=2)
    assert "2 events" in str(error)
    last = [call.name for call in files.calls if call.path == path][-4:]
    assert last == ["truncate", "write", "sync", "close"]


def test_a_failed_sync_is_final(tmp_path: Path) -> None:
    """fdatasync is never tried again: the kernel may have dropped the pages and would answer OK."""
    files = RecordedFiles({CALLS_OF_CREATION + CALLS_OF_BLOCK - 1: "EIO"})
    acknowledged, error = write_until_failure(tmp_path / "a.events.zst", files, "block")
    names = [call.name for call in files.calls]
    assert (acknowledged, isinstance(error, LogWriteError)) == (0, True)
    assert names.count("sync") == 2


def test_an_interrupted_write_ends_the_segment(tmp_path: Path) -> None:
    """Part of a block may be in the file after an exception out of a signal handler; nothing may follow it."""

    class Interrupted(OsFiles):
        def write(self, fd: int, chunk: memoryview) -> int:
            if chunk.nbytes < 1000:
                return super().write(fd, chunk)
            super().write(fd, chunk[:100])
            raise KeyboardInterrupt

    path = tmp_path / "a.events.zst"
    writer = SegmentWriter(path, segment_header(), files=Interrupted())
    writer.append(warning(0))
    writer.flush()
    writer.append(WarningRaised(code="sample_gap", text=os.urandom(2000).hex()))
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    with pytest.raises(LogWriteError):
        writer.flush()
    writer.close()
    outcome = read_segment(path)
    assert (outcome.verdict, len(outcome.events)) == (Verdict.TORN, 1)


FILL = """
import os, sys
from pathlib import Path
from llem_events import LogError, SegmentWriter
from llem_events.events import WarningRaised
from tests.log.segments import segment_header
if len(sys.argv) > 2:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
number = 0
try:
    writer = SegmentWriter(Path(sys.argv[1]), segment_header())
    while True:
        writer.append(WarningRaised(code="sample_gap", text=os.urandom(2000).hex(), value=float(number)))
        writer.flush()
        number += 1
except LogError as error:
    print(number, error)
"""


def fill(path: Path, *arguments: str) -> tuple[int, str]:
    """Write in a process of its own until the operating system refuses: events acknowledged, and the error."""
    child = subprocess.run(
        [sys.executable, "-c", FILL, str(path), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    acknowledged, _, error = child.stdout.partition(" ")
    return int(acknowledged), error


def test_a_real_full_file_system(tmp_path: Path) -> None:
    """On a file system without room the log keeps what was acknowledged, and the reserve lets it say so."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        path = small / "a.events.zst"
        acknowledged, error = fill(path)
        outcome = read_segment(path)
        assert acknowledged > 100
        assert "No space left on device" in error
        check_recovered(outcome, acknowledged)
        assert isinstance(outcome.events[acknowledged][1], LogFailed)
        assert fill(small / "b.events.zst")[0] == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """RLIMIT_FSIZE refuses like a full disk, and needs no root."""
    path = tmp_path / "a.events.zst"
    acknowledged, error = fill(path, "500000")
    assert acknowledged > 100
    assert "File too large" in error
    check_recovered(read_segment(path), acknowledged)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_whoever_appends_hears_of_the_failure(tmp_path: Path) -> None:
    """After its thread met a full disk, a background writer refuses events instead of queueing them."""
    files = RecordedFiles({6: "ENOSPC"})
    log = BackgroundWriter(
        SegmentWriter(tmp_path / "a.events.zst", segment_header(), files=files), capacity=4
    )
    with pytest.raises(LogWriteError):
        for number in range(100_000):
            log.append(warning(number), at_ns=0)
    with pytest.raises(LogWriteError):
        log.seal()
    log.close()
