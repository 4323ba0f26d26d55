"""The supervisor: starts the processes of one experiment, keeps them in step, and says how it ended."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from llem.errors import MeasureError, PlanError
from llem.measure import preflight
from llem.measure.baseline import known_baselines
from llem.measure.children import Interruptions
from llem.measure.diary import Diary, Whereabouts
from llem.measure.launch import Rank, group_environment
from llem.measure.messages import KnownBaseline, RunningServer
from llem.measure.outcome import Outcome, ended, failed_rank, lost, rank_ended, with_others
from llem.measure.pair import Failure, Pair, PairSetup
from llem.measure.run_settings import devices_set, put_back_earlier
from llem.measure.shared_server import SharedServer
from llem.measure.team import Team, team_of
from llem.measure.time_limit import TimeLimit
from llem.meters import MeterChoice
from llem.plan import Plan
from llem.plan_file import cell_hash, config_hash
from llem.store import Store, open_segment
from llem.versions import __version__
from llem_events import BackgroundWriter
from llem_events.events import Event, ExperimentStarted, StudyPlace

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """What the whole experiment is doing now."""

    stage: str
    detail: str  # what the stage waits for, and how long at most
    output_tokens: int
    requests: int
    tokens_per_second: float | None  # input and output
    output_tokens_per_second: float | None
    power_w: float | None
    power_is: str | None = None  # estimated or simulated, where no sensor tells it


def measure(
    plan: Plan,
    store: Store,
    *,
    command: Sequence[str] = (),
    strict: bool = False,
    place: StudyPlace | None = None,
    server: SharedServer | None = None,
    keeps_server: bool = False,
    rank: Rank | None = None,
    may_share: bool = False,
    limit: TimeLimit | None = None,
    collect: Callable[[Outcome], None] | None = None,
    on_start: Callable[[str, MeterChoice], None] = lambda experiment_id, meter: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    conclude: Callable[[Path], Iterable[Event]] = lambda folder: (),
) -> Outcome:
    """Measure one plan into the store; `on_start` hears the experiment's id and its meter. `place` is its place in a study.

    `conclude` says what the log in a folder has to be added of a measurement that succeeded.

    Under a `server` that it shares with others the plan's server is started where none runs, and left running if `keeps_server`.
    Once a `limit` is reached it ends as after a signal; what then hangs is killed.
    As one `rank` of several, it measures its part of one experiment together with them; only if they `may_share`, two use one GPU.
    `collect` is called when the log is whole, and of several ranks those of all.

    Raises LlemError, or KeyboardInterrupt for a signal, before anything is started; afterwards whatever happens is in the
    Outcome. When strict, what can only give a doubtful result is refused as well.
    """
    _check_ranks(plan, rank, command)
    with Interruptions() as asked, team_of(rank, plan, command=command, may_share=may_share) as team:
        baselines = known_baselines(store, plan.windows)
        is_running = server is not None and server.running is not None
        earlier = put_back_earlier(store)
        placements, meter = preflight.check(
            plan,
            store,
            command=command,
            strict=strict,
            server_runs=is_running,
            own=team.own_devices,
            ranks_here=(rank.local_size or 1) if rank is not None else 1,
        )
        team.begin(len(placements), [device for placement in placements for device in placement.devices])
        experiment_id = team.experiment_id
        with devices_set(plan, store, placements, command=command, experiment_id=experiment_id) as settings:
            asked.is_measuring = True
            folder = store.create_experiment(experiment_id, may_exist=rank is not None)
            with Whereabouts(folder) as whereabouts, _open_log(folder, plan, team) as log:
                diary = Diary(log)
                for event in (*_beginning(plan, team, command, place), *earlier, *settings.events):
                    diary.write(event)
                _quietly(lambda: on_start(experiment_id, meter))
                with _own_or_shared(plan, server) as shared:
                    setups = _setups(
                        settings.placements,
                        plan,
                        team,
                        folder=folder,
                        command=command,
                        baselines=baselines,
                        shared=shared,
                        keeps_server=keeps_server,
                    )
                    supervision = Supervision(
                        setups, diary, asked, whereabouts, team, limit=limit, on_progress=on_progress
                    )
                    supervision.run()
                    shared.running = supervision.running_server
                    for event in settings.put_back():
                        diary.write(event)
                    outcome = supervision.outcome(experiment_id)
                    for event in conclude(outcome.folder) if outcome.folder and outcome.is_success else ():
                        diary.write(event)
                    outcome = _close(outcome, diary, team, asked)
        if collect is not None:
            team.collect(lambda: collect(outcome), should_stop=lambda: asked.level > 1)
        return outcome


def _setups(
    placements: Sequence[preflight.Placement],
    plan: Plan,
    team: Team,
    *,
    folder: Path,
    command: Sequence[str],
    baselines: Sequence[KnownBaseline],
    shared: SharedServer,
    keeps_server: bool,
) -> list[PairSetup]:
    """What each pair of a worker and its sampler is started with."""
    return [
        PairSetup(
            plan=plan,
            placement=_in_group(placement, plan, team),
            index=team.first_process + index,
            processes=team.processes,
            experiment_id=team.experiment_id,
            folder=folder,
            command=command,
            known_baselines=baselines,
            keeper=shared.keeper,
            running_server=shared.running,
            keeps_server=keeps_server,
        )
        for index, placement in enumerate(placements)
    ]


def _check_ranks(plan: Plan, rank: Rank | None, command: Sequence[str]) -> None:
    """Raises MeasureError or PlanError for what several ranks cannot do, or what only they can."""
    if rank is not None and plan.is_served:
        raise _server_refused(rank)
    if plan.engine.parallel != "none":
        _check_parallel(plan, rank, command)


def _check_parallel(plan: Plan, rank: Rank | None, command: Sequence[str]) -> None:
    """Raises PlanError for a model over ranks without ranks, or with more than one process in each."""
    found = (
        "one process"
        if rank is None
        else "a program"
        if command
        else f"engine {plan.engine.name}"
        if plan.engine.name != "transformers"
        else "several workers of a rank"
        if plan.devices.gpus_per_worker != 1 or (plan.devices.workers or 1) != 1
        else None
    )
    if found is not None:
        raise PlanError(
            "engine.parallel = tp",
            found=found,
            expected="transformers in ranks of a launcher, one process each",
            hint="torchrun --nproc-per-node N --no-python llem measure ...",
        )


def _server_refused(rank: Rank) -> MeasureError:
    return MeasureError(
        f"a server under {rank.launcher}",
        found=f"rank {rank.rank} of {rank.size}",
        expected="one process, which starts or asks the server",
        hint="LLEM_SIZE=1 and LLEM_RANK=0 stand for one alone",
    )


def _in_group(placement: preflight.Placement, plan: Plan, team: Team) -> preflight.Placement:
    """The same, with what the processes of one model need to find each other."""
    if plan.engine.parallel == "none" or team.rank is None:
        return placement
    variables = group_environment(os.environ, team.rank, sees_own_gpu=bool(placement.devices))
    return replace(placement, environment={**placement.environment, **variables})


def _open_log(folder: Path, plan: Plan, team: Team) -> BackgroundWriter:
    """Of the experiment, or of a rank's part of it."""
    role: Literal["supervisor", "rank"] = "supervisor" if team.leads else "rank"
    return open_segment(folder, experiment_id=team.experiment_id, role=role, sync=plan.log.sync)


def _beginning(plan: Plan, team: Team, command: Sequence[str], place: StudyPlace | None) -> Iterator[Event]:
    if team.leads:
        yield _started(plan, team, command, place)
    yield from team.events()


def _close(own: Outcome, diary: Diary, team: Team, asked: Interruptions) -> Outcome:
    """Write down how it ended, for rank 0 once all ranks have; returns the end of the whole experiment as far as this rank knows it."""
    for event in team.end(rank_ended(own), should_stop=lambda: asked.level > 1):
        diary.write(event)
    outcome = with_others(own, team.others())
    if team.has_lost_leader:
        outcome = replace(outcome, failures=[*outcome.failures, failed_rank("RankLost", "rank 0 was lost")])
    if team.leads:
        for event in (*lost(team.others()), ended(outcome)):
            diary.write(event)
    diary.seal()
    team.sealed()
    return outcome


def _own_or_shared(
    plan: Plan, server: SharedServer | None
) -> contextlib.AbstractContextManager[SharedServer]:
    """The server that others share, which they end; else one for this experiment alone, ended with it."""
    return SharedServer(plan) if server is None else contextlib.nullcontext(server)


def _quietly(show: Callable[[], None]) -> None:
    """What a person sees never decides about a measurement: a screen that is gone is no reason to end one."""
    with contextlib.suppress(OSError, ValueError):
        show()


class Supervision:
    """Starts the pairs, lets them pass their barriers together, and notices their ends."""

    def __init__(
        self,
        setups: Sequence[PairSetup],
        diary: Diary,
        asked: Interruptions,
        whereabouts: Whereabouts,
        team: Team,
        *,
        limit: TimeLimit | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._limit = limit
        self._setups, self._diary, self._asked = setups, diary, asked
        self._whereabouts, self._team, self._on_progress = whereabouts, team, on_progress
        self._pairs: list[Pair] = []
        self._told = 0
        self._failures: list[Failure] = []

    def run(self) -> None:
        """Until every worker and every sampler has ended."""
        try:
            self._start()
            while living := [pair for pair in self._pairs if pair.is_working]:
                Pair.listen(living, timeout_s=POLL_S, wakers=self._team.wakers())
                self._record_deaths()
                self._pass_barriers()
                self._look_after_the_store()
                self._pass_on_the_stop()
                _quietly(lambda: self._on_progress(self._progress()))
        finally:
            Pair.end(self._pairs)
        self._record_deaths()

    @property
    def running_server(self) -> RunningServer | None:
        """The server that its worker has left running."""
        return next(
            (pair.running_server for pair in self._pairs if pair.running_server and pair.is_done), None
        )

    def outcome(self, experiment_id: str) -> Outcome:
        """How it ended."""
        statuses = [pair.program_status for pair in self._pairs if pair.program_status is not None]
        if self._diary.failure is not None:
            self._fail("LogWriteError", self._diary.failure)
        gone = self._whereabouts.is_gone()
        ends = [end for pair in self._pairs for end in (pair.failure, pair.sampler_failure)]
        failures = [end for end in ends if end is not None]
        return Outcome(
            experiment_id=experiment_id,
            folder=None if gone else self._whereabouts.path(),
            processes=len(self._setups),
            completed=sum(pair.is_done for pair in self._pairs),
            has_measured=any(pair.has_measured for pair in self._pairs),
            interrupted_by=self._asked.cause,
            is_over_time=self._limit is not None and self._asked.cause == self._limit.cause,
            failures=self._failures + failures,
            program_status=max(statuses, default=None),
        )

    def _start(self) -> None:
        try:
            for setup in self._setups:
                self._pairs.append(Pair(setup))
        except OSError as error:
            text = f"process {len(self._pairs)} cannot be started: {error.strerror or error}"
            self._fail(type(error).__name__, text, exit_status=2)

    def _fail(self, error_type: str, text: str, *, exit_status: int = 1) -> None:
        """The whole experiment ends for a reason of its own."""
        stage = self._pairs[0].stage if self._pairs else "starting"
        self._failures.append(Failure(None, error_type, text, stage, exit_status))

    def _look_after_the_store(self) -> None:
        if not self._failures and self._whereabouts.is_gone():
            self._fail("StoreRemoved", "the store was removed while it was measured")

    def _record_deaths(self) -> None:
        for pair in self._pairs:
            for event in pair.take_events():
                self._diary.write(event)

    def _pass_barriers(self) -> None:
        """Open a barrier when every worker that still works has reached it, those of other ranks included."""
        working = [pair for pair in self._pairs if pair.is_working]
        waiting = {pair.barrier for pair in working}
        barrier = waiting.pop() if len(waiting) == 1 else None
        if barrier is not None and (at_ns := self._team.passing_at_ns(barrier)) is not None:
            for pair in working:
                pair.pass_barrier(at_ns)

    def _pass_on_the_stop(self) -> None:
        for signal_name in [pair.stopped_by for pair in self._pairs if pair.stopped_by is not None]:
            self._asked.hear_of(signal_name)
        is_pointless = bool(self._failures) or any(pair.lacks_meter for pair in self._pairs)
        level = max(self._look_at_the_time(), self._asked.level, int(is_pointless))
        if level > self._told:
            self._told = level
            for pair in self._pairs:
                pair.stop(signal.SIGTERM if level == 1 else signal.SIGKILL)

    def _look_at_the_time(self) -> int:
        """What the time limit asks for, which is then the cause of the end."""
        level = 0 if self._limit is None else self._limit.level(self._setups[0].plan)
        if self._limit is not None and level:
            self._asked.hear_of(self._limit.cause)
        return level

    def _progress(self) -> Progress:
        working = [pair for pair in self._pairs if pair.is_working]
        return Progress(
            stage=working[0].stage if working else "done",
            detail=working[0].detail if working else "",
            output_tokens=sum(pair.output_tokens for pair in self._pairs),
            requests=sum(pair.requests for pair in self._pairs),
            tokens_per_second=_sum(pair.tokens_per_second for pair in self._pairs),
            output_tokens_per_second=_sum(pair.output_tokens_per_second for pair in self._pairs),
            power_w=_sum(pair.power_w for pair in working),
            power_is=next((pair.power_is for pair in working if pair.power_is is not None), None),
        )


def _sum(figures: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known else None


def _started(plan: Plan, team: Team, command: Sequence[str], place: StudyPlace | None) -> ExperimentStarted:
    return ExperimentStarted(
        experiment_id=team.experiment_id,
        plan=msgspec.to_builtins(plan),
        measurement_config_hash=config_hash(plan, command),
        expected_processes=team.processes,
        labels=plan.labels,
        llem_version=__version__,
        command=list(command),
        study=place,
        cell_hash=cell_hash(plan, command),
        rank_count=None if team.rank is None else team.rank.size,
    )
