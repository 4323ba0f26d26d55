"""What the log knows of a study: its own segments say what was planned, those of its experiments what was measured."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llem.errors import StoreError
from llem.store import LAST, SEGMENT_SUFFIX, Store
from llem.study.plan import Slot, Study, cell_name, study_of
from llem_events import SegmentReader, unpack
from llem_events.errors import LogError
from llem_events.events import (
    Event,
    ExperimentCompleted,
    ExperimentStarted,
    StudyCompleted,
    StudyInterrupted,
    StudyPlace,
    StudyResumed,
    StudyStarted,
)


class Run(NamedTuple):
    """An experiment of a study."""

    experiment_id: str
    place: StudyPlace
    is_complete: bool  # every process of it has measured to its end

    @property
    def slot(self) -> Slot:
        """The place of the schedule that it is for."""
        return Slot(self.place.block, self.place.position, self.place.cell_index)


class StudyHistory(NamedTuple):
    """One study as far as it has come."""

    study_id: str
    started: StudyStarted
    schedule: list[Slot]
    end: str  # completed, interrupted, or left without a word
    runs: list[Run]  # in the order in which they were started

    def study(self) -> Study:
        """As it was planned."""
        return study_of(self.started.plan)

    def counted(self) -> dict[Slot, Run]:
        """The first complete run of each place of the schedule."""
        planned = set(self.schedule)
        found: dict[Slot, Run] = {}
        for run in self.runs:
            if run.is_complete and run.slot in planned:
                found.setdefault(run.slot, run)
        return found

    def cells(self) -> dict[str, list[str]]:
        """Name of each cell that was measured -> its counted runs, block after block; the reference first."""
        cells = self.started.cells
        members: dict[str, list[str]] = {}
        for slot, run in sorted(self.counted().items(), key=lambda pair: (pair[0].cell, pair[0].block)):
            members.setdefault(cell_name(cells[slot.cell]), []).append(run.experiment_id)
        reference = cell_name(cells[self.started.reference_cell])
        return {reference: members.pop(reference), **members} if reference in members else members


def study_ids(store: Store) -> list[str]:
    """Ids of all studies, the newest last."""
    if not store.studies_path.is_dir():
        return []
    return sorted(folder.name for folder in store.studies_path.iterdir() if folder.is_dir())


def find_study(store: Store, named: str) -> StudyHistory:
    """The study with this id, prefix of one, or name; or @last. Raises StoreError."""
    known = study_ids(store)
    matches = known[-1:] if named == LAST else [each for each in known if each.startswith(named) and named]
    if len(matches) != 1:
        matches = [each for each in known if _name(store, each) == named] or matches
    if len(matches) != 1:
        raise StoreError(
            f"study {named}",
            found="none" if not matches else f"{len(matches)} studies: {', '.join(matches)}",
            expected="the id of one study, a prefix of it, its name, or @last",
            hint="`llem studies` lists them",
        )
    return read_history(store, matches[0])


def _name(store: Store, study_id: str) -> str | None:
    events = _events_of_study(store, study_id)
    return next((event.name for event in events if isinstance(event, StudyStarted)), None)


def read_history(store: Store, study_id: str) -> StudyHistory:
    """What is in the log of a study. Raises StoreError where its beginning cannot be read."""
    events = list(_events_of_study(store, study_id))
    started = next((event for event in events if isinstance(event, StudyStarted)), None)
    if started is None:
        raise StoreError(f"study {study_id}", found="a log without its beginning", expected="study_started")
    schedule, end = started.schedule, "left"
    for event in events:
        match event:
            case StudyResumed():
                schedule, end = event.schedule, "left"
            case StudyCompleted():
                end = "completed"
            case StudyInterrupted():
                end = "interrupted"
    slots = [Slot(block, position, cell) for block, position, cell in schedule]
    return StudyHistory(study_id, started, slots, end, list(_runs(store, study_id)))


def _events_of_study(store: Store, study_id: str) -> Iterator[Event]:
    """The events of its segments in the order in which these were started."""
    folder = store.studies_path / study_id
    segments = sorted(folder.glob(f"*{SEGMENT_SUFFIX}"), key=_started_ns)
    for path in segments:
        yield from _events(path)


def _started_ns(path: Path) -> int:
    with SegmentReader(path) as reader:
        return reader.header.wall_ns if reader.header else 0


def _events(path: Path) -> Iterator[Event]:
    """What can be read of a segment: its writer may have been killed, or be at work."""
    try:
        with SegmentReader(path) as reader:
            for block in reader.blocks():
                for envelope in reader.events(block):
                    event = unpack(envelope)
                    if isinstance(event, Event):
                        yield event
    except (LogError, OSError):
        return


def _runs(store: Store, study_id: str) -> Iterator[Run]:
    """Experiments are looked at from the study's start on: ids sort by time."""
    for experiment_id in store.experiment_ids():
        if experiment_id[:15] < study_id[:15]:
            continue
        for path in store.segments(experiment_id):
            if path.name.startswith("supervisor"):
                yield from _run(experiment_id, study_id, list(_events(path)))


def _run(experiment_id: str, study_id: str, events: list[Event]) -> Iterator[Run]:
    started = next((event for event in events if isinstance(event, ExperimentStarted)), None)
    if started is None or started.study is None or started.study.study_id != study_id:
        return
    ended = next((event for event in events if isinstance(event, ExperimentCompleted)), None)
    yield Run(experiment_id, started.study, ended is not None and ended.processes_failed == 0)
