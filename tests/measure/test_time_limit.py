"""`--max-time` ends a whole measurement in order, kills what hangs, and is refused where the plan cannot fit into it."""

import json
from pathlib import Path
from typing import Any

import pytest

from llem.cli.max_time import lasts_s
from llem.errors import PlanError
from llem.measure.time_limit import ENDING_S, TimeLimit
from llem.plan import Plan
from llem.plan_file import convert
from tests.conftest import QUICK, SIMULATED, Run, events_of, segments
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import GpuHost, gpus
from tests.measure.test_signals import is_measuring

# its prompts last for many minutes, though a second of them would do
ENDLESS = (*QUICK, "--set", "workload.requests=20000")
# also where a program takes seconds to start
REACHES_MEASURING = ("--max-time", "15s")
STOPPED = "stopped by its time limit of 15 s"
AROUND = ("--meter", "simulated", "--set", "windows.baseline_s=0.1", "--max-time", "8")


def served(**keys: Any) -> Plan:
    return convert({"server": {"kind": "simulated", "stop_timeout_s": 5.0, **keys}})


def test_a_limit_stops_and_then_kills() -> None:
    """A server that is started here has its own time to end before that."""
    assert (TimeLimit(60.0).level(Plan()), TimeLimit(60.0).cause) == (0, "its time limit of 60 s")
    assert TimeLimit(0.0).level(Plan()) == 1
    over = TimeLimit(-ENDING_S)
    assert (over.level(Plan()), over.level(served())) == (2, 1)
    assert over.level(served(kind="url", url="http://localhost:1")) == 2
    assert TimeLimit(-ENDING_S - 5.0).level(served()) == 2


@pytest.mark.parametrize(
    ("written", "seconds"), [("90", 90.0), ("1.5s", 1.5), ("10m", 600.0), ("2h", 7200.0), ("1d", 86_400.0)]
)
def test_times_are_written_with_a_unit_or_in_seconds(written: str, seconds: float) -> None:
    """As people write them."""
    assert lasts_s(written) == seconds


@pytest.mark.parametrize("written", ["", "0", "-1", "1e3", "10 m", "10min", "inf", "nan", "1:30"])
def test_other_times_are_refused(written: str) -> None:
    """With what is expected."""
    with pytest.raises(PlanError, match="expected a time such as 90s, 10m, 2h"):
        lasts_s(written)


def test_a_plan_that_cannot_fit_is_refused_before_anything_begins(llem: Run, store: Path) -> None:
    """With the time that it takes at least, also by --dry-run; a program takes whatever it takes."""
    for also in ((), ("--dry-run",)):
        done = llem("measure", *SIMULATED, "--max-time", "10s", *also)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert "--max-time: found 10 s, expected more than 18 s, which the plan takes at least" in done.stderr
        assert not store.exists()
    assert llem("measure", "--dry-run", "--max-time", "10s", "--", "true").returncode == 0


def assert_ended_in_order(store: Path) -> dict[str, Any]:
    """Every segment is sealed, and so says the supervisor's last event; returns the edges of the measurement's end."""
    (interrupted,) = events_of(store, "supervisor", "experiment_interrupted")
    assert interrupted["reason"] == STOPPED
    assert events_of(store, "sampler", "sampling_completed")
    (completed,) = events_of(store, "worker", "process_completed")
    assert completed["stopped_early"]
    (closed,) = [
        each for each in events_of(store, "worker", "window_closed") if each["kind"] == "measurement"
    ]
    return closed


@pytest.mark.slow
@best_of_rounds
def test_a_measurement_ends_in_order(llem: Run, store: Path) -> None:
    """Status 1, its windows closed, the log whole, and the reason in the verdict and in the table of experiments."""
    done = llem("measure", *SIMULATED, *ENDLESS, *REACHES_MEASURING, "--json")
    assert done.returncode == 1, done.stderr
    with delays():
        assert is_measuring(store)
    result = json.loads(done.stdout)
    assert (
        f"interrupted by its time limit of 15 s; what was measured is kept as {result['experiment_id']}"
        in (done.stderr)
    )
    reasons = {reason["code"]: reason["text"] for reason in result["invalid_reasons"]}
    assert result["status"] == "interrupted"
    assert reasons["incomplete"] == f"not every process ran to its end: {STOPPED}"
    assert assert_ended_in_order(store)["edges"][0]["energy_mj"] > 0
    assert llem("log", "verify").stdout.count("clean") == len(segments(store)) == 3
    told = llem("query", "-f", "csv", "SELECT status, problem FROM experiments").stdout.splitlines()
    assert told[1:] == [f"interrupted,{STOPPED}"]


@pytest.mark.slow
@best_of_rounds
def test_a_load_that_hangs_is_killed(llem: Run, store: Path) -> None:
    """Which nothing else would end; the samples until then are sealed, and no window is open."""
    hanging = ("--set", "engine.simulated.load_ms=3600000", "--max-time", "8")
    done = llem("measure", *SIMULATED, *QUICK, *hanging)
    assert (done.returncode, done.stdout) == (1, "")
    assert "interrupted by its time limit of 8 s" in done.stderr and "failed" not in done.stderr
    (failed,) = events_of(store, "supervisor", "process_failed")
    with delays():
        assert failed["stage"] == "loading"
    assert failed["message"] == "killed by SIGKILL"
    assert events_of(store, "supervisor", "experiment_interrupted")
    assert events_of(store, "sampler", "sampling_completed")
    opened, closed = (events_of(store, "worker", f"window_{end}") for end in ("opened", "closed"))
    assert len(opened) == len(closed)


@pytest.mark.slow
@best_of_rounds
def test_a_server_is_ended_with_it(llem: Run, store: Path) -> None:
    """In order, and no other load is begun under it."""
    done = llem("measure", "--server", "simulated", "--meter", "simulated", *QUICK, "--concurrency", "2,4", "--set", "windows.warmup_min_batches=1000",
                "--set", "windows.warmup_max_s=600", *REACHES_MEASURING)  # fmt: skip
    assert done.returncode == 1, done.stderr
    with delays():
        assert events_of(store, "worker", "server_started")
    (stopped,) = events_of(store, "worker", "server_stopped")
    assert stopped["exit_status"] is not None or stopped["signal"] is not None
    (interrupted,) = events_of(store, "supervisor", "experiment_interrupted")
    assert interrupted["reason"] == STOPPED


@pytest.mark.slow
@best_of_rounds
def test_a_program_is_told_to_end(llem: Run, store: Path) -> None:
    """By SIGTERM; what it had used until then is kept, and the status is not the program's."""
    done = llem("measure", *AROUND, "--", "sh", "-c", 'trap "exit 7" TERM; while :; do sleep 0.1; done')
    assert done.returncode == 1, done.stderr
    with delays():
        assert is_measuring(store)
    (completed,) = events_of(store, "worker", "process_completed")
    with delays():  # of a shell that comes to its trap
        assert completed["exit_status"] == 7
    assert completed["stopped_early"]
    assert "not every process ran to its end: stopped by its time limit of 8 s" in done.stderr


@pytest.mark.slow
@best_of_rounds
def test_processes_on_gpus_end_together(gpu_host: GpuHost) -> None:
    """Each with the counter of its own GPU at the end of the window."""
    run = gpu_host.measure(gpus(2), "--gpu", "0,1", "--set", "workload.requests=20000", *REACHES_MEASURING)
    assert run.done.returncode == 1, run.done.stderr
    with delays():
        assert len(run.windows()) == 2
    for edges in run.windows():
        assert edges.counted_j == pytest.approx(run.truth_of(edges), rel=0.05)
    (interrupted,) = events_of(run.store, "supervisor", "experiment_interrupted")
    assert (interrupted["reason"], interrupted["processes_completed"]) == (STOPPED, 2)
