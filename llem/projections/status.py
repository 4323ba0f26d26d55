"""How an experiment stands: from its events, and from whether anybody still writes them."""

from typing import Literal

from llem.projections.derive.history import ExperimentFacts
from llem.results.process import Status

ExperimentStatus = Literal["running", "completed", "interrupted", "incomplete", "failed", "damaged", "newer"]
RESULT_STATUS: dict[ExperimentStatus, Status] = {
    "completed": "completed",
    "interrupted": "interrupted",
    "failed": "failed",
}


def experiment_status(facts: ExperimentFacts) -> ExperimentStatus:
    """Complete is only an experiment all of whose processes have their completion marker."""
    if facts.refused is not None:
        return "newer" if facts.refused.verdict == "newer" else "damaged"
    if facts.imported is not None:
        return "completed"
    if facts.interrupted is not None:
        return "interrupted"
    if facts.completed is None and any(segment.being_written for segment in facts.segments):
        return "running"
    finished = {process.process_index for process in facts.processes if process.completed is not None}
    expected = facts.started.expected_processes if facts.started else len(facts.processes)
    if finished and finished >= set(range(expected)):  # bounded by check_ranges
        return "completed"
    if not finished and any(process.failed is not None for process in facts.processes):
        return "failed"
    return "incomplete"
