"""A worker that wraps any program: samples, windows and energy around it, and its exit status passed on."""

import os
import select
import subprocess
import sys
import time

from llem.errors import MeasureError
from llem.measure import baseline, children, leftover
from llem.measure.channel import Channel
from llem.measure.environment import snapshot
from llem.measure.messages import MEASURING, EnterStage, ReportDone, ReportStop, WorkerSetup
from llem.measure.sampling import SamplerLink
from llem.measure.stop import StopFlag, StoppedError
from llem.measure.windows import Windows
from llem.measure.worker import open_log
from llem.parent_death import adopt_orphans
from llem_events import BackgroundWriter
from llem_events.events import ProcessCompleted, ProcessStarted

ENGINE_NAME = "command"
POLL_S = 0.2
GRACE_S = 1.0


def wrap(supervisor: Channel, sampler: Channel) -> None:
    """The life of a wrapping worker: baseline, the program, completion marker, seal."""
    setup = supervisor.receive()
    if not isinstance(setup, WorkerSetup):
        raise MeasureError("worker", found=type(setup).__name__, expected="WorkerSetup")
    stop = StopFlag(lambda name: supervisor.offer(ReportStop(name)))
    with open_log(setup) as log:
        link = SamplerLink(sampler)
        windows = Windows(log, link)
        _start(setup, link, log)
        _baseline(setup, windows, link, log, stop)
        if stop():
            log.seal()
            raise StoppedError("stopped before the program was started")
        supervisor.send(EnterStage(MEASURING))
        with windows.open("measurement"):
            exit_status = _run(setup.command, stop)
        if left := leftover.processes_left():
            log.append(leftover.warning(left), at_ns=time.monotonic_ns())
        log.append(_completed(setup, exit_status, stop), at_ns=time.monotonic_ns())
        log.seal()
    supervisor.send(ReportDone(exit_status))


def _start(setup: WorkerSetup, link: SamplerLink, log: BackgroundWriter) -> None:
    event = ProcessStarted(
        process_index=setup.process_index,
        devices=link.devices,
        engine=ENGINE_NAME,
        environment=snapshot(link.devices),
    )
    log.append(event, at_ns=time.monotonic_ns())


def _baseline(
    setup: WorkerSetup, windows: Windows, link: SamplerLink, log: BackgroundWriter, stop: StopFlag
) -> None:
    duration_s = setup.plan.windows.baseline_s
    if setup.known_baselines:
        event = baseline.reuse(setup.known_baselines, link.devices)
    elif duration_s > 0:
        event = baseline.measure("before", duration_s, windows=windows, sampler=link, sleep=stop.sleep)
    else:
        return
    log.append(event, at_ns=time.monotonic_ns())


def _run(command: list[str], stop: StopFlag) -> int:
    """Run the program on our terminal; returns its exit status as a shell would."""
    adopt_orphans()
    process = subprocess.Popen([sys.executable, "-m", "llem.parent_death", str(os.getpid()), *command])
    ended = os.pidfd_open(process.pid)
    try:
        _wait(process, ended, stop)
    finally:
        os.close(ended)
    status = process.wait()
    return 128 - status if status < 0 else status


def _wait(process: subprocess.Popen[bytes], ended: int, stop: StopFlag) -> None:
    """Until the program has ended. Asked to stop, it has GRACE_S for the Ctrl-C that it got itself; then it is told once."""
    stopping_since: float | None = None
    told = False
    while not select.select([ended], [], [], POLL_S)[0]:
        if not stop():
            continue
        stopping_since = stopping_since or time.monotonic()
        if not told and time.monotonic() - stopping_since >= GRACE_S:
            process.terminate()
            told = True


def _completed(setup: WorkerSetup, exit_status: int, stop: StopFlag) -> ProcessCompleted:
    return ProcessCompleted(
        process_index=setup.process_index,
        exit_status=exit_status,
        stopped_early=stop(),
    )


if __name__ == "__main__":
    sys.exit(children.live(wrap))
