"""llem watch: a run that others measure, on one screen, behind by little, and without a trace in the store."""

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llem.cli.panel import ASCII_BLOCKS, OwnCost, panel, sparkline, warmup_target
from llem.live.run import RunFollower
from llem.store import Store
from tests.cli.terminal import Terminal, on_a_terminal
from tests.conftest import LLEM, SIMULATED, Run, Start, wait_until
from tests.delays import best_of_rounds, delays
from tests.forked import ForkedLlem
from tests.live.growing import Growing
from tests.world import (
    EXPERIMENT,
    NS,
    ORIGIN_NS,
    experiment,
    run_of_energy,
    sampler_events,
    with_package,
    worker_events,
)

ENVIRONMENT = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": "1", "LANG": "C.UTF-8"}
COLOUR = re.compile(rb"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7])[;m]")
LONG = ("--set", "workload.min_duration_s=60", "--set", "windows.baseline_s=0.2")


@pytest.fixture
def place(store: Path) -> Store:
    """An empty store."""
    return Store(store).create()


@pytest.fixture
def growing(place: Store) -> Iterator[Growing]:
    """A run of which nine seconds are written, and whose clock says that they have just passed."""
    run = Growing(
        place,
        worker=worker_events(),
        sampler=sampler_events(throttle=lambda second: 4 if second > 12 else 0),
        monotonic_ns=ORIGIN_NS,
        wall_ns=time.time_ns() - 9 * NS,
    )
    run.until(9.0)
    yield run
    run.die()


def test_a_run_on_one_screen(place: Store, growing: Growing, forked: ForkedLlem) -> None:
    """Each picture is drawn over the one before, within 80 x 24 and without colour; a run whose writers are gone is told as killed."""
    pictures: list[list[str]] = []

    def go_on(terminal: Terminal, controller: int) -> None:
        pictures.append(terminal.lines())
        text = "\n".join(pictures[-1])
        if "about to measure" in text:
            growing.until(15.7)
        elif "3 of 32 requests" in text and "throttled: power cap" in text:
            growing.die()

    terminal, status = on_a_terminal(
        ["watch", EXPERIMENT, "--interval", "0.1", "--store", place.path],
        environment=ENVIRONMENT,
        forked=forked,
        while_running=go_on,
    )
    assert status == 1
    assert terminal.lines()[1].startswith("killed     after 0:15: nobody writes its log any more")
    assert any(re.search(r" ▃+▄+.*█ 152 W$", line) for line in terminal.lines())
    measuring = next(picture for picture in pictures if "3 of 32 requests" in "\n".join(picture))
    assert measuring[0] == EXPERIMENT
    assert measuring[1].startswith("measuring  ")
    assert any(line.startswith("this view  newest sample ") for line in measuring)
    assert all(len(picture) < 24 and max(map(len, picture), default=0) < 80 for picture in pictures)
    assert not COLOUR.search(terminal.written)


def test_looking_leaves_no_trace(place: Store, growing: Growing, llem: Run) -> None:
    """Neither a byte nor a time of any file changes, and nothing is made beside the log: no tables."""
    before = state_of(place.path)
    shown = llem("watch", "--once")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.match(rf"{EXPERIMENT}\nabout to measure  \d+:\d\d ", shown.stdout)
    assert state_of(place.path) == before


def test_in_a_pipe(place: Store, llem: Run) -> None:
    """A line for each stage, then the panel, without a control character."""
    experiment(place)
    shown = llem("watch")
    lines = shown.stdout.splitlines()
    assert (shown.returncode, lines[0]) == (0, f"{EXPERIMENT}: done")
    assert lines[2] == "done       after 0:40"
    assert "verdict    valid so far" in lines
    assert "\x1b" not in shown.stdout


@pytest.mark.parametrize(
    ("source", "said"),
    [("estimated", "W estimated, mean"), ("simulated", "W simulated, mean"), ("integrated", "W, mean")],
)
def test_power_that_no_sensor_tells_says_so(place: Store, llem: Run, source: str, said: str) -> None:
    """In the line of its device, as in that of a measurement's progress."""
    run_of_energy(place, 1.0, source=source)
    assert said in llem("watch", "--once", "--store", place.path).stdout


def test_a_damaged_log_is_shown_as_far_as_it_goes(place: Store, llem: Run) -> None:
    """A byte that is wrong in a sampler's segment takes samples, not the view."""
    experiment(place)
    (path,) = (place.log_path / EXPERIMENT).glob("sampler-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    shown = llem("watch", "--once")
    assert shown.returncode == 0
    assert "damaged    parts of the log do not verify and are left out" in shown.stdout.splitlines()


def test_live_needs_the_terminal_for_itself(llem: Run) -> None:
    """The panel and a program's own output cannot share a terminal: refused before anything starts, naming what can be done."""
    refused = llem("measure", "--live", "--meter", "simulated", "--", "true")
    assert refused.returncode == 2
    assert "--live" in refused.stderr and "`llem watch`" in refused.stderr


@pytest.mark.parametrize("has_package", [True, False])
def test_the_view_says_what_it_costs(place: Store, has_package: bool) -> None:
    """Its CPU time stands on the last line, with a word where RAPL on the same host has it in its energy."""
    worker, sampler = worker_events(), sampler_events()
    if has_package:
        worker, sampler = with_package(worker, sampler)
    growing = Growing(place, worker=worker, sampler=sampler, host=os.uname().nodename)
    growing.until(15.7)
    follower = RunFollower(place, EXPERIMENT)
    follower.read()
    *_, last = panel(follower.run, cost=OwnCost())
    assert re.search(r"; [\d.]+ ms of CPU time a second", last.text)
    assert last.text.endswith("which the meter of this CPU counts too") == has_package
    follower.close()
    growing.die()


def test_a_sparkline() -> None:
    """From 0 to the highest, a space where nothing was measured, in ASCII where a terminal has nothing else."""
    assert sparkline([0.0, 50.0, None, 100.0]) == "▁▅ █"
    assert sparkline([0.0, 50.0, None, 100.0], ASCII_BLOCKS) == "_+ @"
    assert sparkline([None, None]) == "  "


def test_a_warm_up_that_ended_above_its_target_says_why() -> None:
    """Under load so few requests differ more than the target by chance; without an end it is the target."""
    assert warmup_target(0.3, at_most=0.05, has_converged=False) == "target below 0.05"
    assert warmup_target(0.04, at_most=0.05, has_converged=True) == "target below 0.05"
    assert warmup_target(0.3, at_most=0.05, has_converged=True) == "within chance for so few requests"


@pytest.mark.slow
def test_a_measurement_that_is_killed(start_llem: Start, store: Path) -> None:
    """The view lives on when everything that measures is killed at once, says so, and ends with status 1."""
    measuring = start_llem("measure", *SIMULATED, *LONG, process_group=0)
    wait_until(lambda: list(store.glob("log/*/sampler-*")))
    killed = []

    def kill(terminal: Terminal, controller: int) -> None:
        if not killed and any(line.startswith("measuring") for line in terminal.lines()):
            killed.append(terminal.lines())
            _kill_with_all_below(measuring.pid)

    terminal, status = on_a_terminal(["watch", "--store", store], environment=ENVIRONMENT, while_running=kill)
    assert killed and status == 1
    assert any(line.startswith("killed ") for line in terminal.lines())


@pytest.mark.slow
@best_of_rounds
def test_the_panel_of_a_measurement(store: Path) -> None:
    """`measure --live` shows the panel while it measures, and only the result stays."""
    seen: list[str] = []
    terminal, status = on_a_terminal(
        ["measure", "--live", *SIMULATED, "--set", "workload.min_duration_s=2", "--store", store],
        environment=ENVIRONMENT,
        while_running=lambda terminal, controller: seen.extend(terminal.lines()),
    )
    assert status == 0
    with delays():  # pictures that nobody has read are drawn over
        assert any(line.startswith("measuring  ") for line in seen)
        assert any(line.startswith("per token  ") for line in seen)
    assert not any(line.startswith("this view") for line in terminal.lines())
    assert any(line.startswith("energy per output token") for line in terminal.lines())


@pytest.mark.slow
@best_of_rounds
def test_a_study_is_watched_to_its_end(start_llem: Start, store: Path, tmp_path: Path) -> None:
    """Run after run, with the cell, the block and what is left."""
    plan = tmp_path / "study.toml"
    plan.write_text(
        '[engine]\nname = "simulated"\n[meter]\nname = "simulated"\n[workload]\nmin_duration_s = 0.6\n'
        "[windows]\nbaseline_s = 0.2\nbaseline_after_s = 0.1\n"
        '[study]\nname = "sizes"\nrepeats = 2\n[study.vary]\n"engine.batch_size" = [1, 4]\n'
    )
    start_llem("study", plan)
    wait_until(lambda: list(store.glob("log/*/sampler-*")))
    watched = subprocess.run(
        [LLEM, "watch", "sizes", "--store", store], capture_output=True, text=True, check=False, timeout=120
    )
    assert watched.returncode == 0, watched.stderr
    with delays():  # it begins with the first run, and sees each of them
        assert len(set(re.findall(r"^(\S+): done$", watched.stdout, re.MULTILINE))) == 4
    assert re.search(r"^study      sizes: batch_size=[14]$", watched.stdout, re.MULTILINE)
    assert "block 2 of 2, 4 of 4 runs done\n" in watched.stdout
    cells = r"batch_size=[14]: [\d.,]+ J/output token, (?:95 % \[.*\], )?2 runs$"
    assert len(re.findall(cells, watched.stdout, re.MULTILINE)) == 2


def state_of(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Name of every file below -> its digest, size and time of change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_size,
            path.stat().st_mtime_ns,
        )
        for path in files
    }


def _kill_with_all_below(pid: int) -> None:
    """As if the machine took them all."""
    below = [int(line) for line in _children(pid)]
    for each in (pid, *below):
        with suppress(ProcessLookupError):  # it dies with its parent
            os.kill(each, signal.SIGKILL)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
