"""What the projector takes for many experiments: to build all tables, to find nothing new, to add one, and to derive all again by other formulas.

Each experiment has 3 segments, 75 events, 416 samples (or as many as are asked for) and 192 requests, written by the log's own writer. A
rebuild runs in a process of its own, whose CPU time and largest memory are taken; a query is `llem query` as a whole process. The peer is
DuckDB inserting the same rows, one Parquet file for each table, into the same empty tables: the ratio is its CPU time over ours. What derives again
stands beside a rebuild and beside DuckDB inserting the samples alone, and that its tables are those of a rebuild is checked:
--experiments 20 --samples 500000 is ten million samples.

    python -m benchmarks.projector [--experiments 10 100 1000] [--samples 416] [--folder KEEP]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np

from benchmarks.h100_trace import chunks
from benchmarks.rebuild import peak_memory_mb
from llem.plan import Plan
from llem.projections import catch_up, diff, rebuild
from llem.projections.database import create_tables
from llem.store import Store
from llem_events import SAMPLE_COLUMNS, SegmentHeader, SegmentWriter, columns
from llem_events.envelope import pack
from llem_events.events import (
    ClockRead,
    MeteredDevice,
    MeterStarted,
    Request,
    RequestsCompleted,
    SamplingCompleted,
)
from llem_events.files import OsFiles
from tests import world
from tests.world import NS, OFFSET_NS, OPENED_S, ORIGIN_NS, Dated, at, request

METER = "nvml"
BATCHES, BATCH_SIZE, TOKENS, BATCH_S = 24, 8, 16, 0.86
SAMPLES, EVENT_SAMPLES = 416, 13
LLEM = Path(sys.executable).with_name("llem")
Message = tuple[int, bytes]


class Cost(NamedTuple):
    """CPU seconds of a process and its children, and its largest memory."""

    cpu_s: float
    peak_mb: float = 0.0


class UnsyncedFiles(OsFiles):
    """Nothing here has to survive a power cut."""

    def sync(self, fd: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


def packed(events: Sequence[Dated]) -> list[Message]:
    """Each event's moment and message, as every segment of its role holds them."""
    return [(at(second), pack(event, at(second))) for second, event in events]


def worker_events() -> list[Dated]:
    """A baseline, a model, a batch of warm-up and the others measured, and the clocks now and then."""
    clocks = [
        (second, ClockRead(monotonic_ns=at(second), wall_ns=at(second) + OFFSET_NS))
        for second in (5.5, 9.0, 15.0, 19.0, 29.0)
    ]
    said = world.worker_events(
        counter_j=None, baseline_w=400.0, batches=[*map(measured, range(1, BATCHES))], warmup=batch(0, 6.5)
    )
    return sorted([*said, *clocks], key=itemgetter(0))


def measured(number: int) -> tuple[float, RequestsCompleted]:
    """One batch after the other, from the window's start."""
    start_s = OPENED_S + (number - 1) * BATCH_S
    return start_s + BATCH_S, RequestsCompleted(window="measurement", requests=batch(number, start_s))


def batch(number: int, start_s: float) -> list[Request]:
    """Requests that run together."""
    same = {"batch_index": number, "batch_size": BATCH_SIZE, "input_tokens": 32}
    first = number * BATCH_SIZE
    return [request(first + place, start_s, tokens=TOKENS, **same) for place in range(BATCH_SIZE)]


def sampler_events(samples: int) -> list[Dated]:
    """The recorded trace in so many samples, from the first second to the last."""
    metered = MeteredDevice(device=world.device(), energy_source="counter")
    started = MeterStarted(meter=METER, process_index=0, sample_hz=samples / 34, devices=[metered])
    taken: list[Dated] = []
    rows = np.concatenate(
        [np.stack([chunk[name] for name in SAMPLE_COLUMNS], axis=1) for chunk in chunks(samples)]
    )
    rows[:, 0] = np.linspace(at(0.5), at(34.5), samples, dtype=np.int64)
    for readings in np.array_split(rows, -(-samples // max(EVENT_SAMPLES, samples // 400))):
        event = columns.encode(readings, meter=METER, device_uuid=world.device().uuid)
        taken.append(((int(readings[-1, 0]) - ORIGIN_NS) / NS, event))
    ended = SamplingCompleted(samples=samples, samples_dropped=0, deadlines_missed=0)
    return [(0.2, started), *taken, (35.0, ended)]


class Maker:
    """Writes experiments that differ only in their ids."""

    def __init__(self, store: Store, samples: int) -> None:
        self._store = store.create()
        self._made = 0
        self._same = {"worker": packed(worker_events()), "sampler": packed(sampler_events(samples))}

    def make(self, experiments: int) -> None:
        """So many more."""
        for number in range(self._made, self._made + experiments):
            experiment_id = f"20260718-120000-{number:012x}"
            said = world.supervisor_events(plan=Plan(), experiment_id=experiment_id)
            for role, messages in {"supervisor": packed(said), **self._same}.items():
                index = None if role == "supervisor" else 0
                self._write(world.header_of(role, index=index, experiment_id=experiment_id), messages)
        self._made += experiments

    def _write(self, header: SegmentHeader, messages: Sequence[Message]) -> None:
        path = world.path_of(self._store, header)
        writer = SegmentWriter(path, header, sync="close", files=UnsyncedFiles())
        written_ns = ORIGIN_NS
        for at_ns, message in messages:
            if at_ns - written_ns > NS:
                writer.flush()
                written_ns = at_ns
            writer.append_message(message, at_ns=at_ns)
        writer.seal()


def in_a_process(*arguments: str) -> Cost:
    """This program with other arguments; it prints its cost."""
    command = [sys.executable, "-m", "benchmarks.projector", *arguments]
    return Cost(*json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def query(store: Store) -> Cost:
    """`llem query`, with the process that it starts."""
    before = _children_cpu_s()
    command = [str(LLEM), "query", "select count(*) from experiment_results", "--store", str(store.path)]
    subprocess.run(command, capture_output=True, check=True)
    return Cost(_children_cpu_s() - before)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def derive_again(store: Store) -> None:
    """As after an upgrade."""
    assert catch_up(store).derived_again
    own_cost()


def outdate(store: Store) -> None:
    """Make the tables those of other formulas."""
    with duckdb.connect(store.projections_path) as connection:
        connection.execute("UPDATE projection SET derived_digest = 'other formulas'")


def write_parquet(store: Store, folder: Path, *, only: str | None = None) -> None:
    """Every table of the projection, or one alone, as a file of its own."""
    folder.mkdir()
    with duckdb.connect(store.projections_path, read_only=True) as connection:
        for table in diff.tables(connection) if only is None else [only]:
            connection.execute(
                f"COPY {table} TO '{folder / table}.parquet' (FORMAT parquet, COMPRESSION zstd)"
            )


def load_parquet(folder: Path) -> None:
    """All of them into new tables."""
    path = folder / "loaded.duckdb"
    with duckdb.connect(path) as connection:
        create_tables(connection)
        connection.execute("DELETE FROM projection")
        for file in sorted(folder.glob("*.parquet")):
            connection.execute(f"INSERT INTO {file.stem} BY NAME SELECT * FROM '{file}'")
    path.unlink()


def compare(folder: Path, experiments: int, samples: int) -> dict[str, float]:
    """All figures of a store with so many experiments."""
    store = Store(folder / "store")
    maker = Maker(store, samples)
    maker.make(experiments)
    rebuilt = in_a_process("--rebuild", str(store.path))
    query(store)
    unchanged = query(store)
    outdate(store)
    again = in_a_process("--derive-again", str(store.path))
    maker.make(1)
    added = query(store)
    assert not rebuild(store, check=True).differs
    write_parquet(store, folder / "parquet")
    write_parquet(store, folder / "samples", only="samples")
    peer, samples_peer = (in_a_process("--load", str(folder / name)) for name in ("parquet", "samples"))
    return {
        "experiments": experiments,
        "rebuild_cpu_s": round(rebuilt.cpu_s, 2),
        "rebuild_peak_mb": round(rebuilt.peak_mb),
        "unchanged_cpu_s": round(unchanged.cpu_s, 3),
        "added_cpu_s": round(added.cpu_s, 3),
        "derive_again_cpu_s": round(again.cpu_s, 2),
        "derive_again_peak_mb": round(again.peak_mb),
        "derive_again_over_rebuild": round(again.cpu_s / rebuilt.cpu_s, 3),
        "parquet_cpu_s": round(peer.cpu_s, 2),
        "parquet_peak_mb": round(peer.peak_mb),
        "samples_parquet_cpu_s": round(samples_peer.cpu_s, 2),
    }


def own_cost() -> None:
    """Print what this process took, its start included."""
    print(json.dumps(Cost(time.process_time(), peak_memory_mb())))


def main() -> None:
    """Measure and print a line for each number of experiments; the last line is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiments", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each experiment")
    parser.add_argument("--make", type=Path, help="only write the largest store there")
    parser.add_argument("--rebuild", type=Path, help="rebuild this store and print what it took")
    parser.add_argument(
        "--derive-again", type=Path, help="derive outdated tables again and print what it took"
    )
    parser.add_argument(
        "--load", type=Path, help="load the Parquet files of this folder and print what it took"
    )
    chosen = parser.parse_args()
    if chosen.make:
        Maker(Store(chosen.make), chosen.samples).make(max(chosen.experiments))
        return
    if chosen.rebuild:
        rebuild(Store(chosen.rebuild))
        own_cost()
        return
    if chosen.derive_again:
        derive_again(Store(chosen.derive_again))
        return
    if chosen.load:
        load_parquet(chosen.load)
        own_cost()
        return
    growth = []
    for experiments in chosen.experiments:
        with tempfile.TemporaryDirectory() as scratch:
            growth.append(compare(Path(scratch), experiments, chosen.samples))
        print(growth[-1], flush=True)
    print(json.dumps(line(growth)))


def line(growth: Sequence[dict[str, float]]) -> dict[str, object]:
    """What programs read: the rates of the largest store, and the growth to it."""
    largest = growth[-1]
    ours, peer = (largest["experiments"] / largest[f"{side}_cpu_s"] for side in ("rebuild", "parquet"))
    return {
        "benchmark": "projector",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "experiments/CPU s",
        "n": largest["experiments"],
        "growth": growth,
    }


if __name__ == "__main__":
    main()
