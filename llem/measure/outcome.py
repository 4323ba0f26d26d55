"""How an experiment ended: as one rank knows it, and as rank 0 tells it once it has heard of all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llem.measure.pair import Failure
from llem.measure.rank_wire import Ended
from llem.measure.rendezvous import Member
from llem_events.events import ExperimentCompleted, ExperimentInterrupted, WarningRaised


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an experiment ended; `folder` is where its log is now, None where that was removed."""

    experiment_id: str
    folder: Path | None
    processes: int
    completed: int
    has_measured: bool  # a measurement window was reached, so that there is something to show
    interrupted_by: str | None = None
    is_over_time: bool = False  # that was its time limit, and no signal
    failures: list[Failure] = field(default_factory=list)
    program_status: int | None = None  # of a wrapped program

    @property
    def interrupted(self) -> bool:
        """A signal or its time limit ended it."""
        return self.interrupted_by is not None

    @property
    def is_complete(self) -> bool:
        """Every process has its completion marker, and nothing and nobody ended it early."""
        return self.completed == self.processes and not self.interrupted and not self.failures

    @property
    def is_success(self) -> bool:
        """It was measured to its end, and what it measured did its work: a wrapped program said so by status 0."""
        return self.is_complete and not self.program_status

    @property
    def first_failure(self) -> str | None:
        """What went wrong first, in words; None where nothing did."""
        if self.failures:
            return f"failed while {self.failures[0].stage}: {self.failures[0].text}"
        return f"the program ended with exit status {self.program_status}" if self.program_status else None


def rank_ended(outcome: Outcome) -> Ended:
    """What rank 0 has to know of this rank's end."""
    return Ended(
        completed=outcome.completed,
        has_measured=outcome.has_measured,
        interrupted_by=outcome.interrupted_by,
        failures=[f"process {each.process_index}: {each.text}" for each in outcome.failures],
    )


def with_others(own: Outcome, others: Sequence[Member]) -> Outcome:
    """The end of the whole experiment, as rank 0 knows it."""
    ends = [member.ended for member in others if member.ended is not None]
    interrupted = [end.interrupted_by for end in ends if end.interrupted_by is not None]
    return replace(
        own,
        processes=own.processes
        + sum(member.ready.processes for member in others if member.ready is not None),
        completed=own.completed + sum(end.completed for end in ends),
        has_measured=own.has_measured or any(end.has_measured for end in ends),
        interrupted_by=own.interrupted_by or next(iter(interrupted), None),
        failures=[*own.failures, *(failure for member in others for failure in _failures_of(member))],
    )


def _failures_of(member: Member) -> Iterator[Failure]:
    if member.ended is None:
        yield failed_rank("RankLost", f"{member.name} was lost")
        return
    for text in member.ended.failures:
        yield failed_rank("RankFailed", f"{member.name}: {text}")


def failed_rank(error_type: str, text: str) -> Failure:
    return Failure(None, error_type, text, "being measured", 1)


def lost(others: Sequence[Member]) -> Iterator[WarningRaised]:
    for member in others:
        if member.ended is None:
            text = f"{member.name} was lost, and with it its processes"
            yield WarningRaised(code="rank_lost", text=text, value=float(member.join.rank))


def ended(outcome: Outcome) -> ExperimentCompleted | ExperimentInterrupted:
    failed = outcome.processes - outcome.completed
    if outcome.interrupted:
        return ExperimentInterrupted(
            reason=f"stopped by {outcome.interrupted_by}",
            processes_completed=outcome.completed,
            processes_failed=failed,
        )
    return ExperimentCompleted(
        processes_completed=outcome.completed, processes_failed=failed, failure=outcome.first_failure
    )
