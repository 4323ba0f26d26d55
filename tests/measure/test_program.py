"""Any program can be measured: llem measure -- PROGRAM."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, Run, Start, events_of, mostly_slow, wait_until

AROUND = ("--meter", "simulated", "--set", "windows.baseline_s=0.1")


@pytest.mark.parametrize("status", mostly_slow([3, 0], every=2))
def test_the_exit_status_is_passed_on(status: int, llem: Run, store: Path) -> None:
    """llem ends with the program's own exit status, and has written it down."""
    done = llem("measure", *AROUND, "--", sys.executable, "-c", f"raise SystemExit({status})")
    assert done.returncode == status, done.stderr
    assert events_of(store, "worker", "process_completed")[0]["exit_status"] == status


def test_the_program_has_the_terminal(llem: Run) -> None:
    """What the program prints comes out where it printed it."""
    done = llem("measure", *AROUND, "--", "sh", "-c", "echo out; echo err >&2")
    assert "out\n" in done.stdout
    assert "err\n" in done.stderr


@pytest.mark.slow
def test_the_seconds_before_a_program_are_told(llem: Run) -> None:
    """Nothing else is written to its terminal; without such seconds there is nothing to tell."""
    idle = ("--meter", "simulated", "--set", "windows.baseline_s=1")
    assert "llem: idle power is measured for 1 s, then sh starts" in (
        llem("measure", *idle, "--", "sh", "-c", "echo out").stderr
    )
    assert "idle power" not in llem("measure", *AROUND, "--", "true").stderr


@pytest.mark.slow
def test_what_needs_an_engine_is_not_measured(llem: Run, store: Path) -> None:
    """There is energy around the program, and no request or token, not even zero of them."""
    llem("measure", *AROUND, "--", "sleep", "0.5")
    completed = events_of(store, "worker", "process_completed")[0]
    assert "requests" not in completed and "output_tokens" not in completed
    opened, closed = (
        next(body["edges"][0] for body in events_of(store, "worker", kind) if body["kind"] == "measurement")
        for kind in ("window_opened", "window_closed")
    )
    assert closed["energy_mj"] - opened["energy_mj"] == pytest.approx(
        100 * (closed["at_ns"] - opened["at_ns"]) / 1e6, rel=0.05
    )


@pytest.mark.slow
def test_options_of_the_program_are_its_own(llem: Run) -> None:
    """Everything after -- belongs to the program, options and further -- too."""
    done = llem(
        "measure", *AROUND, "--", sys.executable, "-c", "import sys; print(sys.argv[1:])", "--store", "--"
    )
    assert "['--store', '--']" in done.stdout


def test_a_program_that_is_not_there(llem: Run, store: Path) -> None:
    """It is refused in one line, before anything is written."""
    done = llem("measure", *AROUND, "--", "no-such-program")
    assert done.returncode == 2
    assert "no-such-program" in done.stderr and done.stderr.count("\n") == 1
    assert not store.exists()


def test_the_program_dies_with_llem(start_llem: Start, store: Path) -> None:
    """kill -9 of llem ends the program that it measures."""
    own_s = f"600.{os.getpid()}"
    running = start_llem("measure", *AROUND, "--", "sleep", own_s)
    wait_until(lambda: sleepers(own_s))
    running.kill()
    wait_until(lambda: not sleepers(own_s))


@pytest.mark.slow
def test_ctrl_c_is_the_programs_own_first(start_llem: Start, store: Path) -> None:
    """A program that handles Ctrl-C ends in its own way; the run is marked as interrupted, and its energy is kept."""
    handler = "trap 'echo handled; exit 7' INT; echo ready; while :; do sleep 0.1; done"
    running = start_llem("measure", *AROUND, "--", "sh", "-c", handler, process_group=0)
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    os.killpg(running.pid, signal.SIGINT)
    stdout, stderr = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, stdout.startswith("handled\n")) == (130, True), stderr
    assert events_of(store, "worker", "process_completed")[0]["exit_status"] == 7


def sleepers(argument: str) -> list[str]:
    """Processes that sleep for exactly this long."""
    found = []
    for task in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if task.name.isdigit() and (task / "cmdline").read_bytes() == f"sleep\0{argument}\0".encode():
                found.append(task.name)
    return found
