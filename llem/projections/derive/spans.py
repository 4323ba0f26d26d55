"""Which spans of time figures are of: those of a process's windows and drains, cut to what was chosen and read in portions."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from llem.projections.derive.columns import Ints
from llem.projections.derive.history import ProcessFacts, Window
from llem.projections.derive.source import DRAIN, MEASUREMENT, Source, Span


def window_span(source: Source, process: ProcessFacts, window: Window) -> Span:
    """When a window was open; one that was never closed ends with the last request that its worker reported, else with the last sample.

    A wrapped program reports no requests: what is known of it is what was sampled.
    """
    opened_ns = window.opened_ns
    if window.closed_ns is not None:
        return opened_ns, window.closed_ns
    # what ends in a drain was asked in the measurement
    kind = MEASUREMENT if window.opened.kind == DRAIN else window.opened.kind
    latest_ns = source.last_end_ns(process.requests_segment_id or "", kind, opened_ns)
    return opened_ns, latest_ns or source.last_sample_ns(process.process_index, opened_ns) or opened_ns


def measurement_spans(source: Source, process: ProcessFacts) -> list[Span]:
    """When the measurement windows of a process were open, in the order of opening."""
    return [window_span(source, process, window) for window in process.measurement_windows]


def with_drains(source: Source, process: ProcessFacts, spans: Sequence[Span]) -> list[Span]:
    """Spans of the measurement; one that reaches the end of its window goes on to the end of the drain after it, where its last requests are answered."""
    ends_ns = {
        window_span(source, process, measured)[1]: window_span(source, process, drain)[1]
        for measured, drain in pairwise(process.windows)
        if (measured.opened.kind, drain.opened.kind) == (MEASUREMENT, DRAIN)
    }
    return [(start, max(end, ends_ns.get(end, end))) for start, end in spans]


def clipped(spans: Sequence[Span], chosen: Span) -> list[Span]:
    """The parts of the spans that lie within the chosen one."""
    overlaps = [(max(start, chosen[0]), min(end, chosen[1])) for start, end in spans]
    return [(start, end) for start, end in overlaps if start < end]


def portions(numbers: Ints, sizes: Ints, *, most: int) -> Iterator[tuple[int, int]]:
    """First and last of consecutive numbers whose sizes are about `most` together, so that a table is read in pieces."""
    places = np.cumsum(sizes) // most
    for portion in np.split(numbers, np.flatnonzero(np.diff(places)) + 1):
        if len(portion):
            yield int(portion[0]), int(portion[-1])
