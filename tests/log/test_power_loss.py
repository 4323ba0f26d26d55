"""Every state that a power cut may leave behind, after each system call of a scenario with rotation, seal and rename."""

import itertools
from pathlib import Path

import pytest

from llem_events import LogWriteError, SegmentWriter, SyncPolicy, Verdict, recover
from llem_events.events import LogFailed, WarningRaised
from tests.conftest import mostly_slow
from tests.log.recorded_files import Call, RecordedFiles, contents_after_power_cut, names_after_power_cut
from tests.log.segments import read_segment, segment_header

FIRST, SECOND, RECOVERED = "a.events.zst", "b.events.zst", "c.events.zst"

CALLS_OF_CREATION = 5  # create, write, sync, sync_directory, reserve


def incompressible(number: int) -> WarningRaised:
    """An event whose block spans three or four sectors."""
    digits = "".join(str((number + 1) * prime**7 % 999_983) for prime in range(2, 420))
    return WarningRaised(code="sample_gap", text=digits, value=float(number))


def run_scenario(folder: Path, sync: SyncPolicy) -> list[Call]:
    """A segment that the disk refuses after two blocks, the next one sealed, the first recovered under a new name."""
    third_block = CALLS_OF_CREATION + 2 * (2 if sync == "block" else 1)
    files = RecordedFiles({third_block: "ENOSPC"})
    with pytest.raises(LogWriteError):
        _write(folder / FIRST, files, sync, segment_id=b"a" * 16)
    files_after = RecordedFiles()
    files_after.calls = files.calls
    _write(folder / SECOND, files_after, sync, segment_id=b"b" * 16)
    recover(folder / FIRST, folder / RECOVERED, files=files_after)
    return files.calls


def _write(path: Path, files: RecordedFiles, sync: SyncPolicy, *, segment_id: bytes) -> None:
    writer = SegmentWriter(path, segment_header(segment_id), sync=sync, files=files)
    for number in range(3):
        writer.append(incompressible(number))
        writer.flush()
        files.mark("acknowledged", path, number + 1 if sync == "block" else 0)
    writer.seal()
    files.mark("acknowledged", path, 3)


@pytest.mark.slow
@pytest.mark.parametrize("sync", mostly_slow(["block", "close"], every=2))
def test_every_state_after_a_power_cut(tmp_path: Path, sync: SyncPolicy) -> None:
    """What was acknowledged is in the file, which has its name, and no state reads as corrupt."""
    scene = tmp_path / "scene"
    scene.mkdir()
    calls = run_scenario(scene, sync)
    created = [call.path for call in calls if call.name == "create"]
    states = 0
    for length in range(len(calls) + 1):
        before = calls[:length]
        for path in created:
            for content in set(contents_after_power_cut(before, path)):
                _check_content(tmp_path / "state.events.zst", content, path, before)
                states += 1
        for names in names_after_power_cut(before, scene):
            _check_names(names, before)
            states += 1
    assert states > 500


def _check_content(state: Path, content: bytes, path: Path, before: list[Call]) -> None:
    state.write_bytes(content)
    outcome = read_segment(state)
    assert outcome.verdict in (Verdict.CLEAN, Verdict.UNCLOSED, Verdict.TORN)
    events = [event for _, event in outcome.events.values() if not isinstance(event, LogFailed)]
    assert events == [incompressible(number) for number in range(len(events))]
    assert len(events) >= _acknowledged(before, path)
    if any(call.name == "rename" and call.path == path for call in before):
        assert outcome.verdict is Verdict.CLEAN


def _check_names(names: dict[str, Path], before: list[Call]) -> None:
    for call in before:
        if call.name == "acknowledged" and call.count:
            assert call.path.name in names
    if before and before[-1].name == "sync_directory" and any(call.name == "rename" for call in before):
        assert RECOVERED in names


def _acknowledged(before: list[Call], path: Path) -> int:
    counts = (call.count for call in before if call.name == "acknowledged" and call.path == path)
    return max(counts, default=0)


def test_the_enumeration_knows_lost_sectors(tmp_path: Path) -> None:
    """Two unsynced writes give the first whole, and the second in every subset of its sectors."""
    path = tmp_path / "a"
    calls = [Call("create", path), Call("write", path, b"x" * 512), Call("write", path, b"y" * 1024)]
    states = set(contents_after_power_cut(calls, path))
    subsets = set(itertools.product((b"y" * 512, bytes(512)), repeat=2))
    assert states >= {b"", b"x" * 512} | {b"x" * 512 + first + second for first, second in subsets}
    assert set(contents_after_power_cut([*calls, Call("sync", path)], path)) == {b"x" * 512 + b"y" * 1024}
