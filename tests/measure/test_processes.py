"""A measurement is several processes: it survives the death of any of them, and leaves none behind."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from llem.measure.messages import Channel, PassBarrier, PeerGoneError, ReportDone
from tests.conftest import (
    PATIENCE_S,
    QUICK,
    SIMULATED,
    Run,
    Start,
    bare_events,
    command_line,
    events_of,
    segments,
    wait_until,
)
from tests.delays import best_of_rounds, delays

LONGER = ("--set", "workload.min_duration_s=8")
LONG = ("--set", "workload.min_duration_s=300", "--set", "windows.baseline_s=0.1")


def children(pid: int) -> dict[int, str]:
    """Process id -> command line of every child."""
    found = {}
    for task in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if task.name.isdigit() and f"\nPPid:\t{pid}\n" in (task / "status").read_text():
                found[int(task.name)] = command_line(int(task.name))
    return found


def child(pid: int, module: str) -> int:
    return next(number for number, command in children(pid).items() if f"llem.measure.{module}" in command)


def is_measuring(store: Path, processes: int) -> bool:
    opened = [body for body in _quietly(store, "worker", "window_opened") if body["kind"] == "measurement"]
    return len(opened) == processes


def _quietly(store: Path, role: str, kind: str) -> list[dict[str, object]]:
    return events_of(store, role, kind) if segments(store, role) else []


@pytest.mark.slow
@best_of_rounds
def test_two_workers_measure_at_the_same_time(llem: Run, store: Path) -> None:
    """Two workers and their samplers write a segment each; their measurement windows overlap."""
    done = llem("measure", *SIMULATED, *QUICK, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert len(segments(store)) == 5
    opened = [
        body["edges"][0]["at_ns"]
        for body in events_of(store, "worker", "window_opened")
        if body["kind"] == "measurement"
    ]
    closed = [
        body["edges"][0]["at_ns"]
        for body in events_of(store, "worker", "window_closed")
        if body["kind"] == "measurement"
    ]
    with delays():
        assert max(opened) < min(closed)


@pytest.mark.slow
def test_workers_take_different_prompts(llem: Run, store: Path) -> None:
    """Every prompt goes to one worker, and no request id is given twice."""
    llem("measure", *SIMULATED, *QUICK, "--workers", 2, "--set", "workload.requests=10")
    first, second = (request_ids(path) for path in segments(store, "worker"))
    assert {request % 10 for request in first}.isdisjoint({request % 10 for request in second})
    assert len(set(first + second)) == len(first + second)


def request_ids(path: Path) -> list[int]:
    measured = [
        body
        for kind, _, _, body in bare_events(path)
        if kind == "requests_completed" and body["window"] == "measurement"
    ]
    return [request["request_id"] for body in measured for request in body["requests"]]


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(start_llem: Start, store: Path) -> None:
    """A Ctrl-C ends the run with 130; every segment is sealed and the experiment is marked as interrupted."""
    running = start_llem("measure", *SIMULATED, *LONG, "--workers", 2)
    wait_until(lambda: is_measuring(store, 2))
    running.send_signal(signal.SIGINT)
    assert running.wait(PATIENCE_S) == 130
    assert len(events_of(store, "supervisor", "experiment_interrupted")) == 1
    assert [body["stopped_early"] for body in events_of(store, "worker", "process_completed")] == [True, True]
    assert events_of(store, "sampler", "sampling_completed")


@pytest.mark.slow
def test_a_killed_worker_makes_the_experiment_incomplete(start_llem: Start, store: Path) -> None:
    """kill -9 of one worker: exit status 1, the other one finishes, the death is written down with its signal."""
    running = start_llem("measure", *SIMULATED, *QUICK, *LONGER, "--workers", 2)
    wait_until(lambda: is_measuring(store, 2))
    os.kill(child(running.pid, "worker"), signal.SIGKILL)
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 1
    assert "SIGKILL" in stderr and "Traceback" not in stderr
    assert len(events_of(store, "worker", "process_completed")) == 1
    assert "SIGKILL" in events_of(store, "supervisor", "process_failed")[0]["message"]
    assert events_of(store, "supervisor", "experiment_completed")[0]["processes_failed"] == 1


@pytest.mark.slow
def test_a_killed_sampler_is_noticed_within_a_second(start_llem: Start, store: Path) -> None:
    """kill -9 of a sampler: a warning within a second, and the measurement goes on to its end, which is 1 and says why."""
    running = start_llem("measure", *SIMULATED, *QUICK, *LONGER)
    wait_until(lambda: is_measuring(store, 1))
    os.kill(child(running.pid, "sampler"), signal.SIGKILL)
    wait_until(lambda: events_of(store, "supervisor", "warning_raised"))
    out, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 1
    assert "failed while sampling" in stderr and "killed by SIGKILL" in stderr
    assert "killed by SIGKILL" in " ".join(out.split()) and "sampler" in out
    (warning,) = events_of(store, "supervisor", "warning_raised")
    assert warning["code"] == "sampler_died" and "killed by SIGKILL" in warning["text"]
    closed = [body for body in events_of(store, "worker", "window_closed") if body["kind"] == "measurement"]
    assert "energy_mj" not in closed[0]["edges"][0] and closed[0]["edges"][0]["reason"]


@pytest.mark.slow
def test_no_child_outlives_a_killed_supervisor(start_llem: Start, store: Path) -> None:
    """kill -9 of the supervisor takes its workers and samplers with it."""
    running = start_llem("measure", *SIMULATED, *LONG, "--workers", 2)
    wait_until(lambda: is_measuring(store, 2))
    family = list(children(running.pid))
    assert len(family) == 4
    running.kill()
    running.wait(PATIENCE_S)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))


@pytest.mark.slow
def test_two_measurements_in_one_store_at_once(start_llem: Start, store: Path) -> None:
    """Two measurements do not disturb each other's segments."""
    both = [start_llem("measure", *SIMULATED, *QUICK) for _ in range(2)]
    assert [running.wait(PATIENCE_S) for running in both] == [0, 0]
    assert len(events_of(store, "worker", "process_completed")) == 2


def test_a_measuring_process_loads_no_database_and_no_screen(start_llem: Start, store: Path) -> None:
    """While it measures, neither worker nor sampler nor supervisor has DuckDB mapped; the children have no typer either."""
    running = start_llem("measure", *SIMULATED, *LONG)
    wait_until(lambda: is_measuring(store, 1))
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in (running.pid, *children(running.pid))]
    assert len(maps) == 3
    assert not any("duckdb" in each for each in maps)


@pytest.mark.slow
def test_an_engine_that_crashes_is_a_failed_process(llem: Run, store: Path) -> None:
    """An engine's fatal error ends the run with 1, one line on stderr, the run's id, and the stage in the log."""
    done = llem("measure", *SIMULATED, *QUICK, "--set", "engine.simulated.crash_after_batches=7")
    assert done.returncode == 1
    assert next((store / "log").iterdir()).name in done.stderr
    assert "crashed after 7 batches" in done.stderr and "Traceback" not in done.stderr
    assert events_of(store, "worker", "process_failed")[0]["stage"] == "measuring"


@pytest.mark.slow
def test_simulated_gpus_need_no_driver(llem: Run, store: Path) -> None:
    """--gpu 0,1 with the simulated meter and engine: two processes, a simulated device each."""
    done = llem("measure", *SIMULATED, *QUICK, "--gpu", "0,1")
    assert done.returncode == 0, done.stderr
    devices = [body["devices"][0]["uuid"] for body in events_of(store, "worker", "process_started")]
    assert devices == ["SIM-0", "SIM-1"]


@pytest.mark.slow
def test_simulated_energy_stays_simulated_without_its_samplers_log(llem: Run, store: Path) -> None:
    """A log copied in part: what no sensor read never reads like a counter."""
    assert llem("measure", *SIMULATED, *QUICK).returncode == 0
    segments(store, "sampler")[0].unlink()
    sources = "SELECT energy_source AS source FROM experiment_results UNION SELECT energy_source FROM windows"
    assert llem("query", "-f", "csv", sources, "--store", store).stdout.split() == ["source", "simulated"]


def test_the_last_words_of_a_process_that_does_not_listen_any_more() -> None:
    """They are heard, although what it did not read is an error of its channel."""
    supervisors, workers = Channel.pair()
    supervisors.send(PassBarrier("after"))
    workers.send(ReportDone())
    workers.close()
    assert supervisors.receive() == ReportDone()
    with pytest.raises(PeerGoneError):
        supervisors.receive()
    supervisors.close()
