"""CSV exports: columns that never change, empty cells for None, zeros kept, formulas neutralised."""

import csv
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem.errors import ExportError
from llem.export import ResultsExporter, export_aggregated_to_csv, export_raw_to_csv
from tests.export.records import EMPTY, EVIL, FULL, process

GOLDEN = Path(__file__).parent / "golden"
PREDECESSOR = [
    "experiment_id",
    "schema_version",
    "measurement_config_hash",
    "start_time",
    "end_time",
    "duration_sec",
    "num_processes",
    "total_tokens",
    "energy_raw_j",
    "avg_tokens_per_second",
    "tokens_per_joule",
    "avg_energy_per_token_j",
    "total_flops",
    "total_inference_time_sec",
    "aggregation_method",
    "temporal_overlap_verified",
    "gpu_attribution_verified",
    "warnings",
    "measurement_methodology",
    "steady_state_window",
    "energy_adjusted_j",
    "energy_baseline_w",
    "energy_baseline_method",
    "thermal_throttle_detected",
    "thermal_throttle_duration_sec",
    "thermal_max_temp_c",
    "env_gpu_name",
    "env_gpu_vram_mb",
    "env_cuda_version",
    "env_driver_version",
    "env_gpu_temp_c",
    "env_power_limit_w",
    "env_cpu_governor",
    "env_in_container",
    "env_summary",
    "gpu_util_mean_pct",
    "gpu_mem_peak_mb",
    "latency_e2e_mean_ms",
    "latency_e2e_p95_ms",
    "batch_effective_size",
    "kv_cache_hit_rate",
    "timeseries",
]


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def header(path: Path) -> list[str]:
    """The first row of a CSV file."""
    with open(path, encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def assert_golden(path: Path, update: bool) -> None:
    """Equal to the golden file byte for byte, which an update renews."""
    golden = GOLDEN / path.name
    if update:
        golden.write_bytes(path.read_bytes())
    assert path.read_bytes() == golden.read_bytes()


def test_aggregated_csv_is_golden(tmp_path: Path, update: bool) -> None:
    """The aggregated export is byte for byte what it was."""
    assert_golden(export_aggregated_to_csv([FULL, EMPTY], tmp_path / "aggregated.csv"), update)


def test_aggregated_csv_with_processes_is_golden(tmp_path: Path, update: bool) -> None:
    """So is the one with four columns per process."""
    path = tmp_path / "aggregated_processes.csv"
    assert_golden(export_aggregated_to_csv([FULL, EMPTY], path, include_process_breakdown=True), update)


def test_raw_csv_is_golden(tmp_path: Path, update: bool) -> None:
    """The export of processes is byte for byte what it was."""
    assert_golden(export_raw_to_csv([process(0), process(1)], tmp_path / "raw.csv"), update)


def test_the_predecessors_columns_come_first_in_their_order(tmp_path: Path) -> None:
    """A program that read LLenergyMeasure's export finds every column where it was."""
    columns = header(export_aggregated_to_csv([FULL], tmp_path / "a.csv"))
    assert len(PREDECESSOR) == 42
    assert columns[:42] == PREDECESSOR
    assert {"model_name", "engine", "dtype", "batch_size", "weights", "energy_source", "valid"} <= set(
        columns[42:]
    )


@pytest.mark.parametrize("results", [[], [FULL], [EMPTY], [FULL, EMPTY]])
def test_columns_do_not_depend_on_the_data(results: list[Any], tmp_path: Path) -> None:
    """Every export has the same header, an empty one too."""
    both = header(export_aggregated_to_csv([FULL, EMPTY], tmp_path / "both.csv"))
    assert header(export_aggregated_to_csv(results, tmp_path / "some.csv")) == both


def test_raw_columns_do_not_depend_on_the_data(tmp_path: Path) -> None:
    """The same for processes."""
    assert header(export_raw_to_csv([], tmp_path / "a.csv")) == header(
        export_raw_to_csv([process(1)], tmp_path / "b.csv")
    )


def test_none_is_empty_and_a_zero_is_a_zero(tmp_path: Path) -> None:
    """A legal 0.0 is written, what was not measured is an empty cell."""
    full, empty = rows(export_aggregated_to_csv([FULL, EMPTY], tmp_path / "a.csv"))
    assert (full["energy_raw_j"], empty["energy_raw_j"]) == ("0.0", "")
    assert (full["itl_median_ms"], empty["itl_median_ms"]) == ("0.0", "")
    assert (full["thermal_throttle_detected"], empty["thermal_throttle_detected"]) == ("false", "")
    assert (full["energy_baseline_w"], full["energy_adjusted_j"]) == ("0.6", "-12.25")


def test_processes_have_their_real_indices(tmp_path: Path) -> None:
    """With index 0 missing nothing is left out, and of two with one index the second has columns of its own."""
    one, two = (msgspec.structs.replace(process(0), process_index=index) for index in (1, 2))
    result = msgspec.structs.replace(FULL, process_results=[one, two, two])
    (row,) = rows(export_aggregated_to_csv([result], tmp_path / "a.csv", include_process_breakdown=True))
    assert {name: row[name] for name in row if name.endswith("_tokens") and name.startswith("process_")} == {
        "process_1_tokens": "500",
        "process_2_tokens": "500",
        "process_2_2_tokens": "500",
    }


def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path) -> None:
    """In text cells only: a negative number is no formula."""
    full, empty = rows(export_aggregated_to_csv([FULL, EMPTY], tmp_path / "a.csv"))
    assert full["model_name"] == "'" + EVIL
    assert empty["experiment_id"] == "'-1+2"
    assert full["energy_adjusted_j"] == "-12.25"


def test_raw_text_can_be_asked_for(tmp_path: Path) -> None:
    """neutralise=False leaves text as it is."""
    (full,) = rows(export_aggregated_to_csv([FULL], tmp_path / "a.csv", neutralise=False))
    assert full["model_name"] == EVIL


def test_an_export_with_an_environment_works(tmp_path: Path) -> None:
    """The hardware is found where it is: in the snapshot's hardware."""
    (full,) = rows(export_aggregated_to_csv([FULL], tmp_path / "a.csv"))
    assert full["env_gpu_name"] == "NVIDIA A100-SXM4-80GB"
    assert full["env_summary"] == "A100-SXM4-80GB 80GB | CUDA 12.4 | Driver 550.54 | 42C"


def test_the_exporter_writes_into_its_folder(tmp_path: Path) -> None:
    """ResultsExporter makes its folder and uses the predecessor's file names."""
    exporter = ResultsExporter(tmp_path / "new" / "folder")
    paths = (
        exporter.export_aggregated([FULL]),
        exporter.export_raw([process(0)]),
        exporter.export_json([FULL]),
    )
    assert [path.name for path in paths] == ["results.csv", "raw_results.csv", "results.json"]
    assert all(path.is_file() for path in paths)


def test_a_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    """Without force an existing file stays; nothing temporary is left."""
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(ExportError, match="--force"):
        export_aggregated_to_csv([FULL], path, force=False)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    """The old file is replaced only by a whole new one."""
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(AttributeError):
        export_aggregated_to_csv(["no result"], path)  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_a_file_is_never_replaced() -> None:
    """/dev/null stays a device."""
    with pytest.raises(ExportError, match="not a file"):
        export_aggregated_to_csv([FULL], Path("/dev/null"))
    assert not Path("/dev/null").is_file()
