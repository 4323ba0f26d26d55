"""How far the work on the tables has come, for whoever shows it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

TELL_S = 0.25


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Work on the tables: so many of so many units are done."""

    work: str
    done: int
    total: int
    unit: str


OnProgress = Callable[[Progress], None]
_watcher: ContextVar[OnProgress | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_by(tell: OnProgress) -> Iterator[None]:
    """Whatever works on tables in the body tells `tell` how far it has come."""
    token = _watcher.set(tell)
    try:
        yield
    finally:
        _watcher.reset(token)


class Course:
    """Tells of one work after another, a few times a second; `reach` may be called as often as there is news."""

    def __init__(self) -> None:
        self._tell = _watcher.get()
        self._told_at = float("-inf")
        self._work, self._total, self._unit = "", 0, ""
        self._done = 0

    def begin(self, work: str, total: int, unit: str) -> None:
        """The next work, of which nothing is done."""
        self._work, self._total, self._unit, self._done = work, total, unit, 0
        self._told_at = float("-inf")
        self.reach(0)

    def reach(self, beyond: int) -> None:
        """So much is done beyond what is complete."""
        now = time.monotonic()
        if self._tell is None or now - self._told_at < TELL_S:
            return
        self._told_at = now
        done = min(self._done + beyond, self._total)
        self._tell(Progress(work=self._work, done=done, total=self._total, unit=self._unit))

    def complete(self, more: int) -> None:
        """So much more is complete."""
        self._done += more
        self.reach(0)
