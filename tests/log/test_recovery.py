"""How much may be lost before a recovery is refused."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llem_events import LogWriteError, RecoveryRefusedError, Verdict, survey
from llem_events.events import WarningRaised
from llem_events.recovery import recover
from llem_events.redaction import redact
from tests.log.forged import forged_raw
from tests.log.recorded_files import RecordedFiles
from tests.log.segments import layout, write_segment


def damaged_segment(path: Path, *, events: int) -> Path:
    """Three blocks, the middle one of so many events of 25,000 bytes, with a changed byte."""
    noise = [WarningRaised(code="c", text=os.urandom(12_500).hex()) for _ in range(events)]
    small = [WarningRaised(code="c", text="x")]
    write_segment(path, [small, noise, small])
    changed = bytearray(path.read_bytes())
    changed[layout(path).block(1).stop - 20] ^= 1
    path.write_bytes(changed)
    return path


def test_a_loss_of_up_to_64_kib_needs_no_word(tmp_path: Path) -> None:
    """Two such events are cut without a limit given, three are refused."""
    kept = recover(damaged_segment(tmp_path / "a", events=2), tmp_path / "b").kept
    assert (kept.blocks, kept.events) == (2, 2)
    with pytest.raises(RecoveryRefusedError, match="expected at most 65536"):
        recover(damaged_segment(tmp_path / "c", events=3), tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_just_the_limit_may_be_lost(tmp_path: Path) -> None:
    """One byte less is not enough; without a limit anything is."""
    path = damaged_segment(tmp_path / "a", events=1)
    lost_bytes = survey(path).lost_bytes
    with pytest.raises(RecoveryRefusedError, match=f"{lost_bytes} bytes would be lost"):
        recover(path, tmp_path / "b", limit_bytes=lost_bytes - 1)
    assert recover(path, tmp_path / "b", limit_bytes=lost_bytes).original.lost_bytes == lost_bytes
    assert recover(path, tmp_path / "c", limit_bytes=None).kept.blocks == 2


def test_a_block_whose_events_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """Though its checksums and digests are right."""
    path = forged_raw(tmp_path / "a", b"\xc1 no event", event_count=1)
    recovery = recover(path, tmp_path / "b", limit_bytes=None)
    assert recovery.kept.blocks == 0 and recovery.original.verdict is Verdict.CORRUPT
    (damage,) = recovery.original.damages
    assert (damage.offset, damage.end) == (layout(path).block(0).start, path.stat().st_size)
    assert survey(tmp_path / "b").blocks == 0


@pytest.mark.parametrize("copying", [recover, partial(redact, texts=["xxxx"])], ids=["recover", "redact"])
def test_a_disk_that_refuses_the_name_of_a_copy_is_told(tmp_path: Path, copying: Any) -> None:
    """That it is moved there, or that this is kept; what was half made is gone."""
    write_segment(tmp_path / "a", [[WarningRaised(code="c", text="xxxx")]])
    willing = RecordedFiles()
    copying(tmp_path / "a", tmp_path / "b", files=willing)
    assert [call.name for call in willing.calls[-2:]] == ["rename", "sync_directory"]
    rename, kept = len(willing.calls) - 2, len(willing.calls) - 1
    for refused, name in ((rename, "c"), (kept, "d")):
        with pytest.raises(LogWriteError, match=f"segment {tmp_path / name}: Input/output error"):
            copying(tmp_path / "a", tmp_path / name, files=RecordedFiles({refused: "EIO"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "d"]


def test_a_loss_is_counted_on_from_an_earlier_one(tmp_path: Path) -> None:
    """The recovered segment of a recovered segment says all that is missing."""
    first = recover(damaged_segment(tmp_path / "a", events=1), tmp_path / "b").original
    changed = bytearray((tmp_path / "b").read_bytes())
    changed[layout(tmp_path / "b").block(0).stop - 20] ^= 1
    (tmp_path / "b").write_bytes(changed)
    second = recover(tmp_path / "b", tmp_path / "c").original
    header = survey(tmp_path / "c").header
    assert header is not None and second.header is not None
    assert header.recovered_from == second.header.segment_id
    assert (header.skipped_blocks, header.skipped_events) == (2, 2)
    assert header.skipped_bytes == first.lost_bytes + second.lost_bytes
