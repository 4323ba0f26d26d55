"""What the log knows of a study: its own segments say what was planned, those of its experiments what was measured."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llem.errors import StoreError
from llem.store import LAST, SEGMENT_SUFFIX, Store
from llem.study.plan import Slot, Study, cell_name, study_of
from llem.units import NS_PER_S, seconds
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
    is_success: bool  # every process of it has measured to its end, and nothing failed
    started_ns: int  # wall clock
    ended_ns: int | None  # None where its end is not in the log

    @property
    def slot(self) -> Slot:
        """The place of the schedule that it is for."""
        return Slot(self.place.block, self.place.position, self.place.cell_index)

    @property
    def took_s(self) -> float | None:
        """From its start to its end; None where it has none."""
        return None if self.ended_ns is None else seconds(self.ended_ns - self.started_ns)


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
        """The first successful run of each place of the schedule since its block was last begun."""
        planned, restarts = set(self.schedule), self.restarts()
        found: dict[Slot, Run] = {}
        for run in sorted(self.runs, key=lambda run: run.place.attempt):
            if (
                run.is_success
                and run.slot in planned
                and run.place.block_restarts == restarts[run.slot.block]
            ):
                found.setdefault(run.slot, run)
        return found

    def restarts(self) -> Counter[int]:
        """How often each block was begun anew."""
        found: Counter[int] = Counter()
        for run in self.runs:
            found[run.slot.block] = max(found[run.slot.block], run.place.block_restarts)
        return found

    def interrupted_blocks(self, max_gap_s: float) -> set[int]:
        """Blocks begun and not ended in which nothing was measured for longer than this."""
        counted = self.counted()
        latest_ns: dict[int, int] = {}
        for slot, run in counted.items():
            latest_ns[slot.block] = max(latest_ns.get(slot.block, 0), run.ended_ns or 0)
        unfinished = {slot.block for slot in self.schedule if slot not in counted}
        begun_before_ns = time.time_ns() - round(max_gap_s * NS_PER_S)
        return {block for block in unfinished if latest_ns.get(block, begun_before_ns) < begun_before_ns}

    def cells(self) -> dict[str, list[str]]:
        """Name of each cell that was measured -> its counted runs, block after block; the reference first."""
        cells = self.started.cells
        members: dict[str, list[str]] = {}
        for slot, run in sorted(self.counted().items(), key=lambda pair: (pair[0].cell, pair[0].block)):
            members.setdefault(cell_name(cells[slot.cell]), []).append(run.experiment_id)
        reference = cell_name(cells[self.started.reference_cell])
        return {reference: members.pop(reference), **members} if reference in members else members


def study_ids(store: Store) -> list[str]:
    """Ids of all studies that were begun, the newest last."""
    return [each for each in _folders(store) if _beginning(store, each) is not None]


def studies_not_begun(store: Store) -> list[str]:
    """Ids of those whose log has no beginning that can be read: killed at once, or damaged."""
    return [each for each in _folders(store) if _beginning(store, each) is None]


def _folders(store: Store) -> list[str]:
    if not store.studies_path.is_dir():
        return []
    return sorted(folder.name for folder in store.studies_path.iterdir() if folder.is_dir())


def find_study(store: Store, named: str) -> StudyHistory:
    """The study with this id, prefix of one, or name; or @last. Raises StoreError."""
    return read_history(store, find_study_id(store, named))


def find_study_id(store: Store, named: str) -> str:
    """The id of the study that is meant, without looking at its runs. Raises StoreError."""
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
    return matches[0]


def neither_run_nor_study(store: Store, name: str, of_runs: StoreError) -> StoreError:
    """Why a name that is no run's is no single study's either."""
    try:
        find_study_id(store, name)
    except StoreError as of_studies:
        if of_studies.found != "none" and of_runs.found == "no experiment":
            return of_studies
    hint = "`llem runs` and `llem studies` list them"
    return StoreError(f"run or study {name}", found=of_runs.found, expected=of_runs.expected, hint=hint)


def _name(store: Store, study_id: str) -> str | None:
    started = _beginning(store, study_id)
    return started.name if started else None


def _beginning(store: Store, study_id: str) -> StudyStarted | None:
    events = _events_of_study(store, study_id)
    return next((event for event in events if isinstance(event, StudyStarted)), None)


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
        yield from (event for _, event in _dated_events(path))


def _started_ns(path: Path) -> int:
    with SegmentReader(path) as reader:
        return reader.header.wall_ns if reader.header else 0


def _dated_events(path: Path) -> Iterator[tuple[int, Event]]:
    """What can be read of a segment, with its wall-clock time: its writer may have been killed, or be at work."""
    try:
        with SegmentReader(path) as reader:
            offset_ns = reader.header.wall_ns - reader.header.monotonic_ns if reader.header else 0
            for block in reader.blocks():
                for envelope in reader.events(block):
                    event = unpack(envelope)
                    if isinstance(event, Event):
                        yield envelope.at_ns + offset_ns, event
    except (LogError, OSError):
        return


def _runs(store: Store, study_id: str) -> Iterator[Run]:
    """Experiments are looked at from the study's start on: ids sort by time."""
    for experiment_id in store.experiment_ids():
        if experiment_id[:15] < study_id[:15]:
            continue
        for path in store.segments(experiment_id):
            if path.name.startswith("supervisor"):
                yield from _run(experiment_id, study_id, list(_dated_events(path)))


def _run(experiment_id: str, study_id: str, dated: list[tuple[int, Event]]) -> Iterator[Run]:
    started_ns, started = next(
        ((at_ns, event) for at_ns, event in dated if isinstance(event, ExperimentStarted)), (0, None)
    )
    if started is None or started.study is None or started.study.study_id != study_id:
        return
    for at_ns, event in dated:
        if isinstance(event, ExperimentCompleted):
            is_success = event.processes_failed == 0 and event.failure is None
            yield Run(experiment_id, started.study, is_success, started_ns, at_ns)
            return
    yield Run(experiment_id, started.study, False, started_ns, None)
