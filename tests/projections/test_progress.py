"""Whoever waits for the tables is told how far the work has come."""

import time

import pytest

from llem.projections import catch_up
from llem.projections.progress import TELL_S, Course, Progress, watched_by
from llem.store import Store
from tests.world import EXPERIMENT, experiment, supervisor


class Watcher:
    """Keeps what it is told, and takes so long over it that the next news is told too."""

    def __init__(self) -> None:
        self.told: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        time.sleep(TELL_S)

    def done(self, work: str) -> list[tuple[int, int, str]]:
        """The first and the last that was told of a work."""
        told = [(each.done, each.total, each.unit) for each in self.told if each.work == work]
        return [told[0], told[-1]]


@pytest.mark.usefixtures("tables")
def test_small_experiments_are_read_from_nothing_to_all_bytes(log: Store) -> None:
    """Of all their files."""
    experiment(log)
    with watched_by(watcher := Watcher()):
        catch_up(log)
    assert watcher.done("reading the log") == [(0, size(log), "bytes"), (size(log), size(log), "bytes")]


@pytest.mark.usefixtures("tables")
@pytest.mark.slow
def test_what_is_still_written_is_read_to_its_end_and_then_derived(log: Store) -> None:
    """Bytes first, experiments then."""
    supervisor(log, seal=False)
    with watched_by(watcher := Watcher()):
        catch_up(log)
    assert watcher.done("reading the log") == [(0, size(log), "bytes"), (size(log), size(log), "bytes")]
    assert watcher.done("deriving results") == [(0, 1, "experiments"), (1, 1, "experiments")]


def size(log: Store) -> int:
    """Bytes of all files of the only experiment."""
    return sum(path.stat().st_size for path in (log.log_path / EXPERIMENT).iterdir())


def test_news_is_told_now_and_then_and_of_no_more_than_there_is() -> None:
    """A new work is told at once, whatever was told before."""
    told: list[tuple[str, int, int]] = []
    with watched_by(lambda progress: told.append((progress.work, progress.done, progress.total))):
        course = Course()
        for work in ("reading", "deriving"):
            course.begin(work, 10, "bytes")
            course.complete(4)
            for beyond in (3, 30):
                time.sleep(TELL_S)
                for _ in range(1_000):
                    course.reach(beyond)
    assert len(told) < 2_000
    works = ("reading", "deriving")
    assert {(work, done, 10) for work in works for done in (0, 7, 10)} <= set(told)
    assert set(told) <= {(work, done, 10) for work in works for done in (0, 4, 7, 10)}
    assert told == sorted(told, key=lambda one: (works.index(one[0]), one[1]))


def test_nobody_is_told_of_work_that_nobody_watches() -> None:
    """Nor of what begins after the watcher has gone."""
    told: list[Progress] = []
    with watched_by(told.append):
        pass
    Course().begin("reading", 10, "bytes")
    assert told == []
