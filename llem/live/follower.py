"""Follows the log of one run as it grows, by reading alone."""

import time
from pathlib import Path

from llem.live.run import LiveRun
from llem.store import Store
from llem_events.damage import Verdict
from llem_events.following import GrowingSegments
from llem_events.replay import replay

LOOK_S = 1.0  # between two looks for new segments and for their writers


class RunFollower:
    """A run, and its segments as far as they were read."""

    def __init__(self, store: Store, experiment_id: str) -> None:
        self.run = LiveRun(experiment_id)
        self._store = store
        self._look_again_at = 0.0
        self._segments = GrowingSegments(self._paths, salvage_damage=True)

    def read(self) -> bool:
        """Take what is new; whether there was anything. Cheap enough for four times a second.

        Raises NewerFormatError, SegmentReadError.
        """
        was_written = self._look()
        grown = self._segments.grown()
        for reader in grown:
            for told in replay(reader):
                if reader.header is not None:
                    self.run.take(reader.header, told)
            self.run.is_damaged |= reader.verdict is Verdict.CORRUPT
        changed = bool(grown) or was_written != self.run.is_written
        self.run.is_written = was_written
        return changed

    def _look(self) -> bool:
        """Whether anybody writes, now and then anew: what is read after that nobody adds to."""
        if time.monotonic() < self._look_again_at:
            return self.run.is_written
        self._look_again_at = time.monotonic() + LOOK_S
        self._segments.look()
        return self._segments.are_written()

    def close(self) -> None:
        """Close the files."""
        self._segments.close()

    def _paths(self) -> list[Path]:
        """Samplers last: when their samples are read, the windows that these lie in are known."""
        paths = self._store.segments(self.run.experiment_id)
        return sorted(paths, key=lambda path: path.name.startswith("sampler"))
