"""The panel of llem measure --live, in the process that supervises the measurement: it reads the log, as llem watch does."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llem.cli.panel import OwnCost, Screen, blocks_of, panel
from llem.live.run import RunFollower
from llem.store import Store
from llem_events.errors import LogError

if TYPE_CHECKING:
    from llem.measure.supervisor import Progress

REDRAW_S = 0.5


class LivePanel:
    """Drawn when the supervisor has something to tell, from when the run has a name."""

    def __init__(self, store: Store) -> None:
        self._store, self._screen = store, Screen(sys.stderr)
        self._follower: RunFollower | None = None
        self._cost = OwnCost()
        self._drawn_at = float("-inf")

    def begin(self, experiment_id: str) -> None:
        """The run that is measured."""
        self._follower = RunFollower(self._store, experiment_id)

    def update(self, progress: "Progress") -> None:
        """Show what the log has by now, unless the last picture is too young. A log that cannot be read ends no measurement."""
        if self._follower is None or time.monotonic() - self._drawn_at < REDRAW_S:
            return
        self._drawn_at = time.monotonic()
        with suppress(LogError):
            self._follower.read()
        lines = panel(
            self._follower.run, cost=self._cost, lines=self._screen.lines, blocks=blocks_of(sys.stderr)
        )
        self._screen.draw(lines)

    def end(self) -> None:
        """Leave nothing behind: the result comes in its place."""
        self._screen.erase()
        if self._follower is not None:
            self._follower.close()


@contextmanager
def live_panel(store: Store) -> Iterator[LivePanel]:
    """The panel for as long as the body runs."""
    shown = LivePanel(store)
    try:
        yield shown
    finally:
        shown.end()
