"""Several `llem measure` that know of each other measure one experiment."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LIMIT_S, LLEM, QUICK, SIMULATED, Run, events_of, segments, wait_until
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import ON_GPUS, gpus
from tests.simulated_nvml.build import environment as simulated_environment
from tests.simulated_nvml.build import has_compiler
from tests.simulated_nvml.scenario import uuid_of

pytestmark = pytest.mark.slow
Done = subprocess.CompletedProcess[str]


def together(environment: dict[str, str], *ranks: list[object], **variables: str) -> list[Done]:
    """Run each list of arguments as one rank, side by side, to their ends."""
    started = start(environment, *ranks, **variables)
    ends = [process.communicate(timeout=LIMIT_S) for process in started]
    return [Done(process.args, process.returncode, *end) for process, end in zip(started, ends, strict=True)]


def start(environment: dict[str, str], *ranks: list[object], **variables: str) -> list[subprocess.Popen[str]]:
    """The same, begun."""
    return [
        subprocess.Popen(
            [LLEM, "measure", *map(str, arguments)],
            env={**environment, **variables, "LLEM_RANK": str(rank), "LLEM_SIZE": str(len(ranks))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, arguments in enumerate(ranks)
    ]


@pytest.fixture
def meeting() -> dict[str, str]:
    """Where ranks of this test meet."""
    return {"LLEM_RENDEZVOUS": "127.0.0.1", "LLEM_JOB": f"test-{os.getpid()}-{os.urandom(4).hex()}"}


def test_two_ranks_measure_one_experiment(
    environment: dict[str, str], meeting: dict[str, str], store: Path, llem: Run
) -> None:
    """One folder, two processes of consecutive indices, one result, printed by rank 0 alone."""
    first, second = together(environment, *[[*SIMULATED, *QUICK]] * 2, **meeting)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert len(list((store / "log").iterdir())) == 1
    assert (second.stdout, second.stderr) == ("", "")
    assert "processes" in first.stdout
    assert len(segments(store, "supervisor")) == len(segments(store, "rank")) == 1
    started = events_of(store, "worker", "process_started")
    assert sorted(event.get("process_index", 0) for event in started) == [0, 1]
    told = llem("query", "FROM experiments SELECT status, expected_processes", "-f", "jsonl").stdout
    assert '"completed"' in told and "2" in told


def test_ranks_of_two_plans_are_refused_before_anything_is_written(
    environment: dict[str, str], meeting: dict[str, str], store: Path
) -> None:
    """Each ends with status 2, and rank 0 says why."""
    first, second = together(
        environment, [*SIMULATED, *QUICK], [*SIMULATED, *QUICK, "--workers", 2], **meeting
    )
    assert (first.returncode, second.returncode) == (2, 2)
    assert "another plan or command" in first.stderr
    assert not segments(store)


def test_a_missing_rank_is_named(environment: dict[str, str], meeting: dict[str, str], store: Path) -> None:
    """Rank 0 waits so long as it was told, then says who did not come."""
    variables = {**meeting, "LLEM_RANK": "0", "LLEM_SIZE": "3", "LLEM_RENDEZVOUS_S": "0.5"}
    done = subprocess.run(
        [LLEM, "measure", *SIMULATED, *QUICK],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 2
    assert "ranks 1-2 did not come within 0.5 s" in done.stderr
    assert not segments(store)


def test_logs_of_separate_stores_are_collected_before_the_result(
    environment: dict[str, str], meeting: dict[str, str], tmp_path: Path, llem: Run
) -> None:
    """Each rank writes to a folder of its own machine; rank 0 shows what all have brought together."""
    into = tmp_path / "all"
    arguments = [*SIMULATED, *QUICK, "--collect", into]
    ranks = [[*arguments, "--store", tmp_path / f"node-{rank}"] for rank in range(2)]
    first, second = together(environment, *ranks, **meeting)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert len(segments(into, "worker")) == 2
    assert [len(segments(tmp_path / f"node-{rank}", "worker")) for rank in range(2)] == [1, 1]
    assert "processes                           2" in first.stdout
    told = llem("query", "--store", into, "FROM experiments SELECT status", "-f", "csv").stdout
    assert "completed" in told


def test_logs_that_lie_elsewhere_are_told(
    environment: dict[str, str], meeting: dict[str, str], tmp_path: Path
) -> None:
    """Rank 0 says that its store has not all, and what brings the logs together."""
    ranks = [[*SIMULATED, *QUICK, "--store", tmp_path / f"node-{rank}"] for rank in range(2)]
    first, second = together(environment, *ranks, **meeting)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "logs of 1 of 2 processes are not in this store: `llem collect`" in first.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes namespaces")
@pytest.mark.skipif(not has_compiler(), reason="a wrong wall clock is compiled")
@best_of_rounds
def test_a_host_whose_clocks_are_wrong_is_placed(
    environment: dict[str, str], meeting: dict[str, str], store: Path, llem: Run, tmp_path: Path
) -> None:
    """A second host, its monotonic clock an hour ahead and its wall clock two seconds: both offsets are found, and the windows lie side by side."""
    arguments = [*SIMULATED, *QUICK, "--set", "validity.max_clock_error=0.9"]
    other = ["unshare", "--uts", "--time", "--fork", "--monotonic", "3600"]
    script = "hostname node-b && exec " + " ".join(map(str, [LLEM, "measure", *arguments]))
    wrong = {"LD_PRELOAD": str(wall_clock(tmp_path)), "WALL_CLOCK_AHEAD_S": "2"}
    ranks = {**environment, **meeting, "LLEM_SIZE": "2"}
    second = subprocess.Popen([*other, "sh", "-c", script], env={**ranks, **wrong, "LLEM_RANK": "1"})
    first = subprocess.run(
        [LLEM, "measure", *arguments, "--json"],
        env={**ranks, "LLEM_RANK": "0"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (first.returncode, second.wait(LIMIT_S)) == (0, 0), first.stderr
    result = json.loads(first.stdout)
    with delays():  # of windows that open together
        assert "clocks_apart" not in {reason["code"] for reason in result["invalid_reasons"]}
    told = llem("query", "FROM hosts SELECT * ORDER BY rank", "-f", "jsonl").stdout
    hosts = [json.loads(line) for line in told.splitlines()]
    assert hosts[1]["host"] == "node-b" != hosts[0]["host"]
    assert abs(hosts[1]["monotonic_offset_ns"] - 3600 * 10**9) <= hosts[1]["clock_error_ns"]
    assert abs(hosts[1]["clock_offset_ns"] - 2 * 10**9) <= hosts[1]["clock_error_ns"] + 10**6
    assert hosts[1]["placement_error_ns"] >= hosts[1]["clock_error_ns"]
    longest_sec = max(
        process["inference_metrics"]["inference_time_sec"] for process in result["process_results"]
    )
    assert longest_sec <= result["measured_sec"]
    with delays():
        assert result["measured_sec"] < longest_sec + 1
    assert result["tokens_per_second"] == pytest.approx(result["total_tokens"] / result["measured_sec"])


def wall_clock(folder: Path) -> Path:
    """A library that makes the wall clock of a program wrong."""
    library, source = folder / "wall_clock.so", Path(__file__).with_name("wall_clock.c")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", source, "-o", library], check=True)
    return library


def test_programs_of_two_ranks_start_together(
    environment: dict[str, str], meeting: dict[str, str], store: Path
) -> None:
    """A program that every rank wraps begins at one moment, however long each took to come so far."""
    wrapped = ["--meter", "simulated", "--set", "windows.baseline_s=0.2", "--", "sleep", "1"]
    first, second = together(environment, wrapped, wrapped, **meeting)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert len(measuring(store)) == 2
    assert len(list((store / "log").iterdir())) == 1


def test_a_rank_that_is_killed_leaves_the_others_to_their_end(
    environment: dict[str, str], meeting: dict[str, str], store: Path, llem: Run
) -> None:
    """The experiment is incomplete, not valid, and names the rank; what the lost one wrote is there."""
    arguments = [*SIMULATED, *QUICK, "--set", "workload.min_duration_s=4"]
    started = start(environment, arguments, arguments, **meeting)
    wait_until(lambda: len(measuring(store)) == 2)
    started[1].kill()
    out, err = started[0].communicate(timeout=LIMIT_S)
    started[1].communicate(timeout=LIMIT_S)
    assert started[0].returncode == 1, err
    assert "rank 1 on" in err and "was lost" in err
    assert "not valid" in out
    rows = llem("query", "FROM warnings SELECT code, text", "-f", "csv").stdout
    assert 'rank_lost,"rank 1 on' in rows
    told = llem("query", "FROM experiments SELECT status, problem", "-f", "csv").stdout
    assert 'incomplete,"rank 1 on' in told
    completed = events_of(store, "worker", "process_completed")
    assert len(completed) == 1


@best_of_rounds
def test_the_others_say_that_rank_0_was_killed(
    environment: dict[str, str], meeting: dict[str, str], store: Path
) -> None:
    """Their own parts are whole, the experiment is not: status 1."""
    arguments = [*SIMULATED, *QUICK, "--set", "workload.min_duration_s=2"]
    first, second = start(environment, arguments, arguments, **meeting)
    wait_until(lambda: len(measuring(store)) == 2)
    first.kill()
    out, err = second.communicate(timeout=LIMIT_S)
    first.communicate(timeout=LIMIT_S)
    with delays():  # it was killed before its end
        assert second.returncode == 1
    assert out == "" and "rank 0 was lost" in err
    assert len(events_of(store, "worker", "process_completed")) == 1


def measuring(store: Path) -> list[dict[str, object]]:
    """Measurement windows that were opened."""
    opened = events_of(store, "worker", "window_opened") if segments(store, "worker") else []
    return [event for event in opened if event["kind"] == "measurement"]


@pytest.fixture
def two_gpus(environment: dict[str, str], simulated_nvml: Path) -> dict[str, str]:
    """A machine with two simulated GPUs."""
    simulated = simulated_environment(gpus(2), simulated_nvml)
    return {
        **environment,
        **{name: simulated[name] for name in ("LD_LIBRARY_PATH", "SIMULATED_NVML_SCENARIO")},
    }


def test_doctor_says_what_each_rank_would_have(
    two_gpus: dict[str, str], meeting: dict[str, str], store: Path
) -> None:
    """Each with its GPU, and how well its clock is known."""
    variables = {**two_gpus, **meeting, "LLEM_SIZE": "2"}
    second = subprocess.Popen([LLEM, "doctor", "--ranks"], env={**variables, "LLEM_RANK": "1"})
    first = subprocess.run(
        [LLEM, "doctor", "--ranks", "--json"],
        env={**variables, "LLEM_RANK": "0"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (first.returncode, second.wait(LIMIT_S)) == (0, 0), first.stderr
    facts = json.loads(first.stdout)
    assert [fact["gpus"] for fact in facts] == [[uuid_of(0)], [uuid_of(1)]]
    assert [fact["clock_error_us"] is None for fact in facts] == [True, False]
    assert abs(facts[1]["clock_offset_us"]) <= facts[1]["clock_error_us"] + 1
    assert not store.exists()


def test_ranks_of_one_machine_share_out_its_gpus(
    two_gpus: dict[str, str], meeting: dict[str, str], store: Path
) -> None:
    """Each has one of two, and every joule counts once."""
    first, second = together(two_gpus, *[[*ON_GPUS, "--json"]] * 2, **meeting)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    result = json.loads(first.stdout)
    used = [[device["uuid"] for device in process["devices"]] for process in result["process_results"]]
    assert sorted(used) == [[uuid_of(0)], [uuid_of(1)]]
    each_j = [process["energy_metrics"]["total_energy_j"] for process in result["process_results"]]
    assert result["total_energy_j"] == pytest.approx(sum(each_j))
    assert result["aggregation"]["gpu_attribution_verified"] is True


@best_of_rounds
def test_a_gpu_that_two_ranks_claim_is_refused_unless_they_share_it(
    two_gpus: dict[str, str], meeting: dict[str, str], store: Path
) -> None:
    """Status 2 before any window; shared, its energy counts once and is not attributed."""
    twice = [*ON_GPUS, "--gpu", "0", "--json"]
    first, second = together(two_gpus, twice, twice, **meeting)
    assert (first.returncode, second.returncode) == (2, 2)
    assert f"a GPU is claimed twice: found {uuid_of(0)} of" in first.stderr
    assert not segments(store)
    shared = [*twice, "--share"]
    first, second = together(two_gpus, shared, shared, **meeting)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    result = json.loads(first.stdout)
    each_j = [process["energy_metrics"]["total_energy_j"] for process in result["process_results"]]
    with delays():  # of windows that lie side by side
        assert result["total_energy_j"] < 0.8 * sum(each_j)
    assert result["aggregation"]["gpu_attribution_verified"] is False
