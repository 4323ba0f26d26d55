"""Results of LLenergyMeasure in other shapes than one of v0.8: each figure is the file's, and a zero that stood for nothing is NULL."""

import json
from pathlib import Path
from typing import Any

import pytest

from llem.errors import ExportError
from llem.importers.llenergymeasure import KeptResult
from llem.importing import understand
from tests.importing.files import FORMATS

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
