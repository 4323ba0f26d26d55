"""The whole road: measure, then ask; every figure checked against the events themselves, read without our code."""

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LLEM, QUICK, SIMULATED, Run, events_of, quiet, segments

BRIEF = (
    "--set",
    "engine.device=cpu",
    "--set",
    "workload.output_tokens.mean=8",
    "--set",
    "windows.warmup_max_batches=5",
)
RESULT = (
    "SELECT experiment_id, status, model_name, weights, input_tokens, output_tokens, total_tokens, requests, processes,"
    " total_energy_j, energy_source, meter, tokens_per_second, valid FROM experiment_results"
)


def asked(llem: Run, sql: str) -> list[dict[str, Any]]:
    """Rows of a query, as objects."""
    done = llem("query", sql, "-f", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def measured_requests(store: Path) -> list[dict[str, Any]]:
    """Requests of the measurement, from the log."""
    batches = [
        body for body in events_of(store, "worker", "requests_completed") if body["window"] == "measurement"
    ]
    return [request for batch in batches for request in batch["requests"]]


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one measurement of the tiny random Llama by two CPU workers."""
    store = tmp_path_factory.mktemp("measured") / "store"
    command = [LLEM, "measure", *QUICK, *BRIEF, "--workers", "2", "--store", store]
    done = subprocess.run(command, capture_output=True, text=True, check=False, umask=0)
    assert done.returncode == 0, done.stderr
    assert "tiny-llama with random weights" in done.stdout
    return store


@pytest.fixture
def measured(measured_once: Path, store: Path) -> Path:
    """A copy of that store, for one test."""
    shutil.copytree(measured_once, store)
    return store


@pytest.mark.torch
@pytest.mark.slow
def test_tables_say_what_the_events_say(measured: Path, llem: Run) -> None:
    """Tokens, requests and energy in DuckDB are the sums over the bare events of two real workers."""
    requests = measured_requests(measured)
    (result,) = asked(llem, RESULT)
    assert (result["status"], result["model_name"], result["weights"]) == (
        "completed",
        "tiny-llama",
        "random",
    )
    assert result["processes"] == 2
    assert result["requests"] == len(requests)
    assert result["input_tokens"] == sum(request["input_tokens"] for request in requests)
    assert result["output_tokens"] == sum(request["output_tokens"] for request in requests)
    assert result["output_tokens"] == sum(len(request["token_times_ns"]) for request in requests)
    completed = events_of(measured, "worker", "process_completed")
    assert result["total_tokens"] == sum(body["input_tokens"] + body["output_tokens"] for body in completed)


@pytest.mark.torch
@pytest.mark.slow
def test_every_segment_is_private(measured_once: Path) -> None:
    """Folders of the store are 0700 and its files 0600, whatever the umask."""
    folders = (measured_once, measured_once / "log", *measured_once.glob("log/*"))
    assert {path.stat().st_mode & 0o777 for path in segments(measured_once)} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


@pytest.mark.slow
def test_energy_is_the_difference_of_the_edges(llem: Run, store: Path) -> None:
    """The energy of a device in the measurement window is its counter at close minus at open, in joules."""
    assert llem("measure", *SIMULATED, *QUICK).returncode == 0
    opened, closed = (
        next(
            body["edges"][0]["energy_mj"]
            for body in events_of(store, "worker", kind)
            if body["kind"] == "measurement"
        )
        for kind in ("window_opened", "window_closed")
    )
    (result,) = asked(llem, RESULT)
    assert result["total_energy_j"] == pytest.approx((closed - opened) / 1000)
    assert (result["energy_source"], result["meter"]) == ("simulated", "simulated")


@pytest.mark.torch
@pytest.mark.slow
def test_an_estimate_is_called_one_everywhere(measured: Path, llem: Run, tmp_path: Path) -> None:
    """Where no sensor was read, table, screen and CSV say `estimated`, and the verdict is not valid."""
    (result,) = asked(llem, RESULT)
    if result["meter"] != "estimate":
        pytest.skip("this machine has a real meter")
    assert (result["energy_source"], result["valid"]) == ("estimated", False)
    assert "J, estimated" in llem("show").stdout
    assert llem("export", tmp_path / "results.csv").returncode == 0
    (row,) = csv.DictReader((tmp_path / "results.csv").read_text().splitlines())
    assert row["energy_source"] == "estimated"


@pytest.mark.slow
def test_the_prompts_of_the_plan_reach_the_engine(llem: Run, store: Path, tmp_path: Path) -> None:
    """Prompts of a file are what the engine gets, byte for byte, and their text stays out of the log unless asked for."""
    prompts = ["hello", "a longer prompt, ä", "x"]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    chosen = (
        "--set",
        "workload.source=file",
        "--set",
        f"workload.path={file}",
        "--set",
        "workload.requests=3",
    )
    assert llem("measure", *SIMULATED, *QUICK, *chosen).returncode == 0
    lengths = [len(prompt.encode()) for prompt in prompts]
    assert [request["input_tokens"] for request in measured_requests(store)[:3]] == lengths
    assert all(b"longer prompt" not in path.read_bytes() for path in segments(store))
    assert not any("prompt" in request for request in measured_requests(store))


@pytest.mark.slow
def test_texts_are_kept_when_asked_for(llem: Run, store: Path, tmp_path: Path) -> None:
    """Each request has its prompt."""
    file = tmp_path / "prompts.txt"
    file.write_text("hello\nx\n")
    chosen = (
        "--set",
        "workload.source=file",
        "--set",
        f"workload.path={file}",
        "--set",
        "workload.requests=2",
    )
    assert llem("measure", *SIMULATED, *QUICK, *chosen, "--set", "workload.record_text=true").returncode == 0
    assert {request.get("prompt") for request in measured_requests(store)} == {"hello", "x"}


@pytest.mark.torch
@pytest.mark.slow
def test_results_survive_a_rebuild(measured: Path, llem: Run) -> None:
    """Replaying the log gives the same tables."""
    before = asked(llem, "FROM experiment_results")
    assert llem("rebuild", "--check").returncode == 0
    assert llem("rebuild").returncode == 0
    assert asked(llem, "FROM experiment_results") == before


@pytest.mark.slow
def test_two_measurements_are_two_rows(llem: Run, store: Path) -> None:
    """A second measurement is caught up with; `runs` shows the newest first, @last is the newest."""
    for name in ("first", "second"):
        assert llem("measure", *SIMULATED, *QUICK, "--name", name).returncode == 0
        assert len(asked(llem, "FROM experiments")) == (1 if name == "first" else 2)
    rows = json.loads(llem("runs", "--json").stdout)
    assert [row["name"] for row in rows] == ["second", "first"]
    assert rows[0]["experiment_id"] in llem("show", "@last").stdout


def test_a_measurement_prints_its_result_as_json(llem: Run) -> None:
    """--json puts the whole result on stdout and nothing else."""
    done = llem("measure", *SIMULATED, *QUICK, "--json", "--label", "gpu=none")
    result = json.loads(done.stdout)
    assert result["total_energy_j"] > 0
    assert result["labels"] == {"gpu": "none"}


@pytest.mark.slow
def test_strict_makes_an_invalid_result_exit_1(llem: Run) -> None:
    """A run of under ten seconds is too short to be valid: with --strict the exit status says so."""
    assert llem("measure", *SIMULATED, *QUICK).returncode == 0
    assert llem("measure", *SIMULATED, *QUICK, "--strict").returncode == 1


@pytest.mark.slow
def test_failed_requests_are_exit_1_and_in_the_table(llem: Run) -> None:
    """A request that fails is counted, named with its error, and told by the exit status."""
    done = llem("measure", *SIMULATED, *QUICK, "--set", "engine.simulated.fail_requests=[3]")
    assert done.returncode == 1
    (row,) = asked(
        llem,
        "SELECT request_id % 32 AS id, error FROM requests WHERE error IS NOT NULL AND window_kind = 'measurement' LIMIT 1",
    )
    assert row["id"] == 3 and row["error"]


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly(llem: Run, environment: dict[str, str]) -> None:
    """A reader that has seen enough is not an error."""
    llem("measure", *SIMULATED, *QUICK)
    command = ["sh", "-c", f"{LLEM} query 'FROM samples, range(100)' -f csv | head -1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("experiment_id,")
    assert quiet(done).stderr == ""
