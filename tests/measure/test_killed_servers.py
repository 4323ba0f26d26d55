"""Killed at a random moment, whoever it is: nothing of a server is left, and the log holds what came until a second before.

`LLEM_KILLS=50` does it so often.
"""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from llem.process_tree import descendants, name_of_living
from llem.servers.address import Address
from llem.units import NS_PER_S
from llem_events import SegmentReader, Verdict, unpack
from llem_events.events import RequestProgressed, RequestsCompleted, ServerStarted, WindowOpened
from tests.conftest import PATIENCE_S, Start, command_line, segments, wait_until
from tests.delays import best_of_rounds, delays

KILLS = int(os.environ.get("LLEM_KILLS", "4"))
WHO = ("llem", "worker", "load", "server", "keeper", "sampler")
MODULES = {
    "worker": "llem.measure.serving",
    "load": "llem.measure.load_process",
    "keeper": "llem.servers.keeper",
    "sampler": "llem.measure.sampler",
}
LOST_S = 1.0
# of a machine on which other things run
SLACK_S = 1.5
LONG_REQUESTS = (
    *("--server", "simulated", "--concurrency", "4", "--meter", "simulated"),
    *("--set", "workload.output_tokens.mean=400", "--set", "workload.min_duration_s=60"),
    *("--set", "windows.baseline_s=0.1", "--set", "windows.warmup_max_s=0.5"),
)


def _events(path: Path) -> list[Any]:
    with SegmentReader(path) as reader:
        events = [unpack(envelope) for block in reader.blocks() for envelope in reader.events(block)]
        assert reader.verdict in (Verdict.CLEAN, Verdict.UNCLOSED, Verdict.TORN), path
    return events


def _is_measuring(store: Path) -> bool:
    return any(
        isinstance(event, WindowOpened) and event.kind == "measurement"
        for path in segments(store, "worker")
        for event in _events(path)
    )


def _pid_of(who: str, llem: int, server: int) -> int:
    if who in ("llem", "server"):
        return {"llem": llem, "server": server}[who]
    return next(pid for pid in descendants(llem) if MODULES[who] in command_line(pid))


def _latest_chunk_ns(store: Path) -> int:
    """When the last chunk came that the log knows of."""
    (path,) = segments(store, "load")
    times_ns = [0]
    for event in _events(path):
        match event:
            case RequestProgressed(chunk_times_ns=chunks):
                times_ns += chunks[-1:]
            case RequestsCompleted(requests=requests):
                times_ns += [request.end_ns for request in requests]
    return max(times_ns)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(KILLS))
@best_of_rounds
def test_nothing_is_left_and_at_most_a_second_is_lost(start_llem: Start, store: Path, number: int) -> None:
    """No process, no port; every segment verifies, and the chunks of long requests are there."""
    rng = random.Random(number)
    who = WHO[number % len(WHO)]
    process = start_llem("measure", *LONG_REQUESTS)
    wait_until(lambda: _is_measuring(store))
    (worker,) = segments(store, "worker")
    started = next(event for event in _events(worker) if isinstance(event, ServerStarted))
    assert started.pid is not None
    time.sleep(rng.uniform(0.0, 2.5))
    family = descendants(process.pid)
    killed_ns = time.monotonic_ns()
    os.kill(_pid_of(who, process.pid, started.pid), signal.SIGKILL)
    if who == "sampler":
        # a sampler that is gone ends nothing; the person who sees it does
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    wait_until(lambda: not any(map(name_of_living, family)))
    assert not Address(started.url).is_open(timeout_s=1.0)
    for path in segments(store):
        _events(path)
    lost_s = (killed_ns - _latest_chunk_ns(store)) / NS_PER_S
    with delays():
        assert lost_s < LOST_S + SLACK_S
    print(f"{who}: {lost_s:.2f} s lost")
