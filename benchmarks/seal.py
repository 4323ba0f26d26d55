"""A log sealed as Parquet: CPU time a sample, bytes beside the log's, and questions to the rows afterwards.

Ten experiments of two hosts, a segment each, are sealed in this process, one after the other, without their results: what a host or a rank does. The peer is
DuckDB writing the samples that are then in Parquet as Parquet once more: what the format costs without a log. Then a group-by over all rows,
the same over their seconds, and one experiment of them, with two threads. That one experiment's rows equal those of the table is checked by hash.

    python -m benchmarks.seal [--samples 10000000] [--folder KEEP]
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.sample_files import write_log
from llem.projections import database
from llem.projections.checkpoint import scan
from llem.projections.database import Tables, create_tables
from llem.projections.ingest import Replay, identity_of
from llem.projections.sealed import COPY_OPTIONS, open_sealed
from llem.seal.segment import Sealer
from llem.store import Store
from llem_events import SegmentReader, SegmentWriter
from tests import world

EXPERIMENTS, HOSTS = 10, 2
BY_DEVICE = "SELECT experiment_id, device_uuid, count(*), {} FROM {} GROUP BY ALL"
QUESTIONS = {
    "all samples by experiment and device": BY_DEVICE.format(
        "avg(power_w), max(energy_j) - min(energy_j)", "samples"
    ),
    "all seconds by experiment and device": BY_DEVICE.format(
        "sum(mean_power_w * samples) / sum(samples), max(energy_j) - min(energy_j)", "samples_1s"
    ),
    "samples of one experiment": "SELECT device_uuid, count(*), avg(power_w) FROM samples WHERE experiment_id = 'run-3' GROUP BY ALL",
}


def write_store(store: Store, samples: int) -> None:
    """One segment for each host of each experiment: the blocks of one trace under headers of their own."""
    trace = store.path / "trace.events.zst"
    write_log(trace, samples // (EXPERIMENTS * HOSTS))
    for number in range(EXPERIMENTS * HOSTS):
        experiment, index = divmod(number, HOSTS)
        header = world.header_of(
            "sampler", index=index, experiment_id=f"run-{experiment}", host=f"node-{index}"
        )
        writer = SegmentWriter(world.path_of(store, header), header, sync="close")
        with SegmentReader(trace) as reader:
            for block in reader.blocks():
                told = block.header
                writer.write_payload(block.payload, event_count=told.event_count, raw_length=told.raw_length)
        writer.seal()
        writer.close()
    trace.unlink()


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU seconds, seconds, and what came of it."""
    began, cpu_began = time.perf_counter(), time.process_time()
    found = work()
    return time.process_time() - cpu_began, time.perf_counter() - began, found


def seal_all(store: Store, root: Path) -> int:
    """Every segment; the bytes of Parquet."""
    sealer = Sealer()
    files = [file for segments in scan(store).values() for file in segments.values()]
    return sum(sealed.bytes for file in files for sealed in sealer.seal(file, root).files)


def copy_again(root: Path, scratch: Path) -> None:
    """The samples from Parquet to Parquet, a file at a time and with one thread, as they were sealed."""
    with duckdb.connect(config={"threads": 1}) as connection:
        for number, path in enumerate(sorted(root.glob("table=samples/*/*/*.parquet"))):
            target = scratch / f"{number}.parquet"
            connection.execute(f"COPY (FROM '{path}') TO '{target}' ({COPY_OPTIONS})")


def check_rows(store: Store, root: Path) -> None:
    """The rows of one experiment, against the table that the log gives."""
    with database.in_memory() as connection:
        create_tables(connection)
        for file in scan(store, ["run-3"])["run-3"].values():
            with SegmentReader(file.path) as reader:
                assert reader.header is not None
                Replay(Tables(connection), reader, identity_of(reader.header, file)).run(None)
        wanted = _digest(connection)
    with open_sealed(root, described=False) as sealed:
        found = _digest(sealed)
    assert found == wanted, f"sealed {found}, expected {wanted}"


def _digest(connection: duckdb.DuckDBPyConnection) -> list[Any]:
    return [
        connection.execute(
            f"SELECT count(*), sum(hash(t)) FROM {table} t WHERE experiment_id = 'run-3'"
        ).fetchall()
        for table in ("samples", "samples_1s")
    ]


def measure(store: Store, root: Path, samples: int) -> dict[str, object]:
    """Seal, copy, ask; print each, and return the line for programs."""
    log_bytes = sum(file.stat().st_size for file in store.log_path.rglob("*.zst"))
    cpu_s, wall_s, parquet_bytes = timed(lambda: seal_all(store, root))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ours = cpu_s / samples * 1e6
    sizes = f"{log_bytes / 1e6:.0f} MB of log, {parquet_bytes / 1e6:.0f} MB of Parquet, {parquet_bytes / log_bytes:.2f} times"
    print(
        f"sealed {samples:,} samples: {ours:.3f} us of CPU a sample, {wall_s:.1f} s, peak {peak_mb:.0f} MB; {sizes}"
    )
    scratch = root / "again"
    scratch.mkdir()
    copied_s, _, _ = timed(lambda: copy_again(root, scratch))
    shutil.rmtree(scratch)
    peer = copied_s / samples * 1e6
    print(f"DuckDB, Parquet to Parquet: {peer:.3f} us of CPU a sample")
    check_rows(store, root)
    with open_sealed(root, described=False) as connection:
        connection.execute("SET threads = 2")
        for name, sql in QUESTIONS.items():
            asked_s, wall_s, rows = timed(lambda sql=sql: connection.execute(sql).fetchall())
            print(f"{name}: {len(rows)} rows, {asked_s:.3f} s of CPU, {wall_s:.3f} s")
    return {
        "benchmark": "seal",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "us/sample",
        "n": samples,
    }


def main() -> None:
    """Measure and print; the last line is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="keep the log here and use it again")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = Store((chosen.folder or Path(scratch)) / f"seal-{chosen.samples}")
        if not store.log_path.is_dir():
            write_store(store.create(), chosen.samples)
        line = measure(store, Path(scratch) / "sealed", chosen.samples)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
