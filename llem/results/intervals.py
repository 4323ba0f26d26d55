"""Spans on the wall clock: how long they last together, and how far they ran side by side."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

Interval = tuple[datetime, datetime]
REQUIRED_OVERLAP = 0.5  # of the shortest


def union(spans: Iterable[Interval]) -> list[Interval]:
    """The same time as spans that do not touch, in order."""
    joined: list[Interval] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def duration(spans: Iterable[Interval]) -> timedelta:
    """Wall-clock time of the union."""
    return sum((end - start for start, end in union(spans)), timedelta())


def run_together(spans: Sequence[Interval]) -> bool:
    """Whether all share at least half of the shortest."""
    shared = min(end for _, end in spans) - max(start for start, _ in spans)
    shortest = min(end - start for start, end in spans)
    return shared >= timedelta() and shared >= REQUIRED_OVERLAP * shortest
