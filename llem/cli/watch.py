"""llem watch: a run or a study while it goes on, from another terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

import typer

from llem.cli import completing, console
from llem.cli.options import StoreOption
from llem.cli.panel import OwnCost, Screen, blocks_of, panel, write_panel
from llem.errors import StoreError
from llem.live.run import LiveRun, RunFollower
from llem.live.study import Standing, StudyFollower
from llem.store import LAST, Store
from llem.study.history import find_study

TICK_S = 0.25  # between two looks at the sizes of files
READ_AT_ONCE = 1  # runs of a study, for one picture


def watch(
    named: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|STUDY",
            autocompletion=completing.run_or_study,
            help="A run, or a study with all its runs; the newest run.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print what there is now, and stop.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=60.0, metavar="S", help="Seconds between two pictures.")
    ] = 0.5,
    store: StoreOption = None,
) -> None:
    """Watch a run while it goes on, from its log alone: no device is opened, and the store stays as it is.

    With the usual --interval a sample is at most 1.5 seconds behind, a request 1.7. Exit status 1 where the run did not come to its end.
    """
    place = Store.locate(store).require()
    experiment_id, study = _meant(place, named or LAST)
    view = _View(interval)
    with closing(RunFollower(place, experiment_id)) as follower:
        follower.read()
        if once:
            view.write(follower.run, _standing(study, follower.run))
            return
        if study is None and named is None:
            study = _study_of(place, follower.run)
        run = view.follow(follower, study)
    while study is not None and (next_id := _next_run(study, run.experiment_id, interval)) is not None:
        with closing(RunFollower(place, next_id)) as follower:
            run = view.follow(follower, study)
    view.leave(run, _standing(study, run))
    if not run.is_success():
        sys.exit(console.FAILED)


def _meant(store: Store, named: str) -> tuple[str, StudyFollower | None]:
    """The run, and the study where one was named: then its newest run. Raises StoreError."""
    try:
        return store.resolve(named), None
    except StoreError as no_run:
        if named == LAST:
            raise
        try:
            study = StudyFollower(store, find_study(store, named).study_id)
        except StoreError:
            raise StoreError(
                f"run or study {named}",
                found=no_run.found,
                expected="an id, a prefix of it, or a name",
                hint="`llem runs` and `llem studies` list them",
            ) from None
    if (newest := study.newest_run()) is None:
        raise StoreError(f"study {named}", found="no run yet", hint="try again in a moment")
    return newest, study


def _study_of(store: Store, run: LiveRun) -> StudyFollower | None:
    """The study that a run is part of, if somebody measures it."""
    if run.started is None or run.started.study is None:
        return None
    try:
        study = StudyFollower(store, run.started.study.study_id)
    except StoreError:
        return None
    return study if study.is_written() else None


def _next_run(study: StudyFollower, experiment_id: str, interval_s: float) -> str | None:
    """The study's next run, once there is one; None where nobody measures it any more."""
    is_written = True
    while not study.has_run_after(experiment_id):
        if not is_written:
            study.refresh()
            return None
        is_written = study.is_written()  # what is there after that is all
        time.sleep(interval_s)
    return study.newest_run()


def _standing(study: StudyFollower | None, run: LiveRun, *, is_running: bool = False) -> Standing | None:
    """Where the run stands; while it is watched, runs that have finished are read a few at a time."""
    if study is None or run.started is None or run.started.study is None:
        return None
    study.read_finished(READ_AT_ONCE if is_running else None)
    return study.standing(run.started.study, run.running_s() if run.ended is None else 0.0)


class _View:
    """The panel on a terminal; elsewhere a line for each stage, and the panel at the end."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._screen = Screen(sys.stdout) if console.can_be_drawn_over(sys.stdout) else None
        self._cost: OwnCost | None = None
        self._stage = ""

    def follow(self, follower: RunFollower, study: StudyFollower | None) -> LiveRun:
        """Show a run until it has ended."""
        run = follower.run
        for _ in _changes(follower, self._interval_s):
            self._cost = self._cost or OwnCost()
            self._show(run, _standing(study, run, is_running=True))
        return run

    def leave(self, run: LiveRun, standing: Standing | None) -> None:
        """What stays on the screen: of a study with its last run."""
        if self._screen is None:
            self.write(run, standing)
        elif standing is not None:
            self._show(run, standing)

    def write(self, run: LiveRun, standing: Standing | None) -> None:
        """The panel, once."""
        write_panel(panel(run, standing=standing, blocks=blocks_of(sys.stdout)))

    def _show(self, run: LiveRun, standing: Standing | None) -> None:
        if self._screen is not None:
            lines = panel(
                run,
                standing=standing,
                cost=self._cost,
                lines=self._screen.lines,
                blocks=blocks_of(sys.stdout),
            )
            self._screen.draw(lines)
        elif run.stage() != self._stage:
            self._stage = run.stage()
            console.say(f"{run.experiment_id}: {self._stage}")
            sys.stdout.flush()


def _changes(follower: RunFollower, interval_s: float) -> Iterator[None]:
    """Once at the start, then each time that there is something new, but not twice within half the interval; last at the end."""
    shown_at, is_news = float("-inf"), False
    while True:
        is_news |= follower.read()
        is_over = follower.run.ended is not None or not follower.run.is_written
        waited_s = time.monotonic() - shown_at
        if is_over or waited_s >= interval_s or (is_news and waited_s >= interval_s / 2):
            shown_at, is_news = time.monotonic(), False
            yield
        if is_over:
            return
        time.sleep(min(TICK_S, interval_s / 2))
