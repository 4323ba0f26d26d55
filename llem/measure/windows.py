"""Windows: spans of the host's monotonic clock between two readings of the energy counters."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from llem.measure.sampling import SamplerLink
from llem_events import BackgroundWriter
from llem_events.events import EnergyEdge, WindowClosed, WindowOpened

WindowKind = Literal["baseline", "warmup", "measurement"]


class Windows:
    """Opens and closes windows in the log of one worker; a window's edge is the moment its counters were read."""

    def __init__(self, log: BackgroundWriter, sampler: SamplerLink) -> None:
        self._log, self._sampler = log, sampler
        self._counts: Counter[WindowKind] = Counter()

    @contextmanager
    def open(self, kind: WindowKind) -> Iterator[int]:
        """A window around the body, closed however the body ends; yields when it was opened."""
        index = self._counts[kind]
        self._counts[kind] += 1
        edges = self._sampler.read_edges()
        opened_ns = _latest(edges)
        self._log.append(WindowOpened(kind=kind, window_index=index, edges=edges), at_ns=opened_ns)
        # Whatever kills this process next, what was sampled in the window can be told from what was not.
        self._log.hurry()
        try:
            yield opened_ns
        finally:
            edges = self._sampler.read_edges()
            self._log.append(WindowClosed(kind=kind, window_index=index, edges=edges), at_ns=_earliest(edges))


def _latest(edges: Sequence[EnergyEdge]) -> int:
    return max((edge.at_ns for edge in edges), default=time.monotonic_ns())


def _earliest(edges: Sequence[EnergyEdge]) -> int:
    return min((edge.at_ns for edge in edges), default=time.monotonic_ns())
