"""What a person sees never decides about a measurement: streams that are closed, full or cut off do not end it."""

import fcntl
import os
import pty
import subprocess
import termios
from pathlib import Path

import pytest

from tests.conftest import LLEM, PATIENCE_S, QUICK, SIMULATED, events_of, wait_until
from tests.delays import best_of_rounds, delays
from tests.measure.test_signals import is_measuring

LONG = (*QUICK, "--set", "workload.min_duration_s=30")
MEASURE = " ".join(("exec", str(LLEM), "measure", *SIMULATED, *QUICK))


def shell(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which the first command's status is not lost behind a pipe."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def assert_measured(store: Path) -> str:
    """The run went to its end; returns its id."""
    assert len(events_of(store, "supervisor", "experiment_completed")) == 1
    assert len(events_of(store, "worker", "process_completed")) == 1
    (experiment,) = (store / "log").iterdir()
    return experiment.name


@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        pytest.param("2>&-", 0, marks=pytest.mark.slow),
        pytest.param("2>/dev/full", 0, marks=pytest.mark.slow),
        pytest.param("2> >(head -2 >/dev/null)", 0, marks=pytest.mark.slow),
        pytest.param("2>&- </dev/null", 0, marks=pytest.mark.slow),
    ],
)
def test_stderr_that_cannot_be_written(
    redirection: str, status: int, environment: dict[str, str], store: Path
) -> None:
    """The lines are dropped, the run goes on, and its result is on stdout."""
    done = shell(f"{MEASURE} {redirection}", environment)
    assert done.returncode == status, done.stderr
    assert assert_measured(store) in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"], ids=["full", "closed"])
def test_stdout_that_cannot_be_written(redirection: str, environment: dict[str, str], store: Path) -> None:
    """The result goes to stderr, and the status says that something failed."""
    done = shell(f"{MEASURE} {redirection}", environment)
    assert done.returncode == 1, done.stderr
    run = assert_measured(store)
    assert f"the result of {run} goes to standard error" in done.stderr
    assert "energy" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(environment: dict[str, str], store: Path) -> None:
    """`2>&1 | head -2` ends nothing; the status is the measurement's own, not the pipe's."""
    done = shell(f"({MEASURE}) 2>&1 | head -2", environment)
    assert done.returncode == 0
    assert assert_measured(store) in done.stdout


@pytest.mark.slow
def test_a_reader_that_has_gone_hides_no_failure(environment: dict[str, str], store: Path) -> None:
    """Requests that failed are 1, whoever reads."""
    done = shell(f"({MEASURE} --set engine.simulated.fail_requests=[3]) 2>&1 | head -1", environment)
    assert done.returncode == 1
    assert_measured(store)


@pytest.mark.slow
def test_both_streams_gone(environment: dict[str, str], store: Path) -> None:
    """Nobody sees anything, and the log has it all."""
    done = shell(f"{MEASURE} >&- 2>&-", environment)
    assert done.returncode == 1
    assert_measured(store)


@pytest.mark.slow
@best_of_rounds
def test_a_terminal_that_is_closed_under_nohup(environment: dict[str, str], store: Path) -> None:
    """Every line fails from there on; the run goes to its end."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        ["env", "--ignore-signal=HUP", LLEM, "measure", *SIMULATED, *QUICK],
        env={**environment, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        wait_until(lambda: is_measuring(store))
        os.close(ours)
        status = running.wait(PATIENCE_S)
    finally:
        running.kill()
        running.wait()
    with delays():  # it was closed before the result was written to it
        assert status == 1
    assert_measured(store)


@pytest.mark.slow
def test_a_terminal_that_is_closed(environment: dict[str, str], store: Path) -> None:
    """Without nohup the kernel's SIGHUP ends the run, as a wish to stop: sealed, with status 130."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        ["env", "--default-signal=HUP", LLEM, "measure", *SIMULATED, *LONG],
        env={**environment, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    try:
        wait_until(lambda: is_measuring(store))
        os.close(ours)
        assert running.wait(PATIENCE_S) == 130
    finally:
        running.kill()
        running.wait()
    assert "SIGHUP" in events_of(store, "supervisor", "experiment_interrupted")[0]["reason"]
    assert events_of(store, "sampler", "sampling_completed")
