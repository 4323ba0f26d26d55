"""Files that are larger than an event: read line by line where their format is lines, else up to a limit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llem import importing
from llem.errors import ExportError
from llem.importers.recording import Recording
from llem.importers.sampled import spooled
from llem.importing import import_result, understand
from llem.store import Store
from llem_events import Reading
from tests.importing.files import FORMATS, UTC, asked, content

LINES = ["nvidia_smi/power.csv", "aiperf/profile_export.jsonl", "dcgmi/dmon.txt", "mlperf/spl.txt"]


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """As if an event, and memory, held no more bytes."""

    def limit(kept: int, read: int) -> None:
        monkeypatch.setattr(importing, "MOST_KEPT_BYTES", kept)
        monkeypatch.setattr(importing, "MOST_READ_BYTES", read)
        monkeypatch.setattr(importing, "BEGINNING_BYTES", kept)

    return limit


def recorded(path: Path, name: str) -> Recording:
    (run,) = understand(path, asked=asked(name)).runs
    assert isinstance(run, Recording)
    return run


@pytest.mark.parametrize("name", LINES)
def test_lines_of_a_large_file_are_those_of_a_small_one(
    name: str, tmp_path: Path, small_limits: Callable[[int, int], None]
) -> None:
    """The same readings and requests; that the log does not keep the file is a warning."""
    (path := tmp_path / Path(name).name).write_bytes(content(name))
    whole, size = recorded(path, name), path.stat().st_size
    small_limits(size - 1, size - 1)
    lines = recorded(path, name)
    assert {uuid: [*each] for uuid, each in lines.readings.items()} == {
        uuid: [*each] for uuid, each in whole.readings.items()
    }
    assert [*(lines.requests or ())] == [*(whole.requests or ())]
    assert (lines.measurements, lines.mapping) == (whole.measurements, whole.mapping)
    assert [note for note in lines.notes if note not in whole.notes] == [
        f"of the {len(content(name))} bytes of the file the log keeps the beginning and the SHA-256: keep the file"
    ]


def test_what_is_kept_of_a_large_file_is_its_beginning(
    tmp_path: Path, small_limits: Callable[[int, int], None]
) -> None:
    """Whole lines, with the digest of all; a second import is refused, and so are its bytes."""
    small_limits(3_000, 3_000)
    path, store = FORMATS / "mlperf/spl.txt", Store(tmp_path / "store").create()
    file = understand(path, asked=UTC)
    assert not file.bytes_kept and path.read_bytes().startswith(file.content) and file.content.endswith(b"\n")
    import_result(path, store, asked=UTC)
    with pytest.raises(ExportError, match="already been imported"):
        import_result(path, store, asked=UTC)
    with pytest.raises(ExportError, match="--keep-bytes"):
        understand(path, keep_bytes=True, asked=UTC)


def test_json_is_read_whole_up_to_a_limit(tmp_path: Path, small_limits: Callable[[int, int], None]) -> None:
    """Beyond it the error says how large, how large it may be, and which formats have no limit."""
    path = FORMATS / "vllm/openai-chat.json"
    size = path.stat().st_size
    small_limits(3_000, size)
    (run,) = understand(path, asked=UTC).runs
    assert any("keeps the beginning" in note for note in run.notes)
    small_limits(3_000, size - 1)
    with pytest.raises(ExportError, match=rf"too large: found {size} bytes.*or lines of nvidia-smi"):
        understand(path, asked=UTC)


def test_a_large_list_of_results_is_taken_by_its_parts(
    tmp_path: Path, small_limits: Callable[[int, int], None]
) -> None:
    """One result that an event cannot hold is refused: its figures are read from there."""
    one = json.loads((FORMATS / "llenergymeasure/aggregated.json").read_text())
    (path := tmp_path / "list.json").write_text(json.dumps([one, one]))
    small_limits(4_000, 10**6)
    assert len(understand(path).runs) == 2
    small_limits(1_000, 10**6)
    with pytest.raises(ExportError, match="at most 1000 bytes of one result"):
        understand(path)


def test_a_line_that_is_wrong_far_behind_is_named(
    tmp_path: Path, small_limits: Callable[[int, int], None]
) -> None:
    """Though the beginning of the file told its format."""
    (path := tmp_path / "spl.txt").write_bytes(content("mlperf/spl.txt") + b"Time,now\n")
    small_limits(3_000, 3_000)
    with pytest.raises(ExportError, match="line 46 cannot be read"):
        understand(path, asked=UTC)


def test_readings_on_disk_are_those_that_were_written() -> None:
    """Of more than are held at once, from any place, with what is missing."""
    written = [Reading(n, power_mw=None if n % 3 else n, energy_mj=-(2**62)) for n in range(9_000)]
    readings = spooled(iter(written))
    assert (
        [*readings] == written
        and readings[-1] == written[-1]
        and readings[4_090:4_100] == written[4_090:4_100]
    )
    assert readings.since(5)[7].at_ns == 2
    assert (readings.known["power_mw"], readings.known["temperature_c"]) == (3_000, 0)
    assert [*spooled([])] == []
