"""Measurement windows of a process, and spans chosen within them after the fact."""

from collections.abc import Sequence

import duckdb

from llem.projections.derive.history import ProcessFacts, Span, Window


def window_span(connection: duckdb.DuckDBPyConnection, process: ProcessFacts, window: Window) -> Span:
    """When a window was open; one that was never closed ends with the last request that its worker reported, else with the last sample."""
    if window.closed_ns is not None:
        return window.opened_ns, window.closed_ns
    latest = connection.execute(
        "SELECT max(end_ns) FROM requests WHERE experiment_id = ? AND segment_id = ? AND window_kind = ? AND end_ns >= ?",
        [
            process.segment.experiment_id,
            process.segment.segment_id,
            window.opened.kind,
            window.opened_ns,
        ],
    ).fetchall()
    return window.opened_ns, int(latest[0][0] or _last_sample(connection, process, window))


def _last_sample(connection: duckdb.DuckDBPyConnection, process: ProcessFacts, window: Window) -> int:
    """A wrapped program reports no requests: what is known of it is what was sampled."""
    latest = connection.execute(
        "SELECT max(at_ns) FROM samples WHERE experiment_id = ? AND process_index = ? AND at_ns >= ?",
        [process.segment.experiment_id, process.process_index, window.opened_ns],
    ).fetchall()
    return int(latest[0][0] or window.opened_ns)


def measurement_spans(connection: duckdb.DuckDBPyConnection, process: ProcessFacts) -> list[Span]:
    """When the measurement windows of a process were open, in the order of opening."""
    return [window_span(connection, process, window) for window in process.measurement_windows]


def clipped(spans: Sequence[Span], chosen: Span) -> list[Span]:
    """The parts of the spans that lie within the chosen one."""
    overlaps = [(max(start, chosen[0]), min(end, chosen[1])) for start, end in spans]
    return [(start, end) for start, end in overlaps if start < end]
