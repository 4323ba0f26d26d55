"""A worker that wraps any program: samples, windows and energy around it, its exit status passed on, and what it leaves behind named."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from llem.measure import baseline, children
from llem.measure.children import StopFlag, StoppedError
from llem.measure.environment import snapshot
from llem.measure.known_calibrations import write_relied_on
from llem.measure.messages import MEASURING, Channel, EnterStage, ReportDone, ReportStop, WorkerSetup
from llem.measure.regions import Listener
from llem.measure.windows import SamplerLink, Windows, guard_s
from llem.measure.worker import open_log, received_setup, wait_at
from llem.parent_death import adopt_orphans
from llem.process_tree import descendants, name_of_living
from llem_events import BackgroundWriter
from llem_events.events import ProcessCompleted, ProcessStarted, WarningRaised

PATIENCE_S = 0.5  # the rest of a pipeline may end a moment after its last command
_SHOWN = 5
LABELS = "LLEM_LABELS"  # the variable in which the program finds the labels of its run, as JSON: in a study those of its cell
ENGINE_NAME = "command"
POLL_S = 0.2
LISTEN_S = 0.02
GRACE_S = 1.0


def wrap(supervisor: Channel, sampler: Channel) -> None:
    """The life of a wrapping worker: baseline, the program, completion marker, seal."""
    setup = received_setup(supervisor)
    stop = StopFlag(lambda name: supervisor.offer(ReportStop(name)))
    with open_log(setup) as log:
        link = SamplerLink(sampler)
        windows = Windows(log, link)
        _start(setup, link, log)
        _baseline(setup, windows, link, log, stop)
        if setup.processes > 1:
            wait_at("measurement", supervisor, stop)
        if stop():
            log.seal()
            raise StoppedError("stopped before the program was started")
        supervisor.send(EnterStage(MEASURING))
        with windows.open("measurement"):
            exit_status = _run(setup, stop, log)
        windows.guard(guard_s(setup.plan.windows.guard_s, link.averaged_s), sleep=stop.sleep)
        if left := processes_left():
            log.append(warning(left), at_ns=time.monotonic_ns())
        log.append(_completed(setup, exit_status, stop), at_ns=time.monotonic_ns())
        log.seal()
    supervisor.send(ReportDone(exit_status))


def _start(setup: WorkerSetup, link: SamplerLink, log: BackgroundWriter) -> None:
    event = ProcessStarted(
        process_index=setup.process_index,
        devices=link.devices,
        engine=ENGINE_NAME,
        environment=snapshot(link.gpus, meter=link.gpu_meter),
    )
    log.append(event, at_ns=time.monotonic_ns())
    write_relied_on(log, link, experiment=Path(setup.folder), environment=event.environment)


def _baseline(
    setup: WorkerSetup, windows: Windows, link: SamplerLink, log: BackgroundWriter, stop: StopFlag
) -> None:
    duration_s = setup.plan.windows.baseline_s
    if setup.known_baselines:
        event = baseline.reuse(setup.known_baselines, [*link.devices, *link.beside])
    elif duration_s > 0:
        event = baseline.measure("before", duration_s, windows=windows, sampler=link, sleep=stop.sleep)
    else:
        return
    log.append(event, at_ns=time.monotonic_ns())


def _run(setup: WorkerSetup, stop: StopFlag, log: BackgroundWriter) -> int:
    """Run the program on our terminal, and hear of its regions; returns its exit status as a shell would."""
    adopt_orphans()
    labels = {LABELS: json.dumps(setup.plan.labels)}
    with Listener(log) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "llem.parent_death", str(os.getpid()), *setup.command],
            pass_fds=[listener.write_end],
            env={**os.environ, **labels, **listener.environment},
        )
        ended = os.pidfd_open(process.pid)
        try:
            _wait(process, ended, stop, listener)
        finally:
            os.close(ended)
        listener.end()
    status = process.wait()
    return 128 - status if status < 0 else status


def _wait(process: subprocess.Popen[bytes], ended: int, stop: StopFlag, listener: Listener) -> None:
    """Until the program has ended. Asked to stop, it has GRACE_S for the Ctrl-C that it got itself; then it is told once."""
    stopping_since: float | None = None
    told = False
    while not _has_ended(ended, listener):
        if not stop():
            continue
        stopping_since = stopping_since or time.monotonic()
        if not told and time.monotonic() - stopping_since >= GRACE_S:
            process.terminate()
            told = True


def _has_ended(ended: int, listener: Listener) -> bool:
    """Whether it has, after some time; what it says is heard at once, and then not again for a moment: every waking costs the program."""
    readable, _, _ = select.select([ended, listener.fileno()], [], [], POLL_S)
    listener.hear()
    if ended not in readable and readable:
        readable, _, _ = select.select([ended], [], [], LISTEN_S)
    return ended in readable


def _completed(setup: WorkerSetup, exit_status: int, stop: StopFlag) -> ProcessCompleted:
    return ProcessCompleted(
        process_index=setup.process_index,
        exit_status=exit_status,
        stopped_early=stop(),
    )


def processes_left() -> dict[int, str]:
    """Process id -> name of every process below this one that does not end within PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := _living()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _living() -> dict[int, str]:
    pids = descendants(os.getpid()) - {os.getpid()}
    return {pid: name for pid in sorted(pids) if (name := name_of_living(pid))}


def warning(left: dict[int, str]) -> WarningRaised:
    """What is told of them."""
    shown = ", ".join(f"{name} {pid}" for pid, name in list(left.items())[:_SHOWN])
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    text = f"the program left processes behind, whose work is not measured from here on: {shown}{more}"
    return WarningRaised(code="program_left_processes", text=text, value=float(len(left)))


if __name__ == "__main__":
    sys.exit(children.live(wrap))
