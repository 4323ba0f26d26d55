"""What a query pays to catch up with the log: beside a measurement that goes on, and when a log was copied here.

Beside a measurement of many samples of one device a query has come before; the next one finds 15 seconds more, and its CPU time and
largest memory are taken. The copied log holds finished experiments and has no tables yet. A query is `llem query`'s, in the process that it
starts, with the process that waits for it; its interpreter's start is included. The peer is the same query with nothing new in the log.

    python -m benchmarks.catch_up [--samples 10000000] [--copied 30000000] [--experiments 10]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.h100_trace import PERIOD_NS
from benchmarks.large_runs import (
    BLOCK_SAMPLES,
    EXPERIMENT,
    OPENED_NS,
    batch,
    events_of,
    open_segment,
    shape_of,
    write,
    write_run,
)
from llem.projections.progress import Progress
from llem.query.process import running
from llem.store import Store
from llem.units import NS_PER_S
from llem_events.events import RequestsCompleted

SQL = "SELECT count(*), sum(energy_j) FROM samples"
LATER_SAMPLES = 1_500  # of 15 seconds at 100 Hz
LIMITS = {"beside": (1.0, 200), "copied": (45.0, 400)}  # CPU seconds, MB


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a query took, and how often it said how far it was."""

    cpu_s: float
    peak_mb: float
    told: int
    samples: int


class Measurement:
    """One that goes on: its segments are open, their writer lives, and a batch ends with every piece of it."""

    def __init__(self, store: Store, samples: int) -> None:
        self._events = events_of(shape_of("samples", 2 * samples, batch=32), EXPERIMENT)
        self._writers = {role: open_segment(store, EXPERIMENT, role) for role in self._events}
        self._samples = self._batches = 0
        write(self._writers["supervisor"], islice(self._events["supervisor"], 1), each=1)
        write(self._writers["worker"], islice(self._events["worker"], 3), each=1)  # up to its open window
        write(self._writers["sampler"], islice(self._events["sampler"], 1), each=1)
        self.go_on(samples)

    def go_on(self, samples: int) -> None:
        """For so many samples, and a batch at their end."""
        write(self._writers["sampler"], islice(self._events["sampler"], samples // BLOCK_SAMPLES), each=1)
        self._samples += samples
        ended_ns = OPENED_NS + self._samples * PERIOD_NS
        requests = batch(
            self._batches, 32 * self._batches, 32, 4, ended_ns - NS_PER_S, np.random.default_rng(0)
        )
        self._batches += 1
        completed = RequestsCompleted(window="measurement", requests=requests)
        write(self._writers["worker"], [(ended_ns, completed)], each=1)

    def stop(self) -> None:
        """As a crash does."""
        for writer in self._writers.values():
            writer.close()


def ask(store: Store) -> Asked:
    """One query; in this process and one that it starts."""
    told: list[Progress] = []
    with running(SQL, store=store, on_progress=told.append) as result:
        rows = list(result.rows())
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Asked(
        cpu_s=time.process_time() + children.ru_utime + children.ru_stime,
        peak_mb=children.ru_maxrss / 1024,
        told=len(told),
        samples=int(rows[0][0]),
    )


def ask_elsewhere(store: Store) -> Asked:
    """The same in a small process, because a child begins with the peak memory of whoever starts it."""
    command = [sys.executable, "-m", "benchmarks.catch_up", "--ask", str(store.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return msgspec.json.decode(done.stdout, type=Asked)


def beside(store: Store, samples: int) -> list[Asked]:
    """The first query, the one after 15 more seconds, and one with nothing new."""
    measurement = Measurement(store, samples)
    first = ask_elsewhere(store)
    measurement.go_on(LATER_SAMPLES)
    later = ask_elsewhere(store)
    assert later.samples == first.samples + LATER_SAMPLES == samples + LATER_SAMPLES
    return [first, later, ask_elsewhere(store)]


def copied(store: Store, samples: int, experiments: int) -> list[Asked]:
    """The first query of all, and one with nothing new."""
    shape = shape_of("samples", samples // experiments, batch=32)
    for number in range(experiments):
        write_run(store, shape, f"20260718-120000-{number:06x}")
    first = ask_elsewhere(store)
    assert first.samples == samples // experiments * experiments
    return [first, ask_elsewhere(store)]


def line(kind: str, samples: int, asked: Asked, nothing_new: Asked) -> str:
    """What programs read."""
    cpu_s, peak_mb = LIMITS[kind]
    return json.dumps(
        {
            "benchmark": f"catch_up_{kind}",
            "ours": asked.cpu_s,
            "peer": nothing_new.cpu_s,
            "ratio": asked.cpu_s / nothing_new.cpu_s,
            "unit": "CPU s",
            "n": samples,
            "peak_mb": asked.peak_mb,
            "told": asked.told,
            "limits": {"cpu_s": cpu_s, "peak_mb": peak_mb},
        }
    )


def main() -> None:
    """Measure and print; the last line of each is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000_000, help="of the measurement; 0: none")
    parser.add_argument("--copied", type=int, default=30_000_000, help="samples of the copied log; 0: none")
    parser.add_argument("--experiments", type=int, default=10, help="of the copied log")
    parser.add_argument("--ask", type=Path, help="ask this store and print what it took")
    chosen = parser.parse_args()
    if chosen.ask:
        print(msgspec.json.encode(ask(Store(chosen.ask))).decode())
        return
    for kind, samples in (("beside", chosen.samples), ("copied", chosen.copied)):
        if not samples:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            store = Store(Path(scratch) / "store").create()
            asked = beside(store, samples) if kind == "beside" else copied(store, samples, chosen.experiments)
        for each in asked:
            print(
                f"{kind}: {each.cpu_s:.2f} CPU s, peak {each.peak_mb:.0f} MB, told {each.told} times",
                flush=True,
            )
        print(line(kind, samples, asked[-2], asked[-1]), flush=True)


if __name__ == "__main__":
    main()
