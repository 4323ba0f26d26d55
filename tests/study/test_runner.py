"""What a study runs, tries again and counts, with runs that are written instead of measured."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llem.measure.outcome import Outcome
from llem.measure.time_limit import TimeLimit
from llem.store import Store
from llem.study.history import StudyHistory, find_study, read_history, studies_not_begun, study_ids
from llem.study.plan import Slot, study_of
from llem.study.runner import DueRun, StudyOutcome, resume_study, start_study
from llem.units import NS_PER_S
from llem_events.events import ExperimentCompleted, StudyPlace
from tests.world import supervisor

HOUR_S = 3600.0
Statuses = Callable[[StudyPlace], int]


class Machine:
    """Measures nothing: writes the log of a run that ended so long ago, with the status that its program is to have."""

    def __init__(self, store: Store, *, status: Statuses = lambda place: 0) -> None:
        self.store, self.status = store, status
        self.ended_ago_s = 0.0
        self.runs_left: int | None = None
        self.over_time: str | None = None  # the time limit that ends the run
        self.limits_s: list[float | None] = []
        self.lines: list[str] = []
        self.batch_sizes: list[tuple[int, int | None]] = []  # of a run and of the one that follows

    def __call__(self, due: DueRun) -> Outcome:
        self.limits_s.append(None if due.limit is None else due.limit.limit_s)
        if self.runs_left == 0:
            raise KeyboardInterrupt
        self.runs_left = None if self.runs_left is None else self.runs_left - 1
        self.lines.append(due.progress)
        self.batch_sizes.append(
            (due.plan.engine.batch_size, due.following and due.following.engine.batch_size)
        )
        run = f"29990101-000000-{len(self.store.experiment_ids()):012x}"
        outcome = Outcome(
            run,
            None,
            1,
            1,
            has_measured=True,
            interrupted_by=self.over_time,
            is_over_time=self.over_time is not None,
            program_status=self.status(due.place),
        )
        end = ExperimentCompleted(processes_completed=1, processes_failed=0, failure=outcome.first_failure)
        began_ns = time.time_ns() - round((self.ended_ago_s + 40) * NS_PER_S)
        supervisor(self.store, experiment_id=run, end=end, study=due.place, wall_ns=began_ns)
        return outcome


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """With an empty store."""
    return Machine(Store(tmp_path / "store").create())


def start(machine: Machine, **keys: Any) -> StudyOutcome:
    """A study of two cells in two blocks."""
    table = {"study": {"repeats": 2, "vary": {"engine.batch_size": [1, 4]}, **keys}}
    return start_study(study_of(table), machine.store, command=[], repeats=None, run=machine)


def resume(machine: Machine) -> StudyHistory:
    """Goes on with it, and reads its log."""
    machine.runs_left = None
    resume_study("@last", machine.store, planned=None, repeats=None, run=machine)
    return find_study(machine.store, "@last")


def test_a_study_of_three_cells_and_five_blocks_is_extended(machine: Machine) -> None:
    """15 runs, every cell once in each block; the same seed draws the same order again, and ten blocks begin with the five that there are."""
    three = {"repeats": 5, "vary": {"engine.batch_size": [1, 4, 16]}}
    first = read_history(machine.store, start(machine, **three).study_id)
    assert (first.end, len(first.runs)) == ("completed", 15)
    for block in range(5):
        assert {run.slot.cell for run in first.runs if run.slot.block == block} == {0, 1, 2}
    again = read_history(machine.store, start(machine, **three).study_id)
    assert [run.slot for run in again.runs] == [run.slot for run in first.runs] == first.schedule
    resume_study(first.study_id, machine.store, planned=None, repeats=10, run=machine)
    extended = read_history(machine.store, first.study_id)
    assert len(extended.counted()) == 30
    assert (extended.runs[:15], extended.schedule[:15]) == (first.runs, first.schedule)


def test_a_study_that_ends_without_a_word_goes_on(machine: Machine) -> None:
    """What counted still does, and only what was left is measured."""
    machine.status = lambda place: 0 // (1 - place.block)  # no run of the second block comes to its end
    with pytest.raises(ZeroDivisionError):
        start(machine)
    left = find_study(machine.store, "@last")
    assert (left.end, len(left.counted())) == ("left", 2)
    machine.status = lambda place: 0
    history = resume(machine)
    assert (history.end, history.runs[:2], len(history.runs)) == ("completed", left.runs, 4)


def test_a_failed_run_is_tried_once_more_at_the_end_of_its_block(machine: Machine) -> None:
    """What fails twice is left out, the others count, and nothing is counted that failed."""
    machine.status = lambda place: int(place.cell_index == 1 and place.block == 0)
    outcome = start(machine, order="as_written")
    history = find_study(machine.store, "@last")
    assert (outcome.runs, outcome.runs_left, history.end) == (3, 1, "completed")
    assert [run.slot for run in history.runs] == [
        *(Slot(0, 0, 0), Slot(0, 1, 1), Slot(0, 1, 1)),
        *(Slot(1, 0, 0), Slot(1, 1, 1)),
    ]
    assert Slot(0, 1, 1) not in history.counted()
    assert [", again: " in line for line in machine.lines] == [False, False, True, False, False]


def test_a_run_is_told_what_follows(machine: Machine) -> None:
    """In its block and in the next; after the last nothing."""
    start(machine, order="as_written")
    assert machine.batch_sizes == [(1, 4), (4, 1), (1, 4), (4, None)]


def test_a_failed_run_ends_a_study_that_is_to_stop(machine: Machine) -> None:
    """on_failure = "stop"."""
    machine.status = lambda place: 3
    outcome = start(machine, on_failure="stop")
    assert (outcome.runs, outcome.runs_left, outcome.stopped) == (0, 4, "a run failed")


@pytest.mark.parametrize(("gap_s", "runs", "restarts"), [(2 * HOUR_S, 4, 0), (HOUR_S / 2, 5, 1)])
def test_a_block_that_was_interrupted_for_long_is_measured_again_whole(
    machine: Machine, gap_s: float, runs: int, restarts: int
) -> None:
    """Its old runs stay in the log and do not count; after a short pause only what is left is measured."""
    machine.ended_ago_s, machine.runs_left = HOUR_S, 3
    assert start(machine, max_block_gap_s=gap_s).interrupted_by == "a signal"
    machine.ended_ago_s = 0.0
    history = resume(machine)
    assert len(history.runs) == runs
    assert set(history.counted()) == set(history.schedule)
    assert history.restarts()[1] == restarts
    assert [run.place.block_restarts for run in history.counted().values() if run.slot.block == 1] == [
        restarts
    ] * 2
    assert ("begun anew" in machine.lines[-1]) == bool(restarts)


def test_a_block_that_was_not_begun_is_not_begun_anew(machine: Machine) -> None:
    """Only what has runs can be too old."""
    machine.ended_ago_s, machine.runs_left = HOUR_S, 2
    start(machine, max_block_gap_s=0.0)
    history = resume(machine)
    assert (len(history.runs), not history.restarts().total()) == (4, True)


def test_a_study_that_was_killed_before_its_beginning_is_passed_over(machine: Machine) -> None:
    """The newest is then the one before."""
    begun = start(machine).study_id
    (machine.store.studies_path / "29991231-235959-000000000000").mkdir()
    assert (study_ids(machine.store), find_study(machine.store, "@last").study_id) == ([begun], begun)
    assert studies_not_begun(machine.store) == ["29991231-235959-000000000000"]


def test_no_run_is_begun_that_cannot_fit_into_the_time_limit(machine: Machine) -> None:
    """The log says so, and the rest is left for --resume."""
    outcome = start(machine, time_limit_s=10.0)
    assert (outcome.runs, outcome.runs_left) == (0, 4)
    assert outcome.stopped == "its time limit of 10 s leaves no time for another run"
    assert find_study(machine.store, "@last").end == "interrupted"


def test_a_limit_of_this_time_takes_the_place_of_the_plans(machine: Machine) -> None:
    """Longer or shorter, of a study that is begun and of one that goes on."""
    table = {"study": {"repeats": 2, "vary": {"engine.batch_size": [1, 4]}, "time_limit_s": 10.0}}
    machine.runs_left = 1
    start_study(
        study_of(table), machine.store, command=[], repeats=None, run=machine, limit=TimeLimit(7200.0)
    )
    assert machine.limits_s == [7200.0, 7200.0]
    short = TimeLimit(5.0)
    rest = resume_study("@last", machine.store, planned=None, repeats=None, run=machine, limit=short)
    assert (rest.runs, rest.stopped) == (1, "its time limit of 5 s leaves no time for another run")


def test_the_run_at_the_time_limit_ends_with_it(machine: Machine) -> None:
    """It does not count, nothing is begun after it, and no signal is named."""
    machine.over_time = "its time limit of 3600 s"
    outcome = start(machine, time_limit_s=3600.0)
    assert (outcome.runs, outcome.runs_left, outcome.interrupted_by) == (0, 4, None)
    assert outcome.stopped == "stopped by its time limit of 3600 s"
    assert machine.limits_s == [3600.0]
