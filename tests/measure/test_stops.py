"""Whatever ends a run early (a full disk, a store taken away, a model that fails for good), its id is printed and what was measured is kept."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import LLEM, PATIENCE_S, QUICK, SIMULATED, Run, Start, events_of, segments, wait_until
from tests.delays import best_of_rounds, delays
from tests.measure.test_signals import is_measuring

LONG = (*SIMULATED, *QUICK, "--set", "workload.min_duration_s=300")
AROUND = ("--meter", "simulated", "--set", "windows.baseline_s=0.1")


def the_run(store: Path) -> str:
    """The id of the only experiment."""
    (experiment,) = (store / "log").iterdir()
    return experiment.name


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that a test can fill."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m,mode=700", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    """Write until nothing more fits, on a file system whose reserve may be given back meanwhile."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue


@pytest.mark.slow
def test_a_model_that_fails_for_good(llem: Run, store: Path) -> None:
    """After so many failed batches in a row the run ends, long before its time, with the reason."""
    failing = ("--set", "engine.simulated.fail_after_batches=8", "--set", "workload.max_failed_batches=4")
    done = llem("measure", *LONG, *failing)
    assert done.returncode == 1
    assert "4 batches in a row failed" in done.stderr and "fail_after_batches" in done.stderr
    assert the_run(store) in done.stderr
    (failed,) = events_of(store, "worker", "process_failed")
    assert failed["stage"] == "measuring"
    measured = [
        body for body in events_of(store, "worker", "requests_completed") if body["window"] == "measurement"
    ]
    assert 4 <= len(measured) <= 8


@pytest.mark.slow
def test_a_failure_in_between_ends_nothing(llem: Run, store: Path) -> None:
    """Only failures in a row count."""
    failing = ("--set", "engine.simulated.fail_requests=[0,1,2,3]", "--set", "workload.max_failed_batches=2")
    done = llem("measure", *SIMULATED, *QUICK, *failing)
    assert done.returncode == 1
    assert "in a row" not in done.stderr
    assert len(events_of(store, "worker", "process_completed")) == 1


@pytest.mark.slow
def test_a_full_disk(small_disk: Path, start_llem: Start) -> None:
    """Exit 1 with the run's id; what was measured before is in the log, and the result comes from it."""
    store = small_disk / "store"
    running = start_llem("measure", *LONG, "--store", store)
    wait_until(lambda: is_measuring(store) and events_of(store, "worker", "requests_completed"))
    fill(small_disk)
    stdout, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 1, stderr
    assert the_run(store) in stderr and "No space left" in stderr and "Traceback" not in stderr
    assert events_of(store, "worker", "requests_completed")
    assert re.search(r"energy +[0-9.,]+ +J", stdout), stdout


@pytest.mark.slow
def test_a_full_disk_around_a_program(small_disk: Path, start_llem: Start, tmp_path: Path) -> None:
    """The program goes on to its end; that its samples were not kept is said, and is status 1."""
    store = small_disk / "store"
    changing = ("--set", "meter.simulated.curve=ramp", "--sample-hz", "100")
    program = f"until [ -e {tmp_path / 'full'} ]; do sleep 0.1; done; sleep 8"
    running = start_llem("measure", *AROUND, *changing, "--store", store, "--", "sh", "-c", program)
    wait_until(lambda: is_measuring(store) and events_of(store, "sampler", "samples_taken"))
    fill(small_disk)
    (tmp_path / "full").touch()
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 1, stderr
    assert the_run(store) in stderr and "No space left" in stderr and "Traceback" not in stderr
    assert events_of(store, "worker", "process_completed")[0]["exit_status"] == 0


@pytest.mark.slow
def test_a_file_that_may_not_grow(environment: dict[str, str], store: Path) -> None:
    """A limit on the size of files is a full disk for one segment alone."""
    fast = ("--set", "engine.simulated.token_ms=0.01", "--set", "engine.simulated.jitter=1")
    command = " ".join(("ulimit -f 80; exec", str(LLEM), "measure", *LONG, *fast))
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert the_run(store) in done.stderr and "File too large" in done.stderr
    assert re.search(r"energy +[0-9.,]+ +J", done.stdout), done.stdout


@pytest.mark.slow
def test_a_store_that_is_removed(start_llem: Start, store: Path) -> None:
    """The run ends within a moment, says what happened, and names itself."""
    running = start_llem("measure", *LONG)
    wait_until(lambda: is_measuring(store))
    run = the_run(store)
    shutil.rmtree(store)
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 1
    assert f"nothing is kept of run {run}" in stderr and "the store was removed" in stderr
    assert "Traceback" not in stderr and not store.exists()


@pytest.mark.slow
@best_of_rounds
def test_a_store_that_is_moved(start_llem: Start, store: Path, tmp_path: Path) -> None:
    """The run goes on where its files are now; the new place is named, and the result comes from there."""
    running = start_llem("measure", *SIMULATED, *QUICK, "--set", "workload.min_duration_s=1.5")
    wait_until(lambda: is_measuring(store))
    store.rename(tmp_path / "elsewhere")
    stdout, stderr = running.communicate(timeout=PATIENCE_S)
    with delays():  # it was moved while it was measured
        assert running.returncode == 0, stderr
        assert f"moved while it was measured, to {tmp_path / 'elsewhere'}" in stderr
    assert the_run(tmp_path / "elsewhere") in stdout
    assert not store.exists()


@pytest.mark.slow
@best_of_rounds
def test_a_run_that_is_moved_out_of_its_store(start_llem: Start, store: Path, tmp_path: Path) -> None:
    """It goes on to its end, and its new place is named; it has no store any more from which a result could come."""
    running = start_llem("measure", *SIMULATED, *QUICK, "--set", "workload.min_duration_s=1.5")
    wait_until(lambda: is_measuring(store))
    (store / "log" / the_run(store)).rename(tmp_path / "kept")
    _, stderr = running.communicate(timeout=PATIENCE_S)
    with delays():
        assert running.returncode == 1, stderr
        assert f"moved out of its store, to {tmp_path / 'kept'}" in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_segments_that_are_removed(start_llem: Start, store: Path) -> None:
    """Files without a name are written to no longer: the next block ends the run."""
    running = start_llem("measure", *LONG)
    wait_until(lambda: is_measuring(store))
    for path in segments(store):
        path.unlink()
    _, stderr = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 1
    assert "the file was removed" in stderr and the_run(store) in stderr


@best_of_rounds
def test_a_window_is_on_the_disk_when_it_opens(start_llem: Start, store: Path) -> None:
    """kill -9 of llem at any time: that the measurement had begun is in the log, half a second later, on a machine that is not busy."""
    running = start_llem("measure", *AROUND, "--", "sleep", "61.9")
    wait_until(lambda: is_measuring(store))
    opened_ns = next(
        body["edges"][0]["at_ns"]
        for body in events_of(store, "worker", "window_opened")
        if body["kind"] == "measurement"
    )
    seen_ns = time.monotonic_ns()
    running.kill()
    running.wait()
    with delays():
        assert seen_ns - opened_ns < 0.5e9


@pytest.mark.parametrize("limit", [64])
def test_too_few_open_files(limit: int, environment: dict[str, str], store: Path) -> None:
    """Refused before anything is started, with the command that mends it."""
    command = " ".join((f"ulimit -n {limit}; exec", str(LLEM), "measure", *SIMULATED, "--workers", "16"))
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    assert "ulimit -n" in done.stderr and done.stderr.count("\n") == 1
    assert not store.exists()


@pytest.mark.slow
def test_sixteen_workers_fit_into_what_is_asked_for(environment: dict[str, str]) -> None:
    """The limit that the refusal names is enough."""
    workers = (*SIMULATED, *QUICK, "--workers", "16")
    refused = subprocess.run(
        ["bash", "-c", " ".join(("ulimit -n 64; exec", str(LLEM), "measure", *workers))],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    named = re.search(r"ulimit -n (\d+)", refused.stderr)
    assert named
    done = subprocess.run(
        ["bash", "-c", " ".join((f"ulimit -n {named[1]}; exec", str(LLEM), "measure", *workers))],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# As a shell does it: the child that starts the daemon has ended before the program does; the daemon holds no stream of the program.
DAEMON = """
import os, time
if child := os.fork():
    os.waitpid(child, 0)
else:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(20)
    os._exit(0)
"""


@pytest.mark.slow
def test_a_program_that_leaves_a_daemon_behind(llem: Run, store: Path) -> None:
    """Its work is not measured, and that is said, with its process id."""
    done = llem("measure", *AROUND, "--", sys.executable, "-c", DAEMON)
    assert done.returncode == 0, done.stderr
    (warning,) = events_of(store, "worker", "warning_raised")
    assert warning["code"] == "program_left_processes" and warning["value"] == 1.0
    assert "warning: the program left processes behind" in done.stderr


@pytest.mark.slow
@best_of_rounds
def test_a_program_whose_children_end_with_it(llem: Run, store: Path) -> None:
    """A pipeline leaves nothing behind."""
    done = llem("measure", *AROUND, "--", "sh", "-c", "seq 100000 | head -1; (sleep 0.1) & exit 0")
    assert done.returncode == 0, done.stderr
    with delays():
        assert not events_of(store, "worker", "warning_raised")


@pytest.mark.slow
def test_tables_that_somebody_holds(llem: Run, store: Path) -> None:
    """The result comes from tables made for the moment, with a line that says so, and the status is that of the measurement."""
    assert llem("measure", *SIMULATED, *QUICK).returncode == 0
    holding = (
        "import sys, duckdb; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, store / "projections.duckdb"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        done = llem("measure", *SIMULATED, *QUICK)
        holder.communicate("")
    assert done.returncode == 0, done.stderr
    assert "temporary tables" in done.stderr
    newest = max(folder.name for folder in (store / "log").iterdir())
    assert newest in done.stdout and re.search(r"energy +[0-9.,]+ +J", done.stdout)


@pytest.mark.slow
def test_something_else_where_the_tables_were(llem: Run, store: Path) -> None:
    """Tables that cannot be built after a whole run cost a line, and nothing of the result."""
    store.mkdir(mode=0o700)
    (store / "projections.duckdb").mkdir()
    done = llem("measure", *SIMULATED, *QUICK)
    assert done.returncode == 0, done.stderr
    assert the_run(store) in done.stdout and re.search(r"energy +[0-9.,]+ +J", done.stdout)
