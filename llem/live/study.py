"""A study while it goes on: which of its runs is the newest, and how long the others take."""

from statistics import fmean
from typing import NamedTuple

from llem.store import SEGMENT_SUFFIX, Store
from llem.study.history import StudyHistory, read_history
from llem.study.plan import cell_name
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


class StudyFollower:
    """A study as far as it has come; `refresh` reads its log anew."""

    def __init__(self, store: Store, study_id: str) -> None:
        self._store, self._study_id = store, study_id
        self._segments = GrowingSegments(
            lambda: sorted((store.studies_path / study_id).glob(f"*{SEGMENT_SUFFIX}"))
        )
        self.history: StudyHistory = read_history(store, study_id)

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
        )

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
