"""The worker process: runs the model through the windows of one experiment and writes what it saw."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, cast

from llem.engines import EncodedPrompt, Engine, create_engine
from llem.engines.base import GroupedEngine
from llem.errors import EngineError, MeasureError
from llem.measure import baseline, children
from llem.measure.children import StopFlag, StoppedError
from llem.measure.environment import snapshot
from llem.measure.known_calibrations import write_relied_on
from llem.measure.messages import (
    MEASURING,
    Barrier,
    Channel,
    EnterStage,
    PassBarrier,
    PeerGoneError,
    ReachBarrier,
    ReportDone,
    ReportStop,
    WorkerSetup,
)
from llem.measure.warmup import cool_down, warm_up
from llem.measure.windows import SamplerLink, Windows, guard_s
from llem.measure.workload import BatchRunner, Progress, Totals, encode
from llem.plan import WorkloadPlan
from llem.prompts import load_prompts, prompt_set_sha256, share
from llem.store import open_segment
from llem.units import NS_PER_S
from llem_events import BackgroundWriter, LogWriteError
from llem_events.events import (
    ModelLoaded,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    PromptsEncoded,
    WarningRaised,
)


class Worker:
    """One process of an experiment, from its setup to its completion marker."""

    def __init__(
        self,
        setup: WorkerSetup,
        log: BackgroundWriter,
        stop: StopFlag,
        *,
        supervisor: Channel,
        sampler: Channel,
    ) -> None:
        self._setup, self._plan, self._log = setup, setup.plan, log
        self._supervisor = supervisor
        self.stage = "starting"
        self._should_stop = stop
        self._sampler = SamplerLink(sampler)
        self._windows = Windows(log, self._sampler)
        self._agree: Callable[[bool], bool] | None = None

    def run(self) -> None:
        """Baseline, load, cool-down, warm-up, measurement, baseline again."""
        engine = self._start()
        try:
            prompts = self._encode(engine)
            if self._setup.known_baselines:
                self._reuse_baseline()
            else:
                self._baseline("before", self._plan.windows.baseline_s)
            runner = self._load(engine, prompts)
            self._warm_up(runner)
            totals = self._measure(engine, runner)
            peak_memory_bytes = engine.peak_memory_bytes()
        finally:
            engine.close()
        self._baseline("after", self._plan.windows.baseline_after_s)
        self._complete(totals, peak_memory_bytes)

    def fail(self, error: BaseException) -> None:
        """Write why this process ends without a completion marker."""
        event = ProcessFailed(
            process_index=self._setup.process_index,
            error_type=type(error).__name__,
            message=str(error),
            stage=self.stage,
        )
        self._log.append(event, at_ns=time.monotonic_ns())

    def _start(self) -> Engine:
        self._enter("starting")
        engine = create_engine(self._plan, device=self._setup.torch_device)
        event = ProcessStarted(
            process_index=self._setup.process_index,
            devices=self._sampler.devices,
            engine=engine.NAME,
            versions=engine.versions(),
            environment=snapshot(self._sampler.gpus, meter=self._sampler.gpu_meter),
            group_id=self._setup.group_id,
            group_rank=self._setup.group_rank,
        )
        self._log.append(event, at_ns=time.monotonic_ns())
        write_relied_on(
            self._log, self._sampler, experiment=Path(self._setup.folder), environment=event.environment
        )
        return engine

    @property
    def _is_silent(self) -> bool:
        """Another process of its group reports the requests: tokens count once."""
        return bool(self._setup.group_rank)

    def _baseline(self, position: Literal["before", "after", "server_idle"], duration_s: float) -> None:
        self._barrier("after" if position == "after" else "baseline")
        if duration_s <= 0 or self._should_stop():
            return
        self._enter(f"baseline {position.replace('_', ' ')}", f"idle power for {duration_s:g} s")
        event = baseline.measure(
            position, duration_s, windows=self._windows, sampler=self._sampler, sleep=self._should_stop.sleep
        )
        self._log.append(event, at_ns=time.monotonic_ns())

    def _reuse_baseline(self) -> None:
        self._enter("reusing a baseline")
        event = baseline.reuse(self._setup.known_baselines, [*self._sampler.devices, *self._sampler.beside])
        self._log.append(event, at_ns=time.monotonic_ns())

    def _encode(self, engine: Engine) -> list[EncodedPrompt]:
        """This process' prompts as tokens, before anything is measured: they may be what is wrong."""
        self._enter("reading prompts")
        size = self._setup.group_size
        prompts = share(
            load_prompts(self._plan), self._setup.process_index // size, self._setup.processes // size
        )
        encoded, warnings = encode(engine, prompts, too_long=self._plan.workload.too_long)
        for warning in warnings:
            self._log.append(warning, at_ns=time.monotonic_ns())
        return encoded

    def _load(self, engine: Engine, prompts: list[EncodedPrompt]) -> BatchRunner:
        self._go_on()
        self._enter("loading", self._plan.model.name)
        loaded = engine.load()
        self._log.append(loaded, at_ns=time.monotonic_ns())
        for warning in _doubts(loaded):
            self._log.append(warning, at_ns=time.monotonic_ns())
        self._log.append(_prompts_encoded(prompts), at_ns=time.monotonic_ns())
        self._agree = cast(GroupedEngine, engine).agree if self._setup.group_size > 1 else None
        return BatchRunner(
            engine,
            prompts,
            None if self._is_silent else self._log,
            agree=self._agree,
            batch_size=self._plan.engine.batch_size,
            stride=self._plan.workload.requests,
        )

    def _warm_up(self, runner: BatchRunner) -> None:
        self._go_on()
        limits = self._plan.windows
        cooldown = cool_down(
            self._sampler,
            limit_s=limits.cooldown_max_s,
            should_stop=self._should_stop,
            tell=lambda awaited: self._enter("cooling down", awaited),
        )
        self._enter(
            "warming up",
            f"until batches take equally long, at most {limits.warmup_max_batches} batches or {limits.warmup_max_s:g} s",
        )
        batches = runner.warmup_batches(self._should_stop)
        with self._windows.open("warmup"):
            event = warm_up(
                self._plan.windows,
                lambda: next(batches),
                cooldown=cooldown,
                should_stop=self._should_stop,
                agree=self._agree or (lambda go_on: go_on),
            )
        self._log.append(event, at_ns=time.monotonic_ns())

    def _measure(self, engine: Engine, runner: BatchRunner) -> Totals:
        self._barrier("measurement")
        self._go_on()
        self._enter(MEASURING, _least_and_most(self._plan.workload))
        engine.synchronize()
        with self._windows.open("measurement"):
            totals = runner.measure(
                self._plan.workload,
                should_stop=self._should_stop,
                progress=Progress(self._supervisor.offer),
                pause=self._should_stop.sleep,
            )
            engine.synchronize()
        self._guard()
        if totals.failed_batches >= self._plan.workload.max_failed_batches:
            self._give_up(totals)
        return totals

    def _guard(self) -> None:
        duration_s = guard_s(self._plan.windows.guard_s, self._sampler.averaged_s)
        if duration_s > 0 and not self._should_stop():
            self._enter("guard", f"{duration_s:g} s of idling, for sensors that average power")
            self._windows.guard(duration_s, sleep=self._should_stop.sleep)

    def _give_up(self, totals: Totals) -> None:
        """The model fails for good: its process fails, and what it did until then is kept."""
        text = f"{totals.failed_batches} batches in a row failed, so the measurement ended early; the last one: {totals.last_error}"
        warning = WarningRaised(
            code="failed_in_a_row",
            text=text,
            value=float(totals.failed_batches),
            threshold=float(self._plan.workload.max_failed_batches),
        )
        self._log.append(warning, at_ns=time.monotonic_ns())
        raise EngineError(text)

    def _complete(self, totals: Totals, peak_memory_bytes: int | None) -> None:
        if self._is_silent:
            totals = Totals()
        event = ProcessCompleted(
            process_index=self._setup.process_index,
            requests=totals.requests,
            failed_requests=totals.failed_requests,
            input_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens,
            batches=totals.batches,
            peak_memory_bytes=peak_memory_bytes,
            stopped_early=self._should_stop(),
        )
        self._log.append(event, at_ns=time.monotonic_ns())

    def _barrier(self, barrier: Barrier) -> None:
        wait_at(barrier, self._supervisor, self._should_stop)

    def _enter(self, stage: str, detail: str = "") -> None:
        self.stage = stage
        self._supervisor.send(EnterStage(stage, detail))

    def _go_on(self) -> None:
        if self._should_stop():
            raise StoppedError("stopped before anything was measured")


def _least_and_most(workload: WorkloadPlan) -> str:
    most = "" if workload.max_duration_s is None else f", at most {workload.max_duration_s:g} s"
    pauses = f", pauses of up to {workload.shift_pauses_s:g} s" if workload.shift_pauses_s else ""
    return f"{workload.requests} requests and {workload.min_duration_s:g} s at least{most}{pauses}"


def _doubts(loaded: ModelLoaded) -> Iterator[WarningRaised]:
    """What has to be known of a model whose weights may not be its own, or whose FLOPs cannot be told."""
    for doubt in loaded.doubts:
        yield WarningRaised(code="weights_doubtful", text=doubt)
    of_flops = ("non_embedding_parameters", "layers", "attention_heads", "head_size")
    if reason := next((loaded.missing[fact] for fact in of_flops if fact in loaded.missing), None):
        yield WarningRaised(code="flops_unknown", text=f"FLOPs are unknown: {reason}")


def _prompts_encoded(prompts: list[EncodedPrompt]) -> PromptsEncoded:
    encoded = [prompt for prompt in prompts if prompt.refusal is None]
    return PromptsEncoded(
        prompts=len(encoded),
        input_tokens=sum(len(prompt.token_ids) for prompt in encoded),
        prompt_set_sha256=prompt_set_sha256(encoded),
    )


def wait_at(barrier: Barrier, supervisor: Channel, stop: StopFlag) -> None:
    """Wait until every living worker is at the barrier, and for the moment at which all pass it; a stop ends the wait."""
    supervisor.send(ReachBarrier(barrier))
    while not stop():
        match supervisor.receive(timeout_s=0.2):
            case PassBarrier(passed, at_ns) if passed == barrier:
                stop.sleep(max(0.0, (at_ns - time.monotonic_ns()) / NS_PER_S))
                return


def open_log(setup: WorkerSetup) -> BackgroundWriter:
    """The worker's segment."""
    return open_segment(
        Path(setup.folder),
        experiment_id=setup.experiment_id,
        role="worker",
        process_index=setup.process_index,
        sync=setup.plan.log.sync,
    )


def received_setup(supervisor: Channel) -> WorkerSetup:
    """What a supervisor says first. Raises MeasureError for anything else."""
    setup = supervisor.receive()
    if not isinstance(setup, WorkerSetup):
        raise MeasureError("worker", found=type(setup).__name__, expected="WorkerSetup")
    return setup


def run_logged(worker: Worker, log: BackgroundWriter, *, untold: tuple[type[Exception], ...] = ()) -> None:
    """Run a worker and seal its segment. A failure is written to the log before it is raised again, if it is not `untold`."""
    try:
        worker.run()
    except (PeerGoneError, LogWriteError):
        raise
    except Exception as error:
        if not isinstance(error, untold):
            worker.fail(error)
        log.seal()
        raise
    log.seal()


def work(supervisor: Channel, sampler: Channel) -> None:
    """The life of a worker: setup, windows, seal."""
    setup = received_setup(supervisor)
    stop = StopFlag(lambda name: supervisor.offer(ReportStop(name)))
    with open_log(setup) as log:
        run_logged(Worker(setup, log, stop, supervisor=supervisor, sampler=sampler), log)
    supervisor.send(ReportDone())


if __name__ == "__main__":
    sys.exit(children.live(work))
