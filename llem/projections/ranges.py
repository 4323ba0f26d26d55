"""What a log can say at all: outside of it no sum of two columns would hold, for this experiment or for any beside it."""

from collections.abc import Sequence

import duckdb

from llem.projections.containment import MisfitError
from llem.projections.derive.history import ExperimentFacts
from llem_events import SegmentHeader

MAX_MONOTONIC_NS = 2**60  # 36 years without a reboot
MAX_WALL_NS = 2**62  # the year 2116
MAX_PROCESSES = 2**16
MAX_COUNT = 2**53  # beyond it a DOUBLE no longer tells two neighbours apart

_LIMITS = {  # table -> its columns, or what is extreme of them, and the most that they can be
    "events": {"at_ns": MAX_MONOTONIC_NS},
    "samples": {"at_ns": MAX_MONOTONIC_NS},
    "requests": {
        **dict.fromkeys(("arrival_ns", "start_ns", "first_token_ns", "end_ns"), MAX_MONOTONIC_NS),
        **dict.fromkeys(("list_min(token_times_ns)", "list_max(token_times_ns)"), MAX_MONOTONIC_NS),
        **dict.fromkeys(("input_tokens", "output_tokens", "batch_index", "batch_size"), MAX_COUNT),
    },
}


def check_header(header: SegmentHeader) -> None:
    """Raises MisfitError for clocks or an index that cannot be."""
    _check("monotonic_ns of the header", header.monotonic_ns, least=0, most=MAX_MONOTONIC_NS)
    _check("wall_ns of the header", header.wall_ns, least=0, most=MAX_WALL_NS)
    _check("process_index of the header", header.process_index or 0, least=0, most=MAX_PROCESSES)


def check_ranges(connection: duckdb.DuckDBPyConnection, facts: ExperimentFacts) -> None:
    """Raises MisfitError for moments and counts of the log that cannot be."""
    check_start(facts)
    _check_tables(connection, "WHERE experiment_id = ?", [facts.experiment_id])


def check_start(facts: ExperimentFacts) -> None:
    """Raises MisfitError for a number of processes that cannot be."""
    if facts.started is not None:
        _check("expected_processes", facts.started.expected_processes, least=0, most=MAX_PROCESSES)


def check_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Raises MisfitError for moments and counts that cannot be, in whatever experiment."""
    _check_tables(connection, "", [])


def _check_tables(connection: duckdb.DuckDBPyConnection, condition: str, values: Sequence[str]) -> None:
    for table, limits in _LIMITS.items():
        extremes = ", ".join(f"min({column}), max({column})" for column in limits)
        bounds = connection.execute(f"SELECT {extremes} FROM {table} {condition}", values).fetchall()[0]
        for (column, most), pair in zip(
            limits.items(), zip(bounds[::2], bounds[1::2], strict=True), strict=True
        ):
            for extreme in pair:
                _check(f"{column} of {table}", int(extreme or 0), least=-most, most=most)


def _check(what: str, found: int, *, least: int, most: int) -> None:
    if not least <= found <= most:
        raise MisfitError(f"{what}: found {found}, expected {least} to {most}")
