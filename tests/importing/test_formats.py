"""Files that real programs wrote: each is recognised, imported with the figures of its own, and says why the others are NULL."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from llem.errors import ExportError
from llem.importing import import_result, understand
from llem.registry import IMPORTERS
from llem.results.predecessor import FORMAT
from llem.store import Store
from tests.importing.files import FILES, FORMATS, UTC, asked, unpacked
from tests.importing.tables import rows, tables

GOLDENS = Path(__file__).parent / "golden"
Imported = tuple[duckdb.DuckDBPyConnection, dict[str, list[str]]]
SHOWN = (
    "SELECT start_time::VARCHAR AS start_time, engine, meter, model_name, status, invalid_reasons, duration_sec, input_tokens, output_tokens, "
    "requests, failed_requests, total_energy_j, energy_gpu_j, energy_cpu_j, energy_dram_j, energy_source, energy_uncertainty_j, baseline_power_w, "
    "ttft_median_ms, itl_median_ms, e2e_median_ms, output_tokens_per_second, labels FROM experiment_results WHERE experiment_id = $1"
)
WINDOWS = "SELECT kind, device_uuid, duration_sec, energy_j, energy_source, reason FROM windows WHERE experiment_id = $1 ORDER BY ALL"
COUNTS = """
SELECT (SELECT count(*) FROM samples WHERE experiment_id = $1) AS samples, (SELECT count(*) FROM requests WHERE experiment_id = $1) AS requests
"""
WARNINGS = "SELECT code, text FROM warnings WHERE experiment_id = $1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="module")
def imported(folder: Path) -> Iterator[Imported]:
    """One store with all of them, and which runs are of which file."""
    store = Store(folder / "store").create()
    runs = {
        name: list(import_result(unpacked(name, folder), store, asked=asked(name)).experiment_ids)
        for name in FILES
    }
    with tables(store) as connection:
        yield connection, runs


def shown(connection: duckdb.DuckDBPyConnection, run: str) -> Iterator[tuple[str, Any]]:
    """What a run became, without the figures that it has not."""
    (result,) = rows(connection, SHOWN, [run])
    yield "result", {name: _short(value) for name, value in result.items() if value is not None}
    windows = rows(connection, WINDOWS, [run])
    yield "windows", [{name: _short(value) for name, value in window.items()} for window in windows]
    yield "warnings", rows(connection, WARNINGS, [run])
    yield "counts", rows(connection, COUNTS, [run])


def _short(value: Any) -> Any:
    """A figure to the microsecond and microjoule, so that it is the same everywhere."""
    return round(value, 6) if isinstance(value, float) else value


@pytest.mark.parametrize("name", FILES)
def test_a_file_becomes_what_it_became(
    name: str,
    imported: Imported,
    folder: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Its figures and its mapping are those of a golden file."""
    connection, runs = imported
    file = understand(unpacked(name, folder), asked=asked(name))
    assert file.format.removesuffix("-2.0") == FILES[name]
    # a result's is every figure that llem knows
    told = [[] if file.format == FORMAT else run.mapping for run in file.runs]
    mapping = [
        [f"{column}: {source or f'NULL, {reason}'}" for column, source, reason in lines] for lines in told
    ]
    found = [
        {"mapping": lines, **dict(shown(connection, run))}
        for lines, run in zip(mapping, runs[name], strict=True)
    ]
    text = json.dumps(found, indent=1, default=str) + "\n"
    golden = GOLDENS / f"{name.replace('/', '-')}.json"
    if request.config.getoption("--update-goldens"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert json.loads(text) == json.loads(golden.read_text())


def test_every_format_has_a_file() -> None:
    """That a program wrote, or one like it."""
    assert {*FILES.values()} == {*IMPORTERS}


def result_of(imported: Imported, name: str) -> dict[str, Any]:
    connection, runs = imported
    return dict(shown(connection, runs[name][0]))["result"]


def test_figures_are_the_files_own(imported: Imported, folder: Path) -> None:
    """Medians as each program counts them, where its clock starts where llem's does."""
    vllm = json.loads((FORMATS / "vllm/openai-chat.json").read_text())
    ours = result_of(imported, "vllm/openai-chat.json")
    assert ours["ttft_median_ms"] == pytest.approx(vllm["median_ttft_ms"], rel=1e-6)
    assert ours["e2e_median_ms"] == pytest.approx(vllm["median_e2el_ms"], rel=1e-2)
    assert (ours["input_tokens"], ours["output_tokens"]) == (
        vllm["total_input_tokens"],
        vllm["total_output_tokens"],
    )
    aiperf = json.loads((FORMATS / "aiperf/profile_export_aiperf.json").read_text())
    ours = result_of(imported, "aiperf/profile_export.jsonl")
    assert ours["ttft_median_ms"] == pytest.approx(aiperf["time_to_first_token"]["p50"], rel=1e-6)
    assert ours["e2e_median_ms"] == pytest.approx(aiperf["request_latency"]["p50"], rel=1e-3)
    assert ours["output_tokens"] == aiperf["total_osl"]["avg"]
    guidellm = json.loads(unpacked("guidellm/benchmarks.json.gz", folder).read_text())["benchmarks"][0]
    ours = result_of(imported, "guidellm/benchmarks.json.gz")
    own = guidellm["metrics"]["time_to_first_token_ms"]["successful"]["median"]
    assert ours["ttft_median_ms"] == pytest.approx(own, rel=1e-6)


def test_several_benchmarks_are_several_runs(folder: Path, tmp_path: Path) -> None:
    """Each with its part of the file; a second import takes none of them."""
    document = json.loads(unpacked("guidellm/benchmarks.json.gz", folder).read_text())
    later = json.loads(json.dumps(document["benchmarks"][0]))
    (path := tmp_path / "two.json").write_text(
        json.dumps({**document, "benchmarks": [document["benchmarks"][0], later]})
    )
    store = Store(tmp_path / "store").create()
    done = import_result(path, store)
    assert len(done.experiment_ids) == 2 and sorted(done.experiment_ids) == store.experiment_ids()
    with pytest.raises(ExportError, match="already been imported"):
        import_result(path, store)


def test_a_sample_of_requests_is_not_taken_for_all(folder: Path, tmp_path: Path) -> None:
    """GuideLLM may keep some: then its totals are taken, and there are no requests."""
    document = json.loads(unpacked("guidellm/benchmarks.json.gz", folder).read_text())
    requests = document["benchmarks"][0]["requests"]
    requests["successful"] = requests["successful"][:3]
    (path := tmp_path / "some.json").write_text(json.dumps(document))
    (run,) = understand(path).runs
    assert (
        run.requests is None
        and run.work is not None
        and (run.work.output_tokens, run.work.requests) == (144, 10)
    )
    assert any("only 4 of 10" in str(line.reason) for line in run.mapping)


def test_vllm_without_details_has_totals(tmp_path: Path) -> None:
    """And the reason why it has no requests; several lines are several runs, and energy is that of its counters."""
    fields = json.loads((FORMATS / "vllm/openai-chat.json").read_text())
    del fields["start_times"]
    line = json.dumps(fields | {"gpu_energy_j": 123.4567, "energy_gpu_ids": [0, 1]})
    (path := tmp_path / "runs.json").write_text(f"{line}\n{line}\n")
    runs = understand(path, asked=UTC).runs
    assert len(runs) == 2
    assert [run.work.output_tokens for run in runs] == [144, 144]
    assert [run.measurements[0].closed[0].energy_mj for run in runs] == [123457, 123457]
    assert any("start_times" in str(line.reason) for line in runs[0].mapping)


def test_aiperfs_table_names_the_better_file() -> None:
    """It does not tell when it was."""
    with pytest.raises(ExportError, match=r"profile_export\.jsonl"):
        understand(FORMATS / "aiperf/profile_export_aiperf.csv")
