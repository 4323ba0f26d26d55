"""A study while it goes on: which of its runs is the newest, and how long the others take."""

from contextlib import closing, suppress
from statistics import fmean
from typing import NamedTuple

from llem.live.run import RunFollower
from llem.results.comparison import mean_of_runs
from llem.store import SEGMENT_SUFFIX, Store
from llem.study.history import StudyHistory, read_history
from llem.study.plan import cell_name
from llem_events.errors import LogError
from llem_events.events import StudyPlace
from llem_events.following import GrowingSegments


class Standing(NamedTuple):
    """Where a run stands in its study."""

    study: str
    cell: str
    block: int  # from 1
    blocks: int
    runs_done: int
    runs: int
    left_s: float | None  # from what finished runs took; None before the first
    cells: list["CellSoFar"]


class CellSoFar(NamedTuple):
    """What the runs of a cell that count have come to so far: their geometric mean, and its interval over runs."""

    cell: str
    runs: int
    unit: str
    mean: float | None = None  # None before the first run
    low: float | None = None  # None of one run
    high: float | None = None


class RunCost(NamedTuple):
    """What a run cost, as far as it is known, the first of these that is known in a study being what its cells are told by."""

    per_output_token_j: float | None
    per_token_j: float | None
    energy_j: float | None


UNITS = ("J/output token", "J/token", "J")


class StudyFollower:
    """A study as far as it has come; `refresh` reads its log anew."""

    def __init__(self, store: Store, study_id: str) -> None:
        self._store, self._study_id = store, study_id
        self._segments = GrowingSegments(
            lambda: sorted((store.studies_path / study_id).glob(f"*{SEGMENT_SUFFIX}"))
        )
        self.history: StudyHistory = read_history(store, study_id)
        self._costs: dict[str, RunCost] = {}  # of runs that count, as far as they were read

    def read_finished(self, most: int | None = None) -> None:
        """Read what finished runs cost, so many of them; all of them costs as long as they are long."""
        unread = [run.experiment_id for run in self.history.counted().values()]
        for experiment_id in [each for each in unread if each not in self._costs][:most]:
            self._costs[experiment_id] = _cost(self._store, experiment_id)

    def refresh(self) -> None:
        """Read it again."""
        self.history = read_history(self._store, self._study_id)

    def newest_run(self) -> str | None:
        """The run that was started last; None before the first."""
        return self.history.runs[-1].experiment_id if self.history.runs else None

    def has_run_after(self, experiment_id: str) -> bool:
        """Whether another run was started since; the log is read only where the store has a newer one."""
        if self._store.experiment_ids()[-1:] == [experiment_id]:
            return False
        self.refresh()
        return self.newest_run() != experiment_id

    def is_written(self) -> bool:
        """Whether somebody measures it."""
        self._segments.look()
        return self._segments.are_written()

    def close(self) -> None:
        """Close its files."""
        self._segments.close()

    def standing(self, place: StudyPlace, running_s: float) -> Standing:
        """Of a run that has taken so long."""
        history, done = self.history, self.history.counted()
        left = [slot for slot in history.schedule if slot not in done]
        return Standing(
            study=history.started.name or history.study_id,
            cell=cell_name(history.started.cells[place.cell_index]),
            block=place.block + 1,
            blocks=max(slot.block for slot in history.schedule) + 1,
            runs_done=len(done),
            runs=len(history.schedule),
            left_s=self._left_s([slot.cell for slot in left], running_s),
            cells=self._cells(),
        )

    def _cells(self) -> list[CellSoFar]:
        """In the order of the plan."""
        told = [any(_is_above_0(cost[place]) for cost in self._costs.values()) for place in range(len(UNITS))]
        place = told.index(True) if any(told) else 0
        costs: dict[int, list[float]] = {}
        for slot, run in self.history.counted().items():
            cost = self._costs.get(run.experiment_id)
            if cost is not None and (figure := cost[place]) is not None and _is_above_0(figure):
                costs.setdefault(slot.cell, []).append(figure)
        return [
            CellSoFar(cell_name(cell), len(costs[number]), UNITS[place], *mean_of_runs(costs[number]))
            if number in costs
            else CellSoFar(cell_name(cell), 0, UNITS[place])
            for number, cell in enumerate(self.history.started.cells)
        ]

    def _left_s(self, cells: list[int], running_s: float) -> float | None:
        """What the runs of these cells take: as long as others of their cell, else as all others, less what has passed."""
        took: dict[int, list[float]] = {}
        for run in self.history.counted().values():
            if run.took_s is not None:
                took.setdefault(run.slot.cell, []).append(run.took_s)
        if not took:
            return None
        usual_s = fmean(each for group in took.values() for each in group)
        ahead_s = sum(fmean(took.get(cell, [usual_s])) for cell in cells)
        return max(0.0, ahead_s - running_s)


def _cost(store: Store, experiment_id: str) -> RunCost:
    """As its log has it; nothing where this cannot be read."""
    with closing(RunFollower(store, experiment_id)) as follower, suppress(LogError):
        follower.read()
    run = follower.run
    figures, reported = run.figures(), run.reported()
    return RunCost(
        per_output_token_j=figures.energy_per_output_token_j if figures else None,
        per_token_j=reported.energy_per_token_j if reported else None,
        energy_j=figures.energy_j if figures else None,
    )


def _is_above_0(figure: float | None) -> bool:
    return figure is not None and figure > 0
