"""A study as its log shows it while it goes on: what each of its cells costs so far."""

from pathlib import Path

import pytest

from llem.live.study import CellSoFar, StudyFollower
from llem.results.comparison import mean_of_runs
from llem.store import Store
from llem_events.events import ExperimentCompleted, StudyPlace
from tests.world import begun_study, run_of_energy

STUDY = "20260101-030400-0123456789ab"
CELLS = [{"engine.batch_size": size} for size in (1, 4, 16)]
SCHEDULE = [[block, cell, cell] for block in range(3) for cell in range(3)]
ENERGIES = {(0, 0): 1.0, (0, 1): 0.5, (1, 0): 1.02, (2, 0): 0.99}  # of block and cell, times the usual one
JOULES = 4_000 / 40  # of an output token


@pytest.fixture
def place(tmp_path: Path) -> Store:
    """Four runs of a study of three cells and three blocks."""
    store = Store(tmp_path / "store").create()
    begun_study(store, STUDY, cells=CELLS, schedule=SCHEDULE)
    for (block, cell), energy in ENERGIES.items():
        run_of_energy(
            store,
            energy,
            experiment_id=f"20260102-0304{cell}{block}-0123456789ab",
            study=StudyPlace(study_id=STUDY, cell_index=cell, cell=CELLS[cell], block=block, position=cell),
            end=ExperimentCompleted(processes_completed=1, processes_failed=0),
        )
    return store


def cells(follower: StudyFollower) -> list[CellSoFar]:
    """As they stand in the last block."""
    last = StudyPlace(study_id=STUDY, cell_index=2, cell=CELLS[2], block=2, position=2)
    return follower.standing(last, 0.0).cells


def test_the_cells_of_a_study_so_far(place: Store) -> None:
    """The mean and the interval over runs of a cell that has several, the value of one, and nothing before the first."""
    follower = StudyFollower(place, STUDY)
    follower.read_finished()
    first, second, third = cells(follower)
    assert (first.runs, first.unit) == (3, "J/output token")
    mean, low, high = mean_of_runs([JOULES * factor for factor in (1.0, 1.02, 0.99)])
    assert (first.mean, first.low, first.high) == pytest.approx((mean, low, high))
    assert second == CellSoFar("batch_size=4", 1, "J/output token", pytest.approx(JOULES / 2))
    assert third == CellSoFar("batch_size=16", 0, "J/output token")


def test_finished_runs_are_read_a_few_at_a_time(place: Store) -> None:
    """So that no picture waits for all of them; each is read once."""
    follower = StudyFollower(place, STUDY)
    read = []
    for _ in range(6):
        follower.read_finished(1)
        read.append(sum(cell.runs for cell in cells(follower)))
    assert read == [1, 2, 3, 4, 4, 4]
