"""One worker and its sampler, as the supervisor sees them."""

import select
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from llem.errors import MeterError
from llem.measure import children
from llem.measure.children import Child
from llem.measure.messages import (
    MEASURING,
    AnnounceMeter,
    AnyMessage,
    Barrier,
    Channel,
    EnterStage,
    Finish,
    KnownBaseline,
    PassBarrier,
    PeerGoneError,
    ReachBarrier,
    ReportDone,
    ReportFailure,
    ReportPower,
    ReportProgress,
    ReportServer,
    ReportStop,
    RunningServer,
    SamplerSetup,
    WorkerSetup,
)
from llem.measure.preflight import Placement
from llem.plan import Plan
from llem.process_tree import ending_signal
from llem.results.energy import MADE_UP
from llem.servers.keeper import Keeper
from llem_events.events import Event, ProcessFailed, WarningRaised
from llem_events.secrets import scrub

END_LIMIT_S = 10.0
_ENDS_OF_A_STOP = (-signal.SIGTERM, -signal.SIGKILL)  # before it could listen; killed by us
SAMPLER_END_LIMIT_S = 5.0  # it has a second of samples to write; longer, and it hangs in its driver


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a process has no completion marker; `exit_status` is what llem itself should end with."""

    process_index: int | None  # None: not one process's, but the whole experiment's
    error_type: str
    text: str
    stage: str
    exit_status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSetup:
    """What one pair is to do; `index` is its process's number of `processes`."""

    plan: Plan
    placement: Placement
    index: int
    processes: int
    experiment_id: str
    folder: Path
    command: Sequence[str]
    known_baselines: Sequence[KnownBaseline]
    keeper: Keeper | None = None  # of the server, where one is started here
    running_server: RunningServer | None = None
    keeps_server: bool = False


class Pair:
    """Starts both processes; then follows what they report until both have ended."""

    def __init__(self, setup: PairSetup) -> None:
        self.index = setup.index
        self.stage, self.detail = "starting", ""
        self.barrier: Barrier | None = None
        self.output_tokens = self.requests = 0
        self.tokens_per_second: float | None = None  # input and output
        self.output_tokens_per_second: float | None = None
        self.power_w: float | None = None
        self.power_is: str | None = None  # one of MADE_UP
        self.program_status: int | None = None
        self.running_server: RunningServer | None = None  # that it has left running
        self.is_done = False
        self.is_working = True
        self.is_sampling = True
        self.failure: Failure | None = None  # the worker's
        self.sampler_failure: Failure | None = None
        self.has_measured = False
        self.stopped_by: str | None = None  # the signal that the worker itself got
        self.lacks_meter = False  # the one that the plan names cannot be opened
        self._has_meter = setup.plan.meter.name == "auto"  # which may do without
        self._is_stopping = False
        self._events: list[Event] = []
        self._worker, self._sampler = _start(setup)
        self._set_up(setup)

    def _set_up(self, setup: PairSetup) -> None:
        """Tell both processes what they are to do."""
        self._tell_worker(
            WorkerSetup(
                experiment_id=setup.experiment_id,
                folder=str(setup.folder),
                plan=setup.plan,
                process_index=setup.index,
                processes=setup.processes,
                torch_device=setup.placement.torch_device,
                **_group(setup),
                command=list(setup.command),
                known_baselines=list(setup.known_baselines),
                running_server=setup.running_server,
                keeps_server=setup.keeps_server,
            )
        )
        self._tell_sampler(
            SamplerSetup(
                experiment_id=setup.experiment_id,
                folder=str(setup.folder),
                plan=setup.plan,
                process_index=setup.index,
                devices=list(setup.placement.devices),
                pid=_measured_pid(setup) or self._worker.pid,
            )
        )

    @staticmethod
    def listen(pairs: Sequence["Pair"], *, timeout_s: float, wakers: Sequence[int] = ()) -> None:
        """Wait for news from any process of the pairs, and take all of it; what comes on the `wakers` ends the wait as well."""
        poll, by_fd = select.poll(), {}
        for waker in wakers:
            poll.register(waker, select.POLLIN)
        for pair in pairs:
            for channel in pair._open_channels():
                by_fd[channel.fileno()] = (pair, channel)
                poll.register(channel.fileno(), select.POLLIN)
        for fd, _ in poll.poll(timeout_s * 1000):
            if fd in by_fd:
                pair, channel = by_fd[fd]
                pair._hear(channel)

    def take_events(self) -> list[Event]:
        """Facts about this pair that only its supervisor can write down."""
        events, self._events = self._events, []
        return events

    def pass_barrier(self, at_ns: int) -> None:
        """Let the worker pass the barrier at which it waits, not before this moment."""
        barrier, self.barrier = self.barrier, None
        if barrier is not None:
            self._tell_worker(PassBarrier(barrier, at_ns))

    def stop(self, number: signal.Signals) -> None:
        """Send the worker a signal; its sampler ends with it."""
        if self.is_working:
            self._is_stopping = True
            self._worker.process.send_signal(number)

    @staticmethod
    def end(pairs: Sequence["Pair"]) -> None:
        """All processes of the pairs have ended when this returns; samplers that hang are waited for together."""
        for pair in pairs:
            if pair.is_working:
                pair._worker.process.kill()
            pair._tell_sampler(Finish())
        deadline = time.monotonic() + SAMPLER_END_LIMIT_S
        for pair in pairs:
            pair._worker.end(timeout_s=END_LIMIT_S)
            pair._sampler.end(timeout_s=max(0.0, deadline - time.monotonic()))

    def _open_channels(self) -> list[Channel]:
        return [self._worker.channel, *([self._sampler.channel] if self.is_sampling else [])]

    def _hear(self, channel: Channel) -> None:
        try:
            message = channel.receive()
        except PeerGoneError:
            self._lose_worker() if channel is self._worker.channel else self._lose_sampler()
            return
        if message is not None:
            self._take(message, channel)

    def _take(self, message: AnyMessage, channel: Channel) -> None:
        match message:
            case EnterStage(stage, detail):
                self.stage, self.detail = stage, detail
                self.has_measured |= stage == MEASURING
            case ReportStop(signal_name) if not self._is_stopping:
                self.stopped_by, self._is_stopping = signal_name, True
            case ReportStop():
                return  # by us
            case ReachBarrier(barrier):
                self.barrier = barrier
            case ReportProgress():
                self.output_tokens, self.requests = message.output_tokens, message.requests
                self.output_tokens_per_second = message.output_tokens / message.elapsed_s
                self.tokens_per_second = (message.input_tokens + message.output_tokens) / message.elapsed_s
            case ReportPower(power_w):
                self.power_w = power_w
            case ReportServer(server):
                self.running_server = server
            case ReportDone(exit_status):
                self.is_done, self.program_status = True, exit_status
            case ReportFailure() if channel is self._worker.channel:
                self.failure = self._failed(message, self.stage)
            case ReportFailure() if self._has_meter:
                self._warn_of_sampler(message.text)
                self.sampler_failure = self._failed(message, f"sampling, {self.stage}")
            case ReportFailure():
                self.lacks_meter = True
                self.failure = self._failed(message, "opening its meter", least_status=MeterError.exit_status)
            case AnnounceMeter():
                self._has_meter = True
                sources = [metered.energy_source for metered in message.devices]
                self.power_is = next((source for source in MADE_UP if source in sources), None)

    def _failed(self, report: ReportFailure, stage: str, *, least_status: int = 0) -> Failure:
        status = max(report.exit_status, least_status)
        return Failure(self.index, report.error_type, report.text, stage, status)

    def _lose_worker(self) -> None:
        """The worker's end of the channel is closed: it is done, has reported why not, or was killed."""
        self.is_working = False
        status = self._worker.end(timeout_s=END_LIMIT_S)
        if self.is_done or self.failure is not None or (self._is_stopping and status == 0):
            return
        text = _last_words(self._worker, status)
        self._events.append(
            ProcessFailed(process_index=self.index, error_type="WorkerDied", message=text, stage=self.stage)
        )
        if not (self._is_stopping and status in _ENDS_OF_A_STOP):
            self.failure = Failure(self.index, "WorkerDied", text, self.stage, 1)

    def _lose_sampler(self) -> None:
        self.is_sampling = False
        if not self.is_working or self.is_done or self.lacks_meter or self.sampler_failure is not None:
            return
        status = self._sampler.end(timeout_s=END_LIMIT_S)
        if status == 0:
            # so it ends when its worker has, of which we may hear later
            return
        text = _last_words(self._sampler, status)
        self._warn_of_sampler(text)
        self.sampler_failure = Failure(self.index, "SamplerDied", text, f"sampling, {self.stage}", 1)

    def _warn_of_sampler(self, reason: str) -> None:
        self.power_w = None
        text = f"the sampler of process {self.index} is gone, so its power and energy are not measured from here on: {reason}"
        self._events.append(WarningRaised(code="sampler_died", text=text, value=float(self.index)))

    def _tell_worker(self, message: WorkerSetup | PassBarrier) -> None:
        try:
            self._worker.channel.send(message)
        except PeerGoneError:
            return  # its end is noticed when its channel is read

    def _tell_sampler(self, message: SamplerSetup | Finish) -> None:
        try:
            self._sampler.channel.send(message)
        except (PeerGoneError, OSError):
            return


class _Group(TypedDict, total=False):
    group_id: str
    group_rank: int
    group_size: int


def _group(setup: PairSetup) -> _Group:
    """Of one model over all processes; nothing where each has a model of its own."""
    if setup.plan.engine.parallel == "none":
        return {}
    return {"group_id": "0", "group_rank": setup.index, "group_size": setup.processes}


def _last_words(child: Child, status: int) -> str:
    """How a process ended that was to go on, and the last line that it printed on stderr."""
    ending = ending_signal(status)
    cause = f"ended with status {status}" if ending is None else f"killed by {ending}"
    return scrub("; ".join(filter(None, (cause, child.stderr_tail().rpartition("\n")[2]))))


def _measured_pid(setup: PairSetup) -> int | None:
    """The process whose CPU time is the model's, with all below it, where that is not the worker."""
    return setup.keeper.pid if setup.keeper is not None else setup.placement.pid


def _start(setup: PairSetup) -> tuple[Child, Child]:
    workers_end, samplers_end = Channel.pair()
    keeper = [] if setup.keeper is None else [setup.keeper]
    worker = children.start(
        _worker_module(setup),
        channels=[workers_end, *keeper],
        environment=setup.placement.environment,
        own_group=not setup.command,
    )
    sampler = children.start("llem.measure.sampler", channels=[samplers_end])
    workers_end.close()
    samplers_end.close()
    return worker, sampler


def _worker_module(setup: PairSetup) -> str:
    if setup.command:
        return "llem.measure.program"
    return "llem.measure.serving" if setup.plan.is_served else "llem.measure.worker"
