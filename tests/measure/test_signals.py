"""Every signal that means "stop" keeps what was measured, ends with 130 and names the run; only a second one kills."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import (
    LLEM,
    PATIENCE_S,
    QUICK,
    SIMULATED,
    command_line,
    events_of,
    mostly_slow,
    segments,
    wait_until,
)
from tests.delays import best_of_rounds, delays

LONG = (*SIMULATED, *QUICK, "--set", "workload.min_duration_s=300")
AROUND = ("--meter", "simulated", "--set", "windows.baseline_s=0.1")
STOPS = ("TERM", "HUP", "USR1", "INT", "QUIT", "USR2", "ALRM", "XCPU")


class Runs:
    """Starts llem in a session of its own, with no signal ignored but those named."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, ignored: str = "") -> subprocess.Popen[str]:
        dispositions = ["--default-signal", *([f"--ignore-signal={ignored}"] if ignored else [])]
        process = subprocess.Popen(
            ["env", *dispositions, LLEM, "measure", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process


@pytest.fixture
def runs(environment: dict[str, str]) -> Iterator[Runs]:
    """What still runs at the test's end is killed."""
    runs = Runs(environment)
    yield runs
    for process in runs.started:
        process.kill()
        process.communicate()


def session_of(pid: int) -> list[int]:
    """Every process of a session, as a service manager finds those of a unit."""
    members = []
    for task in Path("/proc").iterdir():
        if task.name.isdigit():
            try:
                fields = (task / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == pid:
                members.append(int(task.name))
    return members


def signal_all(session: int, name: str) -> None:
    """As a service manager does it: a process that has just ended is none of its business."""
    for pid in session_of(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, f"SIG{name}"))


def is_measuring(store: Path) -> bool:
    opened = events_of(store, "worker", "window_opened") if segments(store, "worker") else []
    return any(body["kind"] == "measurement" for body in opened)


def assert_kept(store: Path, stderr: str) -> None:
    """Sealed, marked as interrupted, with energy at both edges, and named."""
    (experiment,) = (store / "log").iterdir()
    assert experiment.name in stderr
    assert "failed" not in stderr and "Traceback" not in stderr
    assert len(events_of(store, "supervisor", "experiment_interrupted")) == 1
    assert events_of(store, "sampler", "sampling_completed")
    closed = [body for body in events_of(store, "worker", "window_closed") if body["kind"] == "measurement"]
    assert all(edge["energy_mj"] > 0 for edge in closed[0]["edges"])


@pytest.mark.parametrize("name", mostly_slow(STOPS, every=8))
def test_a_signal_to_every_process_at_once(name: str, runs: Runs, store: Path) -> None:
    """As systemd and Slurm send it: the energy is whole, all segments are sealed, status 130."""
    running = runs.start(*LONG)
    wait_until(lambda: is_measuring(store))
    signal_all(running.pid, name)
    stdout, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, stderr
    assert_kept(store, stderr)
    assert re.search(r"energy +[0-9.,]+ +J", stdout), stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ("HUP", *STOPS[2:]))
def test_a_signal_to_llem_alone(name: str, runs: Runs, store: Path) -> None:
    """A closed terminal, a batch system's warning, a limit: as Ctrl-C."""
    running = runs.start(*LONG)
    wait_until(lambda: is_measuring(store))
    running.send_signal(getattr(signal, f"SIG{name}"))
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, stderr
    assert_kept(store, stderr)


@pytest.mark.slow
def test_nohup_is_respected(runs: Runs, store: Path) -> None:
    """What was ignored when llem started stays ignored, in all of its processes."""
    running = runs.start(*SIMULATED, *QUICK, "--set", "workload.min_duration_s=1.5", ignored="HUP")
    wait_until(lambda: is_measuring(store))
    signal_all(running.pid, "HUP")
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, stderr
    assert events_of(store, "supervisor", "experiment_completed")


def test_a_stop_while_the_worker_starts(runs: Runs, store: Path) -> None:
    """A signal in the first moment of a child is neither lost nor a failure: interrupted, and no more than that."""
    running = runs.start(*LONG)
    wait_until(lambda: len(session_of(running.pid)) > 1)
    signal_all(running.pid, "TERM")
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, stderr
    assert "failed" not in stderr and next((store / "log").iterdir()).name in stderr
    assert len(events_of(store, "supervisor", "experiment_interrupted")) == 1


@pytest.mark.slow
@best_of_rounds
def test_one_wish_that_comes_twice(runs: Runs, store: Path) -> None:
    """`timeout` signals its child and then its group: that is one wish, and kills nothing."""
    running = runs.start(*LONG)
    wait_until(lambda: is_measuring(store))
    running.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, stderr
    with delays():
        assert_kept(store, stderr)


@pytest.mark.slow
def test_a_second_signal_kills(runs: Runs, store: Path) -> None:
    """A batch that takes a minute is not waited for by whoever asks twice."""
    slow = ("--set", "engine.simulated.prefill_ms=60000", "--set", "windows.warmup_max_batches=1")
    running = runs.start(*SIMULATED, *QUICK, *slow)
    wait_until(lambda: segments(store, "worker") and events_of(store, "worker", "model_loaded"))
    running.send_signal(signal.SIGINT)
    # two that it hears within a second are one wish, and it may stand still for a while
    time.sleep(4)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, stderr
    assert "failed" not in stderr
    assert "SIGKILL" in events_of(store, "supervisor", "process_failed")[0]["message"]


@pytest.mark.slow
def test_a_signal_to_the_worker_alone_stops_all(runs: Runs, store: Path) -> None:
    """A limit of CPU time hits the process that works: all of them stop, and the signal is named."""
    running = runs.start(*LONG, "--workers", "2")
    wait_until(lambda: is_measuring(store))
    one_worker = next(pid for pid in session_of(running.pid) if "llem.measure.worker" in command_line(pid))
    os.kill(one_worker, signal.SIGXCPU)
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, stderr
    assert "SIGXCPU" in events_of(store, "supervisor", "experiment_interrupted")[0]["reason"]
    assert all(body["stopped_early"] for body in events_of(store, "worker", "process_completed"))


@pytest.mark.slow
def test_a_wrapped_program_is_stopped_with_llem(runs: Runs, store: Path) -> None:
    """SIGTERM to llem alone reaches the program, and its energy is kept."""
    running = runs.start(*AROUND, "--", "sleep", "61.7")
    wait_until(lambda: is_measuring(store))
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, stderr
    assert_kept(store, stderr)
    assert events_of(store, "worker", "process_completed")[0]["exit_status"] == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_wrapped_program_has_the_signals_of_a_shell(runs: Runs) -> None:
    """Nothing is blocked in it, and nothing ignored that llem's own caller did not ignore."""
    running = runs.start(*AROUND, "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status", ignored="HUP")
    stdout, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, stderr
    # those above 31 are the C library's own, and whether they are ignored comes from whoever started the tests
    masks = {line.split()[0]: int(line.split()[1], 16) & (2**31 - 1) for line in stdout.splitlines()[:2]}
    assert masks == {"SigBlk:": 0, "SigIgn:": 1 << (signal.SIGHUP - 1)}
