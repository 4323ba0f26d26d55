"""Measures what is left of a study, run after run; whatever ends it, the log says where to go on."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from llem.errors import PlanError, StoreError
from llem.measure.diary import Diary
from llem.measure.outcome import Outcome
from llem.measure.time_limit import TimeLimit
from llem.plan import Plan
from llem.store import Store, new_experiment_id, open_segment
from llem.study.history import StudyHistory, find_study
from llem.study.plan import Slot, Study, block_count, difference
from llem.versions import __version__
from llem_events.events import StudyCompleted, StudyInterrupted, StudyPlace, StudyResumed, StudyStarted

ATTEMPTS = 2  # of a run that fails


class DueRun(NamedTuple):
    """A run of a study that is to be measured now."""

    plan: Plan
    place: StudyPlace
    progress: str  # where it stands, for people
    following: Plan | None  # what is measured next if this goes well; None for the last
    limit: TimeLimit | None  # of the study


# Measures it, and shows it as it goes.
MeasureRun = Callable[[DueRun], Outcome]


class _Ahead(NamedTuple):
    """A study with what is done of it: the log that is being written is not read for it, because it is always a little behind."""

    study: Study
    study_id: str
    is_program: bool
    schedule: list[Slot]
    done: set[Slot]
    attempts: dict[Slot, int]
    restarts: Counter[int]  # how often each block was begun anew


class StudyOutcome(NamedTuple):
    """How a study ended this time."""

    study_id: str
    runs: int  # that count
    runs_left: int
    stopped: str | None = None  # why, before all was measured
    interrupted_by: str | None = None  # the signal


def start_study(
    study: Study,
    store: Store,
    *,
    command: Sequence[str],
    repeats: int | None,
    run: MeasureRun,
    limit: TimeLimit | None = None,
) -> StudyOutcome:
    """Measure a study from its beginning, within `limit` in the place of the plan's. Raises LlemError before anything is measured."""
    study_id = new_experiment_id()
    schedule = study.schedule(repeats)
    started = StudyStarted(
        study_id=study_id,
        name=study.plan.name,
        plan=study.written,
        command=list(command),
        cells=study.cells,
        schedule=[list(slot) for slot in schedule],
        order=study.plan.order,
        seed=study.plan.seed,
        llem_version=__version__,
    )
    _folder(store, study_id, is_new=True)
    with _diary(store, study_id) as diary:
        diary.write(started)
        ahead = _Ahead(study, study_id, bool(command), schedule, set(), {}, Counter())
        return _go_on(ahead, diary, run, limit)


def resume_study(
    named: str,
    store: Store,
    *,
    planned: Study | None,
    repeats: int | None,
    run: MeasureRun,
    limit: TimeLimit | None = None,
) -> StudyOutcome:
    """Measure what is left of a study, or more blocks of it. Raises LlemError, also where `planned` is another study."""
    history = find_study(store, named)
    study = history.study()
    if planned is not None and (found := difference(study.written, planned.written)):
        key, before, now = found
        raise PlanError(
            f"plan key {key} of study {history.study_id}",
            found=_said(now),
            expected=f"{_said(before)}, as it was started",
            hint="another plan is another study: leave out --resume",
        )
    blocks = block_count(history.schedule)
    if repeats is not None and repeats < blocks:
        raise PlanError("--repeats", found=repeats, expected=f"{blocks} or more: so many blocks were planned")
    schedule = study.schedule(repeats or blocks)
    anew = history.interrupted_blocks(study.plan.max_block_gap_s)
    done = {slot for slot in history.counted() if slot.block not in anew}
    left = len(schedule) - len(done)
    reason = "more blocks were asked for" if len(schedule) > len(history.schedule) else "interrupted"
    with _diary(store, history.study_id) as diary:
        diary.write(
            StudyResumed(
                study_id=history.study_id,
                runs_left=left,
                reason=reason,
                schedule=[list(slot) for slot in schedule],
            )
        )
        restarts = history.restarts() + Counter(anew)
        is_program = bool(history.started.command)
        ahead = _Ahead(study, history.study_id, is_program, schedule, done, _attempts(history), restarts)
        return _go_on(ahead, diary, run, limit)


def _said(value: object) -> str:
    return "nothing" if value is None else repr(value)


def _folder(store: Store, study_id: str, *, is_new: bool = False) -> None:
    folder = store.create().studies_path / study_id
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=not is_new)
    except OSError as error:
        raise StoreError(
            f"study {study_id} cannot be kept", found=error.strerror, expected=str(folder)
        ) from None


@contextmanager
def _diary(store: Store, study_id: str) -> Iterator[Diary]:
    """The study's own segment, as long as it runs this time."""
    log = open_segment(store.studies_path / study_id, experiment_id=study_id, role="study")
    with log:
        diary = Diary(log)
        yield diary
        diary.seal()


def _go_on(ahead: _Ahead, diary: Diary, run: MeasureRun, limit: TimeLimit | None) -> StudyOutcome:
    """Run what the log does not have, block after block; a failed run is tried again at the end of its block."""
    plan, done = ahead.study.plan, ahead.done
    if limit is None and plan.time_limit_s is not None:
        limit = TimeLimit(plan.time_limit_s)
    for block in range(block_count(ahead.schedule)):
        waiting = [slot for slot in ahead.schedule if slot.block == block and slot not in done]
        tried: Counter[Slot] = Counter()
        while waiting:
            slot = waiting.pop(0)
            if limit is not None and not limit.fits(ahead.study.plan_of(slot), is_program=ahead.is_program):
                return _stopped(ahead, diary, f"{limit.cause} leaves no time for another run")
            try:
                outcome = run(_due(ahead, slot, waiting, limit))
            except KeyboardInterrupt:  # between two runs
                return _stopped(ahead, diary, "stopped by a signal", cause="a signal")
            ahead.attempts[slot] = ahead.attempts.get(slot, 0) + 1
            tried[slot] += 1
            if outcome.is_success:
                done.add(slot)
            elif outcome.interrupted:
                cause = None if outcome.is_over_time else outcome.interrupted_by
                return _stopped(ahead, diary, f"stopped by {outcome.interrupted_by}", cause=cause)
            elif plan.on_failure == "stop":
                return _stopped(ahead, diary, "a run failed")
            elif tried[slot] < ATTEMPTS:
                waiting.append(slot)
    left = len(ahead.schedule) - len(done)
    diary.write(StudyCompleted(study_id=ahead.study_id, runs=len(done), failed_runs=left))
    return StudyOutcome(ahead.study_id, len(done), left)


def _stopped(ahead: _Ahead, diary: Diary, reason: str, *, cause: str | None = None) -> StudyOutcome:
    """It ends here, before all is measured; `cause` is the signal that asked for it."""
    runs, left = len(ahead.done), len(ahead.schedule) - len(ahead.done)
    diary.write(StudyInterrupted(study_id=ahead.study_id, reason=reason, runs=runs, runs_left=left))
    return StudyOutcome(ahead.study_id, runs, left, stopped=reason, interrupted_by=cause)


def _attempts(history: StudyHistory) -> dict[Slot, int]:
    """How often each place of the schedule was tried."""
    found: dict[Slot, int] = {}
    for run in history.runs:
        found[run.slot] = max(found.get(run.slot, 0), run.place.attempt + 1)
    return found


def _due(ahead: _Ahead, slot: Slot, waiting: Sequence[Slot], limit: TimeLimit | None) -> DueRun:
    return DueRun(
        plan=ahead.study.plan_of(slot),
        place=_place(ahead, slot),
        progress=_progress(ahead, slot),
        following=_following(ahead, slot, waiting),
        limit=limit,
    )


def _following(ahead: _Ahead, slot: Slot, waiting: Sequence[Slot]) -> Plan | None:
    later = (each for each in ahead.schedule if each.block > slot.block and each not in ahead.done)
    next_slot = waiting[0] if waiting else next(later, None)
    return None if next_slot is None else ahead.study.plan_of(next_slot)


def _place(ahead: _Ahead, slot: Slot) -> StudyPlace:
    return StudyPlace(
        study_id=ahead.study_id,
        cell_index=slot.cell,
        cell=ahead.study.cells[slot.cell],
        block=slot.block,
        position=slot.position,
        attempt=ahead.attempts.get(slot, 0),
        block_restarts=ahead.restarts[slot.block],
        name=ahead.study.plan.name,
        cells=len(ahead.study.cells),
        blocks=block_count(ahead.schedule),
    )


def _progress(ahead: _Ahead, slot: Slot) -> str:
    """Where it stands, for people."""
    anew = ", begun anew" if ahead.restarts[slot.block] else ", again" if ahead.attempts.get(slot) else ""
    cell = ", ".join(f"{key}={value}" for key, value in ahead.study.cells[slot.cell].items())
    return (
        f"run {len(ahead.done) + 1} of {len(ahead.schedule)}, block {slot.block + 1} of {block_count(ahead.schedule)}{anew}: "
        f"{cell or 'as in the plan'}"
    )
