"""The worker of a serving engine: starts it or takes one that runs, has a load process ask it, and writes what it and its server saw."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from llem.errors import LlemError, MeasureError
from llem.measure import children
from llem.measure.children import StopFlag, StoppedError
from llem.measure.environment import snapshot
from llem.measure.known_calibrations import write_relied_on
from llem.measure.load_link import LoadFailedError, LoadLink
from llem.measure.messages import (
    MEASURING,
    Channel,
    LoadDone,
    LoadOffered,
    LoadProgress,
    LoadSetup,
    ReportDone,
    ReportProgress,
    ReportServer,
    ReportStop,
    RunningServer,
    WorkerSetup,
)
from llem.measure.scraper import Scraper, known_counters
from llem.measure.warmup import WarmupSpans, cool_down
from llem.measure.worker import Worker, open_log, received_setup, run_logged
from llem.meters import driver_state
from llem.meters.gpus import GpuState
from llem.plan import Plan
from llem.process_tree import ending_signal
from llem.servers import HOST, Server, create_server
from llem.servers.address import Address
from llem.servers.keeper import Keeper
from llem.servers.listening import family_of, listening_pid
from llem.servers.process import Awaited, Ready, ServerDiedError, ServerProcess, free_port
from llem_events import BackgroundWriter
from llem_events.events import (
    Event,
    LoadCompleted,
    ModelLoaded,
    ProcessCompleted,
    ProcessStarted,
    ServerStarted,
    ServerStopped,
    WarningRaised,
)

OUTPUT = "server.log"
WATCH_S = 0.5
NewsKind = TypeVar("NewsKind", LoadOffered, LoadDone)


class Served:
    """A server that answers: one that was started here, or somebody else's, which has no process of ours."""

    def __init__(self, address: Address, ready: Ready, process: ServerProcess | None) -> None:
        self.address, self.ready, self.process = address, ready, process
        self.pid = process.pid if process else listening_pid(address)

    def check(self) -> None:
        """Raises ServerDiedError where our own has ended."""
        if self.process is not None:
            self.process.check()


class Serving(Worker):
    """Board idle, server start, server idle, warm-up with the real mix, measurement, drain, guard, end of the server, board idle again."""

    def __init__(
        self,
        setup: WorkerSetup,
        log: BackgroundWriter,
        stop: StopFlag,
        *,
        supervisor: Channel,
        sampler: Channel,
        keeper: Keeper | None,
    ) -> None:
        super().__init__(setup, log, stop, supervisor=supervisor, sampler=sampler)
        self._keeper = keeper
        self._server: Server = create_server(setup.plan)
        self._has_died = self._is_load_ended = False

    def run(self) -> None:
        """The whole life; the server has ended when this returns or raises, unless it was there before."""
        self._begin()
        if self._setup.known_baselines:
            self._reuse_baseline()
        elif self._keeper is not None and self._setup.running_server is None:
            self._baseline("before", self._plan.windows.baseline_s)
        self._go_on()
        with self._serve() as served:
            account = self._ask(served)
        if self._keeper is not None and not self._setup.keeps_server:
            self._baseline("after", self._plan.windows.baseline_after_s)
        self._append(_completed(self._setup, account, stopped_early=self._should_stop()))

    def _append(self, event: Event) -> None:
        self._log.append(event, at_ns=time.monotonic_ns())

    def _begin(self) -> None:
        self._enter("starting")
        started = ProcessStarted(
            process_index=self._setup.process_index,
            devices=self._sampler.devices,
            engine=self._server.NAME,
            versions=self._server.versions(),
            environment=snapshot(self._sampler.gpus, meter=self._sampler.gpu_meter),
        )
        self._append(started)
        write_relied_on(
            self._log, self._sampler, experiment=Path(self._setup.folder), environment=started.environment
        )

    @contextmanager
    def _serve(self) -> Iterator[Served]:
        """A server that answers, ended afterwards where it was started here."""
        process = self._start_server() if self._keeper is not None else None
        try:
            yield self._answering(process)
        except BaseException as error:
            if isinstance(error, ServerDiedError) and self.stage == MEASURING:
                error.exit_status = 1
            self._end_server(process)
            raise
        if process is not None and self._setup.keeps_server and not self._should_stop():
            self._leave(process)
            return
        self._enter("ending the server")
        self._end_server(process)

    def _leave(self, process: ServerProcess) -> None:
        """Running, for the next experiment."""
        running = self._setup.running_server
        self._supervisor.send(
            ReportServer(
                running
                or RunningServer(
                    experiment_id=self._setup.experiment_id,
                    url=process.address.url,
                    pid=process.pid,
                    argv=process.argv,
                    output=str(process.output),
                    started_ns=process.started_ns,
                )
            )
        )

    def _answering(self, process: ServerProcess | None) -> Served:
        """Once it is ready, and the log says so."""
        address = process.address if process else self._address_of(self._plan.server.url or "")
        served = Served(address, self._await(address, process), process)
        self._append(self._started(served))
        self._append(self._model_loaded(served))
        return served

    def _address_of(self, url: str) -> Address:
        return Address(url, api_key_env=self._plan.server.api_key_env)

    def _start_server(self) -> ServerProcess:
        assert self._keeper is not None
        if (running := self._setup.running_server) is not None:
            return ServerProcess.running(
                pid=running.pid,
                argv=running.argv,
                started_ns=running.started_ns,
                keeper=self._keeper,
                address=self._address_of(running.url),
                output=Path(running.output),
            )
        port = self._plan.server.port or free_port()
        launch = self._server.launch(port=port)
        assert launch is not None
        self._enter("starting the server", self._server.NAME)
        return ServerProcess(
            launch,
            keeper=self._keeper,
            address=self._address_of(f"http://{HOST}:{port}"),
            output=Path(self._setup.folder) / OUTPUT,
            environment={**os.environ, **self._plan.server.env},
        )

    def _await(self, address: Address, process: ServerProcess | None) -> Ready:
        try:
            return Awaited(
                self._server,
                self._plan.server,
                address,
                check=process.check if process else lambda: None,
                should_stop=self._should_stop,
                tell=lambda what: self._enter("waiting for the server", what),
            ).ready()
        except ServerDiedError:
            self._go_on()
            raise
        except MeasureError as error:
            self._go_on()
            raise error if process is None else process.with_last_line(error) from error

    def _started(self, served: Served) -> ServerStarted:
        versions = self._server.versions()
        counters = self._server.COUNTERS or known_counters(served.address)
        return ServerStarted(
            kind=self._plan.server.kind or "",
            managed=served.process is not None,
            adopted_from=self._setup.running_server.experiment_id if self._setup.running_server else None,
            url=served.address.url,
            model=served.ready.model,
            pid=served.pid,
            version=next(iter(versions.values()), None),
            argv=served.process.argv if served.process else [],
            started_ns=served.process.started_ns if served.process else None,
            port_open_ns=served.ready.port_open_ns,
            healthy_ns=served.ready.healthy_ns,
            first_answer_ns=served.ready.first_answer_ns,
            input_tokens_metric=counters.input_tokens if counters else None,
            output_tokens_metric=counters.output_tokens if counters else None,
        )

    def _model_loaded(self, served: Served) -> ModelLoaded:
        begun = served.process.started_ns if served.process else None
        return ModelLoaded(
            model_name=served.ready.model,
            weights="simulated" if self._server.NAME == "simulated" else "unknown",
            source="server",
            load_time_ns=None if begun is None else served.ready.healthy_ns - begun,
            **self._parameters(served.ready),
        )

    @staticmethod
    def _parameters(ready: Ready) -> dict[str, Any]:
        parameters = (ready.listed.get("meta") or {}).get("n_params")
        if isinstance(parameters, int):
            return {"parameters": parameters}
        return {"missing": {"parameters": "the server does not say"}}

    def _end_server(self, process: ServerProcess | None) -> None:
        """One that was started here."""
        if process is None:
            return
        family, asked_ns = family_of(process.pid), time.monotonic_ns()
        kept = process.end(grace_s=self._plan.server.stop_timeout_s)
        status = kept.status
        self._append(
            ServerStopped(
                exit_status=status if status is not None and status >= 0 else None,
                signal=None if status is None else ending_signal(status),
                stop_ns=time.monotonic_ns() - asked_ns,
                memory_returned=self._memory_returned(family),
                last_lines=process.last_lines(),
            )
        )

    def _memory_returned(self, family: set[int]) -> bool | None:
        holders = self._processes_on_gpus()
        return None if holders is None else not holders & family

    def _processes_on_gpus(self) -> set[int] | None:
        """Ids of all processes on our GPUs; None where no driver tells."""
        gpus = self._gpu_states()
        told = [gpu.process_ids for gpu in gpus if gpu.process_ids is not None]
        return set().union(*told) if told else None

    def _gpu_states(self) -> list[GpuState]:
        ours = {device.parent_uuid or device.uuid for device in self._sampler.gpus}
        if self._sampler.gpu_meter is None:
            return []
        try:
            return [gpu for gpu in driver_state(self._sampler.gpu_meter).gpus if gpu.device.uuid in ours]
        except LlemError:
            return []

    def _ask(self, served: Served) -> LoadCompleted:
        """All that is asked of the server. Raises MeasureError where it cannot go on."""
        self._go_on()
        self._enter("reading prompts")
        link = LoadLink(
            LoadSetup(
                experiment_id=self._setup.experiment_id,
                folder=self._setup.folder,
                plan=self._plan,
                process_index=self._setup.process_index,
                base_url=served.address.url,
                model=served.ready.model,
                body=self._server.body(),
                api_key_env=self._plan.server.api_key_env,
                vocabulary=self._server.vocabulary(served.ready.listed),
            )
        )
        try:
            with Scraper(served.address, self._server.METRICS_PATH, self._log) as scraper:
                self._baseline("server_idle", self._plan.windows.baseline_s)
                self._warm_up_server(link, served)
                return self._measure_server(link, served, scraper)
        finally:
            link.close()

    def _warm_up_server(self, link: LoadLink, served: Served) -> None:
        """The planned load, until the rate of tokens varies no more than chance explains."""
        self._go_on()
        limits = self._plan.windows
        cooldown = cool_down(
            self._sampler,
            limit_s=limits.cooldown_max_s,
            should_stop=self._should_stop,
            tell=lambda awaited: self._enter("cooling down", awaited),
        )
        self._enter("warming up", f"until tokens come steadily, at most {limits.warmup_max_s:g} s")
        spans = WarmupSpans(limits)
        with self._windows.open("warmup"):
            link.start("warmup")
            deadline, reason = time.monotonic() + limits.warmup_max_s, None
            done: LoadDone | None = None
            while done is None:
                match self._hear(link, served):
                    case LoadDone() as done:
                        reason = reason or "the load ended"
                    case LoadProgress() as progress:
                        spans.add(progress)
                if reason is None:
                    reason = spans.reason_to_end(
                        late=time.monotonic() >= deadline, stopped=self._should_stop()
                    )
                    if reason is not None:
                        link.end(drain=not self._should_stop())
        self._append(spans.completed(reason or "the load ended", cooldown))
        _refuse_failing(done)

    def _measure_server(self, link: LoadLink, served: Served, scraper: Scraper) -> LoadCompleted:
        self._barrier("measurement")
        self._go_on()
        self._enter(MEASURING, _offered(self._plan))
        self._tell_of_others(served)
        scraper.read()
        with self._windows.open("measurement"):
            link.start("measurement")
            self._until(LoadOffered, link, served)
        with self._windows.open("drain"):
            self._enter(MEASURING, "until what is in flight has ended")
            account = self._until(LoadDone, link, served).account
        served.check()
        scraper.read()
        self._guard()
        self._tell_of_others(served)
        if account.gave_up is not None:
            raise LoadFailedError(account.gave_up, exit_status=1)
        return account

    def _until(self, kind: type[NewsKind], link: LoadLink, served: Served) -> NewsKind:
        """The first news of a kind; where a signal came, or the server has died, the load ends early and says so."""
        while not isinstance(news := self._hear_of_death(link, served), kind):
            if isinstance(news, LoadProgress):
                self._report(news)
            if (self._should_stop() or self._has_died) and not self._is_load_ended:
                self._is_load_ended = True
                link.end(drain=False)
        return news

    def _hear_of_death(self, link: LoadLink, served: Served) -> object:
        """The next news of the load; that the server has died is noted, and raised when all is in the log."""
        try:
            return self._hear(link, None if self._has_died else served)
        except ServerDiedError:
            self._has_died = True
            return None

    def _hear(self, link: LoadLink, served: Served | None) -> object:
        """The next news of the load. Raises ServerDiedError where there is no server any more."""
        news = link.receive(timeout_s=WATCH_S)
        if served is not None and (news is None or isinstance(news, LoadProgress)):
            served.check()
        return news

    def _report(self, progress: LoadProgress) -> None:
        if progress.elapsed_s > 0:
            self._supervisor.offer(
                ReportProgress(
                    input_tokens=progress.input_tokens,
                    output_tokens=progress.output_tokens,
                    requests=progress.requests,
                    elapsed_s=progress.elapsed_s,
                )
            )

    def _tell_of_others(self, served: Served) -> None:
        """Whoever else is on the server's GPUs makes their energy more than the server's."""
        holders = self._processes_on_gpus()
        if not holders or served.pid is None:
            return
        others = sorted(holders - family_of(served.pid))
        if others:
            text = f"processes that are not the server's are on its GPUs: {', '.join(map(str, others[:5]))}"
            self._append(WarningRaised(code="other_process_on_gpu", text=text, value=float(len(others))))


def _refuse_failing(done: LoadDone) -> None:
    """A server that answers no request well in the warm-up will not do so later."""
    account = done.account
    if account.requests and account.failed_requests == account.requests:
        text = f"every request of the warm-up failed, {account.requests} of them"
        why = account.gave_up or f"the last with {done.last_error}"
        raise LoadFailedError(f"{text}: {why}", exit_status=1)


def _offered(plan: Plan) -> str:
    return f"{plan.load.offered}, {plan.workload.min_duration_s:g} s at least"


def _completed(setup: WorkerSetup, account: LoadCompleted, *, stopped_early: bool) -> ProcessCompleted:
    return ProcessCompleted(
        process_index=setup.process_index,
        requests=account.requests,
        failed_requests=account.failed_requests,
        input_tokens=account.input_tokens,
        output_tokens=account.output_tokens,
        batches=account.requests,
        stopped_early=stopped_early,
    )


def serve(supervisor: Channel, sampler: Channel, keeper: Channel | None = None) -> None:
    """The life of such a worker."""
    setup = received_setup(supervisor)
    stop = StopFlag(lambda name: supervisor.offer(ReportStop(name)))
    held = None if keeper is None else Keeper.inherited(os.dup(keeper.fileno()))
    with open_log(setup) as log:
        worker = Serving(setup, log, stop, supervisor=supervisor, sampler=sampler, keeper=held)
        run_logged(worker, log, untold=(StoppedError,))
    supervisor.send(ReportDone())


if __name__ == "__main__":
    sys.exit(children.live(serve))
