"""Results of LLenergyMeasure in other shapes than one of v0.8: each figure is the file's, and a zero that stood for nothing is NULL."""

import json
from datetime import UTC as UTC_ZONE
from pathlib import Path
from typing import Any

import pytest

from llem.errors import ExportError
from llem.importers.asked import Asked
from llem.importers.beside_result import is_study
from llem.importers.llenergymeasure import KeptResult
from llem.importers.recording import Recording
from llem.importing import files_in, import_result, understand
from llem.results.predecessor import WITHOUT_ZONE
from llem.store import Store
from tests.importing.files import FORMATS, UTC
from tests.importing.tables import rows, tables

ORIGINAL = json.loads((Path(__file__).parents[1] / "export" / "predecessor_result.json").read_text())


def results(path: Path) -> list[KeptResult]:
    runs = understand(path).runs
    assert all(isinstance(run, KeptResult) for run in runs)
    return [run for run in runs if isinstance(run, KeptResult)]


def written(folder: Path, document: Any) -> Path:
    (path := folder / "results.json").write_text(json.dumps(document))
    return path


def test_a_process_alone_is_an_experiment_of_one() -> None:
    """With its energy, its tokens and its times."""
    (run,) = results(FORMATS / "llenergymeasure/process_0.json")
    result = run.result
    assert (result.total_energy_j, result.total_tokens, result.total_output_tokens) == (5500.0, 1200, 1000)
    assert (result.model_name, result.duration_sec, result.num_processes) == ("example/model", 42.0, 1)
    energy = result.process_results[0].energy_metrics
    assert (energy.gpu_energy_j, energy.cpu_energy_j, energy.ram_energy_j) == (5500.0, None, None)
    assert result.process_results[0].compute_metrics.peak_memory_mb is None


def test_an_aggregated_result_of_before() -> None:
    """Of schema 2.0.0: two processes, and the sums that the file has."""
    (run,) = results(FORMATS / "llenergymeasure/aggregated.json")
    assert (run.result.total_energy_j, run.result.total_tokens, run.result.num_processes) == (
        11000.0,
        2400,
        2,
    )
    assert run.result.measurement_config_hash == "unknown"


def test_a_process_of_today_is_taken_too(tmp_path: Path) -> None:
    """As v0.8 embeds it in a result."""
    process = ORIGINAL["process_results"][0]
    (run,) = results(written(tmp_path, process))
    assert run.result.total_energy_j == process["energy_metrics"]["total_energy_j"]


@pytest.mark.parametrize("shape", ["list", "study"])
def test_several_results_are_several_experiments(tmp_path: Path, shape: str) -> None:
    """Each with its part of the file."""
    items = [ORIGINAL, ORIGINAL | {"total_tokens": 7}]
    path = written(tmp_path, items if shape == "list" else {"experiments": items, "name": "study"})
    first, second = results(path)
    assert (first.result.total_tokens, second.result.total_tokens) == (ORIGINAL["total_tokens"], 7)
    assert second.original is not None and json.loads(second.original)["total_tokens"] == 7


def test_one_that_cannot_be_right_is_named(tmp_path: Path) -> None:
    """By its place in the file; none is taken."""
    path = written(tmp_path, [ORIGINAL, ORIGINAL | {"total_tokens": -7}])
    with pytest.raises(ExportError, match="result 2: field total_tokens: found -7"):
        understand(path)


STUDIES = sorted((FORMATS / "llenergymeasure").glob("study-*"))


@pytest.fixture(scope="module", params=STUDIES, ids=lambda folder: folder.name)
def study(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Path], Store, list[str]]:
    """A folder of a study, its results, and the store that took them."""
    files = files_in(request.param)
    store = Store(tmp_path_factory.mktemp("study") / "store").create()
    return request.param, files, store, [import_result(file, store).experiment_ids[0] for file in files]


Study = tuple[Path, list[Path], Store, list[str]]


def test_a_study_is_its_results_in_the_order_of_running(study: Study) -> None:
    """Those that its manifest names as completed, with cycle and place as labels."""
    folder, files, store, ids = study
    assert [file.parent.name[:6] for file in files] == ["001_c1", "002_c1", "003_c2"]
    with tables(store) as connection:
        told = rows(connection, "SELECT labels FROM experiment_results ORDER BY start_ns")
    assert [(row["labels"]["cycle"], row["labels"]["position"]) for row in told] == [
        ("1", "1"),
        ("1", "2"),
        ("2", "3"),
    ]
    assert {row["labels"]["study"] for row in told} == {"batch size"}
    assert is_study(folder) and len(set(ids)) == 3


def test_figures_of_a_study_are_the_files_own(study: Study) -> None:
    """Of every version; FLOPs of 0 stood for nothing, and the surroundings stand in a file of their own."""
    _, files, store, _ = study
    with tables(store) as connection:
        taken = rows(connection, "FROM experiment_results ORDER BY start_ns")
    for row, file in zip(taken, files, strict=True):
        own = json.loads(file.read_text())
        for name in ("total_energy_j", "total_tokens", "output_tokens", "energy_adjusted_j", "model_name"):
            assert row[name] == own[name], name
        assert (row["engine"], row["baseline_power_w"]) == ("vllm", 98.0)
        assert row["total_flops"] == (own["total_flops"] or None)
    assert [row["gpu_name"] for row in taken] == ["NVIDIA A100-SXM4-80GB", None, None]
    assert [row["cuda_version"] for row in taken] == ["12.4", None, None]


def test_samples_beside_a_result_are_samples(study: Study) -> None:
    """Those of its Parquet file, a second each, on the clock of the run; the result keeps its own energy."""
    _, files, store, ids = study
    with tables(store) as connection:
        table = rows(connection, "FROM read_parquet(?)", [str(files[0].parent / "timeseries.parquet")])
        taken = rows(
            connection, "FROM timed_samples WHERE experiment_id = ? ORDER BY device_uuid, at_sec", ids[:1]
        )
        assert rows(connection, "SELECT DISTINCT experiment_id AS id FROM samples") == [{"id": ids[0]}]
    own = sorted(table, key=lambda row: (row["gpu_index"], row["timestamp_s"]))
    assert [row["power_w"] for row in taken] == pytest.approx([row["power_w"] for row in own], abs=6e-4)
    assert [row["throttle_reasons"] for row in taken] == [row["throttle_reasons"] for row in own]
    assert [row["at_sec"] for row in taken[:13]] == pytest.approx([*range(1, 13), 12.375])
    assert {row["meter"] for row in taken} == {"imported:llenergymeasure"}


def test_what_a_result_names_and_is_not_there_has_its_reason(study: Study, tmp_path: Path) -> None:
    """A copy without its folder has no samples and no labels of a study."""
    (alone := tmp_path / "result.json").write_bytes(study[1][0].read_bytes())
    (run,) = results(alone)
    assert (run.samples, run.labels) == (None, {})
    assert [line.reason for line in run.mapping if line.column == "samples"] == [
        "no timeseries.parquet stands beside the file"
    ]


def test_a_table_that_is_none_refuses_the_result(study: Study, tmp_path: Path) -> None:
    """In one line that names it."""
    (tmp_path / "result.json").write_bytes(study[1][0].read_bytes())
    (tmp_path / "timeseries.parquet").write_bytes(b"PAR1")
    with pytest.raises(ExportError, match=r"timeseries\.parquet cannot be read") as raised:
        understand(tmp_path / "result.json")
    assert "\n" not in str(raised.value)


def test_a_manifest_alone_is_told_from_a_result() -> None:
    """Its folder is what is imported."""
    with pytest.raises(ExportError, match="import the folder"):
        understand(STUDIES[0] / "manifest.json")


def test_readings_of_a_process_before_the_tables(tmp_path: Path) -> None:
    """JSON beside the result of a process, ten a second."""
    process = json.loads((FORMATS / "llenergymeasure/process_0.json").read_text())
    path = written(
        tmp_path, process | {"schema_version": "3.0.0", "timeseries_path": "process_0_timeseries.json"}
    )
    samples = [
        {"t": n / 10, "power_w": 300.25, "mem_mb": 1.0, "temp_c": 40, "sm_pct": 9.6, "throttle": False}
        for n in range(5)
    ]
    (tmp_path / "process_0_timeseries.json").write_text(json.dumps({"process_index": 0, "samples": samples}))
    (run,) = results(path)
    assert run.samples is not None
    (gpu,) = run.samples.gpus
    assert [(reading.at_ns, reading.power_mw) for reading in gpu.readings[:2]] == [
        (0, 300_250),
        (10**8, 300_250),
    ]


def test_an_energy_that_was_not_read_is_null(tmp_path: Path) -> None:
    """The months before v0.7 wrote 0 and said that reading had failed."""
    old = json.loads((FORMATS / "llenergymeasure/aggregated.json").read_text())
    path = written(
        tmp_path, old | {"schema_version": "3.0.0", "energy_tracking_failed": True, "total_energy_j": 0.0}
    )
    (run,) = results(path)
    assert run.result.total_energy_j is None and run.result.total_tokens == old["total_tokens"]


def test_cycles_are_several_experiments(tmp_path: Path) -> None:
    """Each with the number of its cycle."""
    old = json.loads((FORMATS / "llenergymeasure/aggregated.json").read_text())
    path = written(tmp_path, {"schema_version": "3.0.0", "num_cycles": 2, "cycle_results": [old, old]})
    assert [run.labels for run in results(path)] == [{"cycle": "1"}, {"cycle": "2"}]


@pytest.mark.parametrize("name", ["x" * 2**12, "\0", "\ud800", "..", "/etc/hostname", 5, [1]])
def test_an_odd_name_in_a_manifest_leads_nowhere(name: Any, tmp_path: Path) -> None:
    """Nor out of the folder: what lies in it is taken."""
    (tmp_path / "manifest.json").write_text(json.dumps({"experiments": [{"result_file": name}]}))
    path = tmp_path / "result.json"
    path.write_bytes((FORMATS / "llenergymeasure/aggregated.json").read_bytes())
    assert files_in(tmp_path) == [path]
    assert results(path)[0].labels == {}


def configuration_run(number: str, processes: int, **energies_kwh: float) -> dict[str, Any]:
    """As v0.2 appended one to its list."""
    of_processes = {
        name: {f"process_{index}": energy for index in range(processes)}
        for name, energy in energies_kwh.items()
    }
    results = {
        "inference_metrics": {
            "raw_inference_metrics": {
                "number_input_prompts": 128,
                "total_input_tokens": 16384,
                "total_generated_tokens": 15592,
            },
            "inference_performance": {"total_inference_time_sec": 67.5, "throughput_tokens_per_sec": 230.0},
        },
        "global_energy_metrics": {"local_process_results": of_processes},
    }
    setup = {"date_time": "April 16, 2025 at 09:30:16 AM", "model": "example/model", "gpu_model": "4 x A100"}
    return {
        f"CONFIGURATION_RUN_#{number}": {
            "setup": setup,
            "variables": {"config_name": "R2"},
            "results": results,
        }
    }


def test_lists_from_before_there_was_a_schema(tmp_path: Path) -> None:
    """Tokens, times and the energies of one process; of several, nobody knows what each tracked. Every process appended its run: it counts once."""
    one = configuration_run("0442", 1, gpu_energy=0.001, cpu_energy=0.0005, ram_energy=0.0)
    two = configuration_run("0443", 2, gpu_energy=0.001, cpu_energy=0.0005, ram_energy=0.0)
    file = understand(written(tmp_path, [one, two, two]), asked=UTC)
    runs = [run for run in file.runs if isinstance(run, Recording)]
    assert (file.format, [run.labels["imported_id"][-4:] for run in runs]) == (
        "llenergymeasure",
        ["0442", "0443"],
    )
    assert [run.work.output_tokens for run in runs if run.work] == [15592, 15592]
    closed = [[edge.energy_mj for edge in run.measurements[0].closed] for run in runs]
    assert closed == [[3_600_000, 1_800_000, None], [None, None, None]]
    assert f"{runs[0].began:%Y-%m-%d %H:%M:%S}" == "2025-04-16 09:30:16"
    reasons = [line.reason for line in runs[1].mapping if line.column == "energy_gpu_j"]
    assert reasons and "every process tracked it" in str(reasons[0])


@pytest.mark.parametrize(
    ("zone", "began", "is_told"),
    [(None, "2025-12-20T12:00:00.500000+00:00", True), ("+02:00", "2025-12-20T10:00:00.500000+00:00", False)],
)
def test_times_without_a_zone_are_those_of_the_zone_that_is_named(
    zone: str | None, began: str, *, is_told: bool
) -> None:
    """Else of UTC, with a warning; the times of its processes go with them, and durations stay."""
    (run,) = understand(FORMATS / "llenergymeasure/aggregated.json", asked=Asked(timezone=zone)).runs
    assert isinstance(run, KeptResult)
    result = run.result
    assert result.start_time.astimezone(UTC_ZONE).isoformat() == began
    assert (WITHOUT_ZONE in result.measurement_warnings) == is_told
    assert result.duration_sec == 42.0
    assert {process.timestamps.start.utcoffset() for process in result.process_results} == {
        result.start_time.utcoffset()
    }
