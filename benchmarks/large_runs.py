"""One large run into the tables: CPU time and peak memory of a rebuild, and of deriving its results once more.

Three runs are large in one way each: output tokens, requests, or samples of one device. Each is written by the log's own writer, rebuilt
in a process of its own and then derived again from its tables in another. The percentiles are compared with numpy's over the same
values; that is the peer, whose CPU time is that of making them from arrays. With --growth every run is made at n and at 4 n.

    python -m benchmarks.large_runs [--tokens 4000000] [--requests 1000000] [--samples 10000000] [--batch 32] [--growth]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.h100_trace import PERIOD_NS, chunks
from benchmarks.rebuild import peak_memory_mb
from llem.plan import Plan
from llem.projections import database, rebuild
from llem.projections.database import Tables
from llem.projections.derive.rows import derive
from llem.store import Store
from llem_events import SAMPLE_COLUMNS, SegmentWriter, columns
from llem_events.events import (
    Event,
    MeteredDevice,
    MeterStarted,
    ProcessCompleted,
    ProcessStarted,
    Request,
    RequestsCompleted,
    SamplingCompleted,
    WindowClosed,
    WindowOpened,
)
from tests import world

EXPERIMENT, METER = "20260718-120000-abcdef", "nvml"
OPENED_NS = 5_000_000_000_000  # when the samples of the trace begin
DEVICE = world.device()
TOKEN_NS, PREFILL_NS = 10_000_000, 50_000_000
BLOCK_SAMPLES, BLOCK_EVENTS = 100, 50
FEW_REQUESTS, FEW_TOKENS, MANY_TOKENS = 512, 4, 512
LIMITS = {"tokens": 8, "requests": 10, "samples": 15}  # CPU seconds, at the default sizes
LIMIT_MB = 400
Ints = npt.NDArray[np.int64]
Dated = tuple[int, Event]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How much of what a run holds."""

    requests: int
    tokens: int  # output tokens of a request
    batch: int
    samples: int

    @property
    def duration_ns(self) -> int:
        """Of the measurement window: all batches one after the other, or all samples."""
        batches = -(-self.requests // self.batch)
        worked_ns = batches * (PREFILL_NS + (self.tokens + 2) * TOKEN_NS)
        return max(worked_ns, self.samples * PERIOD_NS)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one process took, and the percentiles that it found."""

    cpu_s: float
    peak_mb: float
    latencies: dict[str, float | None]


def shape_of(kind: str, size: int, *, batch: int) -> Shape:
    """A run of so many tokens, requests or samples."""
    match kind:
        case "tokens":
            return Shape(requests=size // MANY_TOKENS, tokens=MANY_TOKENS, batch=batch, samples=1_000)
        case "requests":
            return Shape(requests=size, tokens=FEW_TOKENS, batch=batch, samples=1_000)
    return Shape(requests=FEW_REQUESTS, tokens=FEW_TOKENS, batch=batch, samples=size)


def write_run(store: Store, shape: Shape, experiment_id: str = EXPERIMENT) -> None:
    """The three segments of a run of one process."""
    for role, events in events_of(shape, experiment_id).items():
        writer = open_segment(store, experiment_id, role)
        write(writer, events, each=BLOCK_EVENTS if role == "worker" else 1)
        writer.seal()
        writer.close()


def events_of(shape: Shape, experiment_id: str) -> dict[str, Iterator[Dated]]:
    """What each of the three processes says, from its start to its end."""
    closed_ns = OPENED_NS + shape.duration_ns
    return {
        "supervisor": supervisor(experiment_id, closed_ns),
        "worker": worker(shape, closed_ns),
        "sampler": sampler(shape, closed_ns),
    }


def supervisor(experiment_id: str, closed_ns: int) -> Iterator[Dated]:
    """Start and end."""
    (_, started), (_, ended) = world.supervisor_events(plan=Plan(), experiment_id=experiment_id)
    yield OPENED_NS - 9, started
    yield closed_ns + 9, ended


def open_segment(store: Store, experiment_id: str, role: str) -> SegmentWriter:
    """A segment that nothing stands in yet, on the clock of the trace."""
    header = world.header_of(
        role,
        index=None if role == "supervisor" else 0,
        experiment_id=experiment_id,
        monotonic_ns=OPENED_NS - 10**9,
        wall_ns=10**18,
    )
    return SegmentWriter(world.path_of(store, header), header, sync="close")


def write(writer: SegmentWriter, events: Iterable[Dated], *, each: int) -> None:
    """A block for every so many events."""
    for number, (at_ns, event) in enumerate(events, 1):
        writer.append(event, at_ns=at_ns)
        if number % each == 0:
            writer.flush()


def worker(shape: Shape, closed_ns: int) -> Iterator[Dated]:
    """Batches one after the other, a token about every ten milliseconds."""
    yield OPENED_NS - 8, ProcessStarted(process_index=0, devices=[DEVICE], engine="transformers")
    yield OPENED_NS - 7, world.model()
    yield OPENED_NS, WindowOpened(kind="measurement")
    rng = np.random.default_rng(0)
    opened_ns = OPENED_NS
    batches = range(0, shape.requests, shape.batch)
    for number, first in enumerate(batches):
        count = min(shape.batch, shape.requests - first)
        requests = batch(number, first, count, shape.tokens, opened_ns, rng)
        opened_ns = max(request.end_ns for request in requests)
        yield opened_ns, RequestsCompleted(window="measurement", requests=requests)
    yield closed_ns, WindowClosed(kind="measurement")
    yield (
        closed_ns + 1,
        ProcessCompleted(
            process_index=0,
            requests=shape.requests,
            failed_requests=0,
            input_tokens=32 * shape.requests,
            output_tokens=shape.tokens * shape.requests,
            batches=len(batches),
        ),
    )


def batch(
    number: int, first: int, count: int, tokens: int, opened_ns: int, rng: np.random.Generator
) -> list[Request]:
    """Requests that run together, each with its own noise."""
    steps_ns = rng.integers(TOKEN_NS * 9 // 10, TOKEN_NS, (count, tokens))
    steps_ns[:, 0] = rng.integers(PREFILL_NS * 9 // 10, PREFILL_NS, count)
    times_ns = (opened_ns + np.cumsum(steps_ns, axis=1)).tolist()
    return [
        Request(
            request_id=first + place,
            batch_index=number,
            batch_size=count,
            arrival_ns=opened_ns,
            start_ns=opened_ns,
            first_token_ns=of_one[0],
            end_ns=of_one[-1] + 1_000,
            input_tokens=32,
            output_tokens=tokens,
            token_times_ns=of_one,
            finish_reason="length",
        )
        for place, of_one in enumerate(times_ns)
    ]


def sampler(shape: Shape, closed_ns: int) -> Iterator[Dated]:
    """The trace at 100 Hz; of a run that is not large by its samples only the first of them."""
    metered = MeteredDevice(device=DEVICE, energy_source="counter", counter_tick_ns=10**8)
    yield (
        OPENED_NS - 6,
        MeterStarted(meter=METER, process_index=0, sample_hz=1e9 / PERIOD_NS, devices=[metered]),
    )
    for chunk in chunks(shape.samples):
        rows = np.stack([chunk[name] for name in SAMPLE_COLUMNS], axis=1)
        for start in range(0, len(rows), BLOCK_SAMPLES):
            block = rows[start : start + BLOCK_SAMPLES]
            yield int(block[0, 0]), columns.encode(block, meter=METER, device_uuid=DEVICE.uuid)
    yield closed_ns + 2, SamplingCompleted(samples=shape.samples, samples_dropped=0, deadlines_missed=0)


def latencies(connection: duckdb.DuckDBPyConnection) -> dict[str, float | None]:
    """The latencies of the run's row."""
    asked = connection.execute("SELECT COLUMNS('(ttft|itl|e2e).*_ms') FROM experiment_results")
    names = [column[0] for column in asked.description or ()]
    return dict(zip(names, asked.fetchall()[0], strict=True))


def numpys(connection: duckdb.DuckDBPyConnection) -> dict[str, float]:
    """The percentiles by numpy, from the times in the table."""
    tokens = _column(connection, "unnest(token_times_ns)").reshape(-1, _tokens(connection))
    gaps_ms = np.diff(tokens, axis=1) / 1e6
    arrays = {
        "ttft": _column(connection, "first_token_ns - arrival_ns") / 1e6,
        "e2e": _column(connection, "end_ns - arrival_ns") / 1e6,
        "itl": gaps_ms.ravel(),
        "itl_trimmed": gaps_ms[:, 1:-1].ravel(),
    }
    shares = {"median": 50, "p95": 95, "p99": 99}
    return {
        f"{series}_{name}_ms": float(np.percentile(values, share))
        for series, values in arrays.items()
        for name, share in shares.items()
    }


def _column(connection: duckdb.DuckDBPyConnection, expression: str) -> Ints:
    found = connection.execute(f"SELECT {expression} AS found FROM requests").fetchnumpy()["found"]
    return np.asarray(found, np.int64)


def _tokens(connection: duckdb.DuckDBPyConnection) -> int:
    return int(connection.execute("SELECT any_value(output_tokens) FROM requests").fetchall()[0][0])


def rebuilt(store: Store) -> Cost:
    """The tables from the log; in this process."""
    rebuild(store)
    with database.connect(store.projections_path, read_only=True) as connection:
        return Cost(cpu_s=time.process_time(), peak_mb=peak_memory_mb(), latencies=latencies(connection))


def derived_again(store: Store) -> Cost:
    """The results from the tables; in this process."""
    with database.connect(store.projections_path, read_only=False) as connection:
        derive(Tables(connection), [EXPERIMENT])
        cpu_s, peak_mb = time.process_time(), peak_memory_mb()
        return Cost(cpu_s=cpu_s, peak_mb=peak_mb, latencies=latencies(connection))


def elsewhere(step: str, folder: Path) -> Cost:
    """A step in a fresh process, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.large_runs", "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step}: {done.stderr}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Cost)


def measure(kind: str, size: int, *, batch: int) -> dict[str, object]:
    """Both steps of one run, and whether its percentiles are numpy's."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "store").create()
        write_run(store, shape_of(kind, size, batch=batch))
        whole, again = (elsewhere(step, store.path) for step in ("rebuild", "derive"))
        with database.connect(store.projections_path, read_only=True) as connection:
            began = time.process_time()
            peer = numpys(connection)
            peer_s = time.process_time() - began
    differing = [name for name, value in peer.items() if whole.latencies[name] != value]
    for step, cost in (("rebuilt", whole), ("derived again", again)):
        print(
            f"{size} {kind} {step}: {cost.cpu_s:.1f} CPU s, peak {cost.peak_mb:.0f} MB",
            flush=True,
        )
    assert not differing and whole.latencies == again.latencies, f"not numpy's: {differing}"
    return {
        "benchmark": f"large_runs_{kind}",
        "ours": whole.cpu_s,
        "peer": peer_s,
        "ratio": whole.cpu_s / peer_s,
        "unit": "CPU s",
        "n": size,
        "peak_mb": whole.peak_mb,
        "derive_cpu_s": again.cpu_s,
        "derive_peak_mb": again.peak_mb,
        "limits": {"cpu_s": LIMITS[kind], "peak_mb": LIMIT_MB},
    }


def grown(kind: str, size: int, *, batch: int) -> dict[str, object]:
    """The same at n and 4 n."""
    small, large = (measure(kind, times * size, batch=batch) for times in (1, 4))
    factors = {
        name: float(str(large[name])) / float(str(small[name]))
        for name in ("ours", "peak_mb", "derive_cpu_s", "derive_peak_mb")
    }
    return {**large, "growth": factors}


def main() -> None:
    """Measure and print; the last line of each run is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=4_000_000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--growth", action="store_true", help="measure at n and 4 n")
    parser.add_argument("--step", choices=("rebuild", "derive"), help="do one step and print what it took")
    parser.add_argument("--folder", type=Path, help="store of that step")
    chosen = parser.parse_args()
    if chosen.step:
        step = {"rebuild": rebuilt, "derive": derived_again}[chosen.step]
        print(msgspec.json.encode(step(Store(chosen.folder))).decode())
        return
    sizes = {"tokens": chosen.tokens, "requests": chosen.requests, "samples": chosen.samples}
    for kind, size in sizes.items():
        if size:
            run = grown if chosen.growth else measure
            print(json.dumps(run(kind, size, batch=chosen.batch)), flush=True)


if __name__ == "__main__":
    main()
