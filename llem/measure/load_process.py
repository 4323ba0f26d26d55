"""The load process: asks a server as the plan says, and writes every request, with the times of its chunks, into a segment of role `load`.

Its worker starts it through `llem.measure.load_link.LoadLink`. What they say to each other, in order:

    worker                          load process
    LoadSetup                  ->   reads the prompts
                               <-   LoadReady, or ReportFailure
    StartLoad("warmup")        ->   writes load_planned
                               <-   LoadStarted
                               <-   LoadProgress, a few times a second
    EndLoad(drain=True)        ->
                               <-   LoadOffered: no request is due any more
                               <-   LoadDone: all have ended; load_completed is in the log
    StartLoad("measurement")   ->   the same; it ends by itself as the plan says
    Finish                     ->   seals, ends

It ends by its channel alone: signals wait in it for ever, and when its worker is gone it stops what is in flight, seals and ends. The API key is
read from the environment variable that the setup names.
"""

import asyncio
import contextlib
import gc
import os
import resource
import sys
import time
from pathlib import Path

from llem.errors import MeasureError
from llem.load.answer import Answer
from llem.load.client import Client, Rules, new_loop
from llem.load.http1 import Pool, Target
from llem.load.offers import Schedules, Window
from llem.load.openai import Server, Source
from llem.measure import children
from llem.measure.messages import (
    AnyMessage,
    Channel,
    EndLoad,
    Finish,
    LoadDone,
    LoadOffered,
    LoadProgress,
    LoadReady,
    LoadSetup,
    LoadStarted,
    Message,
    PeerGoneError,
    StartLoad,
)
from llem.plan import Plan
from llem.store import open_segment
from llem.units import NS_PER_S
from llem_events import BackgroundWriter
from llem_events.events import Request, RequestProgressed
from llem_events.request_events import requests_completed

GC_THRESHOLD = 100_000  # objects made since the last look for circles, of which a request makes none
_MAX_HELD_REQUESTS = 256


class Sink:
    """Takes what the client sees into the log, a few requests at a time."""

    def __init__(self, log: BackgroundWriter, window: Window) -> None:
        self._log, self._window = log, window
        self._held: list[Request] = []

    def completed(self, request: Request) -> None:
        self._held.append(request)
        if len(self._held) >= _MAX_HELD_REQUESTS:
            self._write_held()

    def progressed(self, answer: Answer, times_ns: list[int], tokens: list[int | None]) -> None:
        assert answer.start_ns is not None
        event = RequestProgressed(
            window=self._window,
            request_id=answer.request_id,
            arrival_ns=answer.arrival_ns,
            start_ns=answer.start_ns,
            chunk_times_ns=times_ns,
            chunk_tokens=tokens,
        )
        self._log.append(event, at_ns=time.monotonic_ns())

    def flush(self) -> None:
        self._write_held()
        self._log.hurry()

    def _write_held(self) -> None:
        held, self._held = self._held, []
        for event in requests_completed(held, window=self._window):
            self._log.append(event, at_ns=time.monotonic_ns())


class LoadProcess:
    """Runs one window after another, as its worker says."""

    def __init__(self, setup: LoadSetup, log: BackgroundWriter, worker: Channel) -> None:
        """Reads the prompts. Raises PlanError."""
        self._setup, self._log, self._worker = setup, log, worker
        self._target = Target(setup.base_url)
        self._schedules = Schedules(setup.plan)
        server = Server(
            base_url=setup.base_url,
            model=setup.model,
            body=setup.body,
            api_key_env=setup.api_key_env,
            vocabulary=setup.vocabulary,
        )
        self._sources: dict[Window, Source] = {
            "warmup": Source(setup.plan, self._schedules.warmup_prompts, server, is_warmup=True),
            "measurement": Source(setup.plan, self._schedules.prompts, server),
        }
        self._client: Client | None = None
        self._told: asyncio.Queue[AnyMessage | None] = asyncio.Queue()  # None: the worker is gone

    async def run(self) -> None:
        """Until `Finish`. Raises PeerGoneError once the worker is gone and all requests are stopped."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._worker.fileno(), self._hear)
        self._worker.send(LoadReady(pid=os.getpid(), prompts=len(self._schedules.prompts)))
        try:
            while (message := await self._told.get()) is not None:
                match message:
                    case StartLoad(window):
                        await self._offer(window)
                    case Finish():
                        return
            raise PeerGoneError
        finally:
            loop.remove_reader(self._worker.fileno())

    def _hear(self) -> None:
        try:
            message = self._worker.receive()
        except PeerGoneError:
            asyncio.get_running_loop().remove_reader(self._worker.fileno())
            message = EndLoad(drain=False)
            self._told.put_nowait(None)
        if isinstance(message, EndLoad):
            if self._client is not None:
                self._client.end(drain=message.drain)
        else:
            self._told.put_nowait(message)

    async def _offer(self, window: Window) -> None:
        pool = Pool(self._target)
        schedule = self._schedules.of(window)
        self._client = client = Client(
            pool,
            self._sources[window].request,
            Sink(self._log, window),
            _rules(self._setup.plan),
            on_offered=lambda at_ns: self._tell(LoadOffered(at_ns)),
            on_tick=self._tell_progress,
        )
        gc.collect()
        gc.freeze()
        starts_ns = time.monotonic_ns()
        planned = schedule.planned(self._setup.process_index, starts_ns=starts_ns)
        self._log.append(planned, at_ns=starts_ns)
        self._tell(LoadStarted(starts_ns))
        try:
            await client.run(schedule.offer, starts_ns=starts_ns)
        finally:
            self._client = None
            await pool.close()
        account = client.account.completed(
            process_index=self._setup.process_index,
            window=window,
            starts_ns=starts_ns,
            offered_ns=client.offered_ns or starts_ns,
            connections=pool.opened,
            stale_connections=pool.stale,
        )
        self._log.append(account, at_ns=account.ended_ns)
        self._log.hurry()
        self._tell(LoadDone(account, client.account.last_error))

    def _tell(self, message: Message) -> None:
        """A worker that is gone is noticed when its channel is read."""
        with contextlib.suppress(PeerGoneError):
            self._worker.send(message)

    def _tell_progress(self) -> None:
        client = self._client
        if client is None:
            return
        account, in_flight = client.account, client.in_flight.values()
        self._worker.offer(
            LoadProgress(
                elapsed_s=(time.monotonic_ns() - client.starts_ns) / NS_PER_S,
                requests=account.requests,
                failed_requests=account.failed_requests,
                in_flight=len(in_flight),
                waiting=client.waiting,
                input_tokens=account.input_tokens,
                output_tokens=account.output_tokens,
                chunks=account.chunks + sum(answer.chunks for answer in in_flight),
            )
        )


def _rules(plan: Plan) -> Rules:
    in_flight = plan.load.concurrency if plan.load.kind == "closed" else plan.load.max_concurrency or 1
    return Rules(
        drain_s=plan.load.drain_s,
        timeout_s=plan.load.timeout_s,
        max_failed_in_a_row=plan.workload.max_failed_batches * in_flight,
        keeps_text=plan.workload.record_text,
    )


def ask(worker: Channel) -> None:
    """The life of a load process: prompts, windows, seal."""
    setup = worker.receive()
    if not isinstance(setup, LoadSetup):
        raise MeasureError("load process", found=type(setup).__name__, expected="LoadSetup")
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    gc.set_threshold(GC_THRESHOLD)
    log = open_segment(
        Path(setup.folder),
        experiment_id=setup.experiment_id,
        role="load",
        process_index=setup.process_index,
        sync=setup.plan.log.sync,
    )
    with log:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(LoadProcess(setup, log, worker).run())
        finally:
            log.seal()


if __name__ == "__main__":
    sys.exit(children.live(ask))
