"""Results of LLenergyMeasure: imported, rebuilt, queried and exported with the same figures, or refused."""

import json
import os
import subprocess
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from llem.api import OpenStore, open_store
from llem.errors import ExportError
from llem.export import formats
from llem.importing import import_result
from llem.results.predecessor import IMPORTED, WITHOUT_ZONE
from llem.store import Store
from llem_events import SegmentReader, Verdict, unpack
from llem_events.events import ResultImported
from tests.conftest import LLEM, Run
from tests.world import experiment

ORIGINAL = Path(__file__).parent / "predecessor_result.json"
FIELDS: dict[str, Any] = json.loads(ORIGINAL.read_text())
OTHER_NAMES = {"experiment_id", "process_results", "environment_snapshot", "warmup_result"}
OTHER_SHAPES = {"start_time", "end_time"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store").create()


@pytest.fixture
def imported(store: Store) -> OpenStore:
    """A store into which the result was imported."""
    import_result(ORIGINAL, store)
    return open_store(store.path)


def subset(expected: Any, found: Any) -> bool:
    """Whether every figure of `expected` is in `found`, unchanged; more may be there."""
    if isinstance(expected, dict):
        return all(name in found and subset(value, found[name]) for name, value in expected.items())
    return type(found) is type(expected) and found == expected


def exported(opened: OpenStore) -> dict[str, Any]:
    """The one result of a store, as it is exported."""
    out = StringIO()
    formats.write_json_objects(out, opened.results())
    (found,) = json.loads(out.getvalue())
    assert isinstance(found, dict)
    return found


def test_figures_survive_import_and_export(imported: OpenStore) -> None:
    """Every field that both programs have is exported as it was read."""
    found = exported(imported)
    added = {"energy_breakdown", "latency_stats", "measurement_warnings"}
    for name in FIELDS.keys() - OTHER_NAMES - OTHER_SHAPES - added:
        assert subset(FIELDS[name], found[name]), name
    assert found["measurement_warnings"] == [IMPORTED, *FIELDS["measurement_warnings"], WITHOUT_ZONE]
    assert found["process_results"][0]["energy_metrics"]["total_energy_j"] == FIELDS["total_energy_j"]
    assert found["process_results"][0]["inference_metrics"]["latency_measurements"]["ttft_ms"] == [12.0, 13.0]
    assert found["energy_breakdown"]["adjusted_j"] == -3.25
    assert (found["latency_stats"]["itl_mean_ms"], found["latency_stats"]["itl_trimmed_mean_ms"]) == (
        FIELDS["latency_stats"]["itl_full_mean_ms"],
        FIELDS["latency_stats"]["itl_mean_ms"],
    )
    assert subset({"ttft_p99_ms": 12.99, "itl_trimmed_samples": 1}, found["latency_stats"])
    assert found["warmup_result"]["cooldown_sec"] == 60.0
    assert found["environment_snapshot"]["packages"] == {"torch": "2.6.0", "transformers": "4.49.0"}


def test_figures_survive_a_rebuild(imported: OpenStore, store: Store) -> None:
    """The tables can be thrown away."""
    before = exported(imported)
    store.projections_path.unlink()
    assert exported(imported) == before


@pytest.mark.slow
def test_an_imported_result_is_queried_beside_others(imported: OpenStore) -> None:
    """Its figures stand in experiment_results, under an id of this store, with the old id as a label."""
    result = imported.query(
        "SELECT total_energy_j, total_tokens, model_name, dtype, batch_size, start_time::VARCHAR, throttle_detected, "
        "labels['imported_id'], status FROM experiment_results"
    )
    assert result.rows == [
        (
            1234.5678901234567,
            12345,
            "meta-llama/Llama-3.2-1B",
            "bf16",
            8,
            "2026-03-01 12:00:00.123456",
            True,
            "meta-llama/Llama-3.2-1B_20260301_120000",
            "completed",
        )
    ]
    assert imported.query("SELECT total_energy_j FROM raw_process_results").rows == [(1234.5678901234567,)]


def test_the_file_is_kept_byte_for_byte(store: Store) -> None:
    """The log holds the original and its digest, in a sealed segment of role import."""
    done = import_result(ORIGINAL, store)
    (segment,) = store.segments(done.experiment_ids[0])
    with SegmentReader(segment) as reader:
        events = [unpack(found) for block in reader.blocks() for found in reader.events(block)]
        assert reader.verdict is Verdict.CLEAN
        assert reader.header is not None
        assert reader.header.role == "import"
    (kept,) = [event for event in events if isinstance(event, ResultImported)]
    assert kept.original == ORIGINAL.read_bytes()
    assert kept.file_sha256 == done.file_sha256


def test_the_same_file_is_imported_once(store: Store, tmp_path: Path) -> None:
    """A second time it is refused, under another name too."""
    import_result(ORIGINAL, store)
    copy = tmp_path / "copy.json"
    copy.write_bytes(ORIGINAL.read_bytes())
    with pytest.raises(ExportError, match="already been imported"):
        import_result(copy, store)
    assert len(store.experiment_ids()) == 1


@pytest.mark.parametrize("text", ["", "[]", "5", "{", '{"a": 1}', "\x00", '{"schema_version": "2.0"}'])
def test_a_foreign_file_is_refused(text: str, store: Store, tmp_path: Path) -> None:
    """In one line, and the store stays empty."""
    path = tmp_path / "foreign.json"
    path.write_text(text)
    with pytest.raises(ExportError, match=r"foreign\.json"):
        import_result(path, store)
    assert store.experiment_ids() == []


def document(**changes: Any) -> str:
    """The result with some fields changed."""
    return json.dumps(FIELDS | changes)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["results", "raw", "requests"])
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_an_export_of_llem_is_told_how_runs_move(
    llem: Run, store: Store, tmp_path: Path, what: str, suffix: str
) -> None:
    """Tables are no log: the error names the command that brings runs over, and what it brings is the run."""
    experiment(store, experiment_id="one")
    file, other = tmp_path / f"exported.{suffix}", Store(tmp_path / "other").create()
    assert llem("export", file, "--what", what, "--store", store.path).returncode == 0
    done = llem("import", file, "--store", other.path)
    assert done.returncode == 2
    assert "llem collect STORE --into OTHER brings the runs of one store into another" in done.stderr
    assert llem("collect", store.path, "--into", other.path).returncode == 0
    shown = [llem("show", "one", "--json", "--store", place.path).stdout for place in (store, other)]
    assert shown[0] == shown[1] != ""


def test_what_cannot_be_right_leaves_the_store_as_it_was(store: Store, tmp_path: Path) -> None:
    """The error names the file and the field."""
    path = tmp_path / "odd.json"
    path.write_text(document(total_tokens=-70))
    with pytest.raises(ExportError, match=r"odd\.json: field total_tokens: found -70"):
        import_result(path, store)
    assert list(store.log_path.iterdir()) == []


def test_several_files_are_taken_as_far_as_they_can_be(llem: Run, store: Store, tmp_path: Path) -> None:
    """One that is refused has its line and status 1, the others are taken; where none is, the status is 2."""
    (odd := tmp_path / "odd.json").write_text(document(total_tokens=-70))
    (other := tmp_path / "other.json").write_text(document(total_tokens=5))
    done = llem("import", odd, ORIGINAL, other, "--store", store.path)
    assert (done.returncode, len(done.stdout.split()), len(done.stderr.splitlines())) == (1, 2, 1)
    assert sorted(done.stdout.split()) == store.experiment_ids()
    again = llem("import", odd, ORIGINAL, "--store", store.path)
    assert (again.returncode, again.stdout, len(again.stderr.splitlines())) == (2, "", 2)
    assert llem("import", odd, "--store", store.path).returncode == 2


SECRET = "hf_" + "aB3dE5gH7jK9" * 3


@pytest.mark.parametrize("keep_bytes", [False, True])
def test_a_secret_in_a_file_is_kept_only_where_it_is_asked_for(
    llem: Run, store: Store, tmp_path: Path, keep_bytes: bool
) -> None:
    """A token in a configuration is in no event and on no screen, unless every byte is to be kept; a second import is refused either way."""
    path = tmp_path / f"{SECRET}.json"
    path.write_text(
        document(effective_config={"model": "m", "hf_token": "abcdefgh", "argv": f"--key {SECRET}"})
    )
    asked = ["--keep-bytes"] if keep_bytes else []
    assert llem("import", path, *asked, "--store", store.path).returncode == 0
    (segment,) = store.segments(store.experiment_ids()[0])
    with SegmentReader(segment) as reader:
        events = [unpack(found) for block in reader.blocks() for found in reader.events(block)]
    (kept,) = [event for event in events if isinstance(event, ResultImported)]
    assert kept.bytes_kept is keep_bytes
    assert (kept.original == path.read_bytes()) is keep_bytes
    assert (SECRET.encode() in kept.original, b"abcdefgh" in kept.original) == (keep_bytes, keep_bytes)
    shown = llem("show", "@last", "--json", "--store", store.path)
    assert (shown.returncode, SECRET in shown.stdout) == (0, keep_bytes)
    assert "already been imported" in llem("import", path, "--store", store.path).stderr


def test_a_missing_file_is_refused(store: Store, tmp_path: Path) -> None:
    """So is one that is not there."""
    with pytest.raises(ExportError, match="cannot be read"):
        import_result(tmp_path / "none.json", store)


def test_what_is_no_regular_file_is_refused_at_once(store: Store, tmp_path: Path) -> None:
    """A pipe to which nobody writes is not waited for, and a folder is no result."""
    os.mkfifo(tmp_path / "pipe")
    for path, what in (
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "is a folder without results of LLenergyMeasure"),
    ):
        with pytest.raises(ExportError, match=what):
            import_result(path, store)
    assert not list(store.experiment_ids())


@pytest.mark.slow
def test_a_file_over_the_limit_is_refused(store: Store, tmp_path: Path) -> None:
    """It would not fit into one event; nothing is written."""
    path = tmp_path / "large.json"
    path.write_bytes(json.dumps(FIELDS | {"timeseries": "x" * 2**23}).encode())
    with pytest.raises(ExportError, match="too large"):
        import_result(path, store)
    assert not store.log_path.exists() or list(store.log_path.iterdir()) == []


def test_an_import_that_broke_off_can_be_repeated(store: Store) -> None:
    """A disk that takes no more leaves no half experiment behind."""
    command = ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", LLEM, "import", str(ORIGINAL)]
    broken = subprocess.run(
        [*command, "--store", str(store.path)], capture_output=True, text=True, check=False
    )
    assert broken.returncode != 0 and "File too large" in broken.stderr
    assert list(store.log_path.iterdir()) == []
    assert store.experiment_ids() == [] and import_result(ORIGINAL, store).experiment_ids
