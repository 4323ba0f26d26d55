"""Progress on stderr: drawn over itself on a terminal, a line now and then in a pipe, nothing when quiet."""

import contextlib
import json
import os
import pty
import re
import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from llem.cli.progress import REDRAW_S, StatusLine, Work, WorkLine
from llem.store import Store
from tests.cli.terminal import on_a_terminal
from tests.conftest import LIMIT_S, QUICK, SIMULATED, Run
from tests.delays import best_of_rounds, delays
from tests.forked import ForkedLlem
from tests.world import experiment

MOST_CPU_S = 0.006  # of each second
REDRAWS = 400
POLLS_PER_S = 5
EXPERIMENTS = 240  # of which tables are built for longer than a second


@pytest.mark.slow
def test_stages_say_what_they_wait_for(llem: Run) -> None:
    """In a pipe each stage is one line, with what ends it and how long that takes at most."""
    said = llem("measure", *SIMULATED, *QUICK, "--set", "workload.max_duration_s=3").stderr.splitlines()
    assert said[1:] == [
        "llem: starting",
        "llem: reading prompts",
        "llem: baseline before: idle power for 0.2 s",
        "llem: loading: tiny-llama",
        "llem: cooling down: not waited for, no device tells its temperature",
        "llem: warming up: until batches take equally long, at most 30 batches or 30 s",
        "llem: measuring: 32 requests and 0.6 s at least, at most 3 s",
        "llem: baseline after: idle power for 0.1 s",
        "llem: done",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("meter", "shown"), [("estimate", rb"\d W estimated"), ("simulated", rb"\d W simulated")]
)
def test_power_that_no_sensor_tells_says_so_while_it_is_measured(
    forked: ForkedLlem, store: Store, environment: dict[str, str], meter: str, shown: bytes
) -> None:
    """On a terminal, where the line has it."""
    plan = (*SIMULATED, *QUICK, "--meter", meter, "--set", "workload.max_duration_s=3")
    terminal, status = on_a_terminal(
        ["measure", *plan, "--store", store], environment=environment, forked=forked
    )
    assert status == 0
    assert re.search(rb"measuring  \d+\." + shown, terminal.written)
    assert not re.search(rb"  [\d.]+ W  ", terminal.written)


@pytest.mark.slow
def test_json_on_a_terminal_has_progress_beside_it(
    forked: ForkedLlem, store: Store, environment: dict[str, str]
) -> None:
    """On stderr where that is a terminal; in a pipe nothing is written beside the JSON but what run it is."""
    plan = ("measure", "--json", *SIMULATED, *QUICK, "--store", store)
    terminal, status = on_a_terminal(
        plan, size=(40_000, 24), environment={**environment, "TERM": "xterm"}, forked=forked
    )
    assert status == 0
    assert b"measuring  " in terminal.written
    run, result = terminal.lines()
    assert json.loads(result)["experiment_id"] in run
    piped = forked.run(plan, environment=environment)
    assert re.fullmatch(r"llem: run [-0-9a-f]+\n", piped.stderr)


def test_work_of_one_long_step_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a second, though nothing more is heard of it; work that is done by then shows no line, nor does one that was erased."""
    monkeypatch.setenv("TERM", "xterm")
    controller, descriptor = pty.openpty()
    with open(descriptor, "w", encoding="utf-8") as terminal, contextlib.redirect_stderr(terminal):
        ended, line = WorkLine(), WorkLine()
        for name, each in (("ended", ended), ("deriving results", line)):
            each.update(Work(name, 0, 1, "experiments"))
        ended.erase()
        assert select.select([controller], [], [], LIMIT_S)[0]
        assert re.fullmatch(
            rb"\r\x1b\[K. 0:0\d  deriving results  0 of 1 experiments", os.read(controller, 4096)
        )
        line.erase()
    os.close(controller)


@pytest.mark.slow
def test_building_tables_says_how_far_it_is(
    forked: ForkedLlem, store: Store, environment: dict[str, str]
) -> None:
    """Bytes of the log, then experiments: a line every few seconds in a pipe, one line drawn over on a terminal."""
    place = Store(store).create()
    for number in range(EXPERIMENTS):
        experiment(place, experiment_id=f"run-{number}", processes=2)
    said = forked.run(["rebuild"], environment=environment).stderr
    assert re.search(r"^llem: reading the log: [\d.]+ of [\d.]+ MB$", said, re.MULTILINE)
    place.projections_path.unlink()
    terminal, status = on_a_terminal(
        ["query", "SELECT 1 AS one"], environment={**environment, "TERM": "xterm"}
    )
    assert status == 0
    assert b"reading the log  " in terminal.written
    assert [line.strip() for line in terminal.lines()] == ["one", "───", "1"]


@pytest.mark.slow
@best_of_rounds
def test_the_line_costs_next_to_nothing_beside_a_measurement() -> None:
    """CPU time of two redraws and the calls between them stays below 6 ms a second, and far below that of rich's bar."""
    with _terminal():
        line = StatusLine()
        redraw_s = _cpu_s(
            lambda number: line.show(f"stage {number}", figures="100.0 W  1,888 output tokens/s")
        )
        skipped_s = _cpu_s(lambda number: line.show(f"stage {REDRAWS - 1}", figures="100.0 W"))
        with Bar(
            SpinnerColumn(),
            TextColumn("{task.description:<15}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True, force_terminal=True),
            auto_refresh=False,
        ) as bar:
            task = bar.add_task("stage", figures="100.0 W")

            def redraw(number: int) -> None:
                bar.update(task, description=f"stage {number}")
                bar.refresh()

            rich_s = _cpu_s(redraw)
    each_second_s = redraw_s / REDRAW_S + skipped_s * POLLS_PER_S
    print(
        f"{each_second_s * 1000:.3f} ms a second; rich at as many redraws {rich_s / REDRAW_S * 1000:.3f} ms"
    )
    with delays():
        assert each_second_s < MOST_CPU_S
        assert each_second_s < rich_s / REDRAW_S / 3


def _cpu_s(work: Callable[[int], None]) -> float:
    started = time.process_time()
    for number in range(REDRAWS):
        work(number)
    return (time.process_time() - started) / REDRAWS


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """Stderr is a pseudo-terminal that somebody reads."""
    controller, descriptor = pty.openpty()
    reader = threading.Thread(target=_drain, args=[controller])
    reader.start()
    with open(descriptor, "w", encoding="utf-8") as stream, contextlib.redirect_stderr(stream):
        yield
    reader.join()
    os.close(controller)


def _drain(controller: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(controller, 65536):
            pass
