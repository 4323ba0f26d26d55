"""How an experiment stands: from its events, and from whether its supervisor still lives."""

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from llem.projections.facts import ExperimentFacts, Segment
from llem.results.raw import Status
from llem_events import boot_id

ExperimentStatus = Literal["running", "completed", "interrupted", "incomplete", "failed", "damaged"]
RESULT_STATUS: dict[ExperimentStatus, Status] = {
    "completed": "completed",
    "interrupted": "interrupted",
    "failed": "failed",
}


def experiment_status(facts: ExperimentFacts) -> ExperimentStatus:
    """Complete is only an experiment all of whose processes have their completion marker."""
    if facts.refused is not None:
        return "damaged"
    if facts.imported is not None:
        return "completed"
    if facts.interrupted is not None:
        return "interrupted"
    if facts.completed is None and is_running(facts.segments):
        return "running"
    finished = {one.process_index for one in facts.processes if one.completed is not None}
    expected = facts.started.expected_processes if facts.started else len(facts.processes)
    if finished and finished >= set(range(expected)):
        return "completed"
    if not finished and any(one.failed is not None for one in facts.processes):
        return "failed"
    return "incomplete"


def is_running(segments: Iterable[Segment]) -> bool:
    """Whether the supervisor is a living process of this host; of another host, nothing can be known."""
    supervisor = next((one for one in segments if one.role == "supervisor"), None)
    if supervisor is None or supervisor.verdict == "clean":
        return False
    here = (platform.node(), boot_id())
    return (supervisor.host, supervisor.boot_id) == here and Path(f"/proc/{supervisor.pid}").exists()
