"""What a log can say at all: outside of it no sum of two columns would hold, for this experiment or for any beside it."""

from llem.projections.containment import MisfitError
from llem.projections.derive.history import ExperimentFacts
from llem.projections.derive.source import COUNTS, LIMITED, Source
from llem_events import SegmentHeader
from llem_events.events import RegionsReported, WorkReported

MAX_MONOTONIC_NS = 2**60  # 36 years without a reboot
MAX_WALL_NS = 2**62  # the year 2116
MAX_PROCESSES = 2**16
MAX_COUNT = 2**53  # beyond it a DOUBLE no longer tells two neighbours apart


def check_header(header: SegmentHeader) -> None:
    """Raises MisfitError for clocks or an index that cannot be."""
    _check("monotonic_ns of the header", header.monotonic_ns, least=0, most=MAX_MONOTONIC_NS)
    _check("wall_ns of the header", header.wall_ns, least=0, most=MAX_WALL_NS)
    _check("process_index of the header", header.process_index, least=0, most=MAX_PROCESSES)


def check_ranges(source: Source, facts: ExperimentFacts) -> None:
    """Raises MisfitError for moments and counts of the log that cannot be."""
    _check_start(facts)
    _check_reports(facts)
    for table in LIMITED:
        for column, extremes in source.extremes(table).items():
            most = MAX_COUNT if column in COUNTS else MAX_MONOTONIC_NS
            for extreme in extremes:
                _check(f"{column} of {table}", extreme, least=-most, most=most)


def _check_start(facts: ExperimentFacts) -> None:
    """Raises MisfitError for a number of processes that cannot be."""
    if facts.started is not None:
        _check("expected_processes", facts.started.expected_processes, least=0, most=MAX_PROCESSES)


def _check_reports(facts: ExperimentFacts) -> None:
    """Raises MisfitError for moments and counts of a wrapped program that cannot be."""
    for event in facts.every(RegionsReported):
        for region in event.regions:
            _check("began_ns of a region", region.began_ns, least=-MAX_MONOTONIC_NS, most=MAX_MONOTONIC_NS)
            _check("ended_ns of a region", region.ended_ns, least=-MAX_MONOTONIC_NS, most=MAX_MONOTONIC_NS)
            for count in (region.tokens, region.requests):
                _check("work in a region", count, least=0, most=MAX_COUNT)
    for work in facts.every(WorkReported):
        for name in work.__struct_fields__:
            _check(f"{name} that were reported", getattr(work, name), least=0, most=MAX_COUNT)


def _check(what: str, found: int | None, *, least: int, most: int) -> None:
    if found is not None and not least <= found <= most:
        raise MisfitError(f"{what}: found {found}, expected {least} to {most}")
