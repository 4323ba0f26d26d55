"""The supervisor: starts the processes of one experiment, keeps them in step, and says how it ended."""

import signal
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from llem._version import __version__
from llem.measure import preflight, segments
from llem.measure.baseline import known_baselines
from llem.measure.pair import Failure, Pair
from llem.plan import Plan
from llem.plan_file import config_hash
from llem.store import Store, new_experiment_id
from llem_events import BackgroundWriter
from llem_events.events import ExperimentCompleted, ExperimentInterrupted, ExperimentStarted

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """What the whole experiment is doing now."""

    stage: str
    elapsed_s: float
    output_tokens: int
    requests: int
    tokens_per_second: float | None
    power_w: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an experiment ended."""

    experiment_id: str
    processes: int
    completed: int
    interrupted: bool
    failures: list[Failure] = field(default_factory=list)
    program_status: int | None = None  # of a wrapped program

    @property
    def is_complete(self) -> bool:
        """Every process has its completion marker, and nobody asked to stop."""
        return self.completed == self.processes and not self.interrupted


class Interruptions:
    """Counts SIGINT and SIGTERM while an experiment runs: the first asks the workers to stop, the second kills them."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Interruptions":
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        self.count += 1


def measure(
    plan: Plan,
    store: Store,
    *,
    command: Sequence[str] = (),
    strict: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Measure one plan into the store. Raises LlemError before anything is started, never after.

    When strict, what can only give a doubtful result is refused as well.
    """
    baselines = known_baselines(store, plan.windows)
    placements = preflight.check(plan, store, command=command, strict=strict)
    experiment_id = new_experiment_id()
    folder = store.create_experiment(experiment_id)
    with (
        segments.open_segment(
            folder, experiment_id=experiment_id, role="supervisor", sync=plan.log.sync
        ) as log,
        Interruptions() as asked,
    ):
        log.append(_started(plan, experiment_id, len(placements), command), at_ns=time.monotonic_ns())
        pairs = [
            Pair(
                plan,
                placement,
                index=index,
                processes=len(placements),
                experiment_id=experiment_id,
                folder=folder,
                command=command,
                known_baselines=baselines,
            )
            for index, placement in enumerate(placements)
        ]
        try:
            Supervision(pairs, log, asked, on_progress).run()
        finally:
            Pair.end(pairs)
        outcome = _outcome(experiment_id, pairs, interrupted=asked.count > 0)
        log.append(_ended(outcome), at_ns=time.monotonic_ns())
        log.seal()
    return outcome


class Supervision:
    """The loop that lets the pairs pass their barriers together and notices their ends."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        log: BackgroundWriter,
        asked: Interruptions,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._pairs, self._log, self._asked, self._on_progress = pairs, log, asked, on_progress
        self._started = time.monotonic()
        self._signals_sent = 0

    def run(self) -> None:
        """Until every worker has ended."""
        while living := [pair for pair in self._pairs if pair.is_working]:
            Pair.listen(living, timeout_s=POLL_S)
            self._record_deaths()
            self._pass_barriers()
            self._pass_on_interruption()
            self._on_progress(self._progress())

    def _record_deaths(self) -> None:
        for pair in self._pairs:
            for event in pair.take_events():
                self._log.append(event, at_ns=time.monotonic_ns())

    def _pass_barriers(self) -> None:
        """Open a barrier when every worker that still works has reached it."""
        working = [pair for pair in self._pairs if pair.is_working]
        waiting = {pair.barrier for pair in working}
        if len(waiting) == 1 and None not in waiting:
            for pair in working:
                pair.pass_barrier()

    def _pass_on_interruption(self) -> None:
        if self._asked.count > self._signals_sent:
            self._signals_sent = self._asked.count
            for pair in self._pairs:
                pair.stop(signal.SIGTERM if self._signals_sent == 1 else signal.SIGKILL)

    def _progress(self) -> Progress:
        working = [pair for pair in self._pairs if pair.is_working]
        rates = [pair.tokens_per_second for pair in self._pairs if pair.tokens_per_second is not None]
        powers = [pair.power_w for pair in working if pair.power_w is not None]
        return Progress(
            stage=working[0].stage if working else "done",
            elapsed_s=time.monotonic() - self._started,
            output_tokens=sum(pair.output_tokens for pair in self._pairs),
            requests=sum(pair.requests for pair in self._pairs),
            tokens_per_second=sum(rates) if rates else None,
            power_w=sum(powers) if powers else None,
        )


def _started(plan: Plan, experiment_id: str, processes: int, command: Sequence[str]) -> ExperimentStarted:
    return ExperimentStarted(
        experiment_id=experiment_id,
        plan=msgspec.to_builtins(plan),
        measurement_config_hash=config_hash(plan, command),
        expected_processes=processes,
        labels=plan.labels,
        llem_version=__version__,
        command=list(command),
    )


def _outcome(experiment_id: str, pairs: Sequence[Pair], *, interrupted: bool) -> Outcome:
    statuses = [pair.program_status for pair in pairs if pair.program_status is not None]
    return Outcome(
        experiment_id=experiment_id,
        processes=len(pairs),
        completed=sum(pair.is_done for pair in pairs),
        interrupted=interrupted,
        failures=[pair.failure for pair in pairs if pair.failure is not None],
        program_status=max(statuses, default=None),
    )


def _ended(outcome: Outcome) -> ExperimentCompleted | ExperimentInterrupted:
    failed = outcome.processes - outcome.completed
    if outcome.interrupted:
        return ExperimentInterrupted(
            reason="stopped by a signal", processes_completed=outcome.completed, processes_failed=failed
        )
    return ExperimentCompleted(processes_completed=outcome.completed, processes_failed=failed)
