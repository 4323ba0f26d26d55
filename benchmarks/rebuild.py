"""Replay of the log into the table `samples`, against DuckDB loading the same rows from one zstd Parquet file.

Both write the same table of the same database schema, in one transaction, in a process of their own with the same number of threads;
the clock runs from BEGIN to the closed file. Ours verifies every block's digest. The sides take turns; the ratio is that of the
medians, and 1 means as fast as Parquet. Both files are in the page cache. That the tables are equal is checked.

    python -m benchmarks.rebuild [--samples 10000000] [--rounds 3] [--threads 2] [--folder KEEP]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import duckdb

from benchmarks.sample_files import DEVICE_UUID, METER, segment_header, write_log, write_parquet
from llem.projections.database import Tables, create, create_tables
from llem.projections.ingest import Replay
from llem.projections.log_cells import MEASURED, Identity
from llem_events import SegmentReader

IDENTITY = Identity(segment_header().experiment_id, 0, segment_header().segment_id.hex())


class Run(NamedTuple):
    """One load: seconds, the process's largest memory, rows, and a digest of the table that no order of rows changes."""

    seconds: float
    cpu_s: float
    peak_mb: float
    rows: int
    digest: str


def load_log(connection: duckdb.DuckDBPyConnection, log: Path) -> None:
    """As catch-up does."""
    with SegmentReader(log) as reader:
        Replay(Tables(connection), reader, IDENTITY).run(None)


def load_parquet(connection: duckdb.DuckDBPyConnection, parquet: Path) -> None:
    """The same columns, with the same key columns and units."""
    keys = {**IDENTITY._asdict(), "device_uuid": DEVICE_UUID, "meter": METER}
    selected = ", ".join(
        [*(f"${name} AS {name}" for name in keys), *(f"{text} AS {name}" for name, text in MEASURED.items())]
    )
    connection.execute(f"INSERT INTO samples BY NAME SELECT {selected} FROM '{parquet}'", keys)


def load(path: Path, *, threads: int) -> Run:
    """Load a file into a fresh database and look at what came of it."""
    database = path.with_name("loaded.duckdb")
    database.unlink(missing_ok=True)
    connection = create(database)
    connection.execute(f"SET threads = {threads}")
    create_tables(connection)
    began, cpu_began = time.perf_counter(), time.process_time()
    connection.execute("BEGIN")
    (load_parquet if path.suffix == ".parquet" else load_log)(connection, path)
    connection.execute("COMMIT")
    connection.close()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    peak_mb = peak_memory_mb()
    with duckdb.connect(str(database), read_only=True) as connection:
        rows, digest = connection.execute("SELECT count(*), sum(hash(samples)) FROM samples").fetchall()[0]
    return Run(seconds, cpu_s, peak_mb, rows, str(digest))


def peak_memory_mb() -> float:
    """The kernel's high-water mark of this program; getrusage would tell that of the process which started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def load_elsewhere(path: Path, *, threads: int) -> Run:
    """The same in a fresh process, so that its memory is its own."""
    command = [sys.executable, "-m", "benchmarks.rebuild", "--load", str(path), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Run(*json.loads(done.stdout.splitlines()[-1]))


def describe(name: str, run: Run) -> str:
    """One run in words."""
    return (
        f"{name} {run.rows / run.seconds / 1e6:.2f} M/s, {run.cpu_s / run.rows * 1e9:.0f} ns of CPU per sample, "
        f"peak {run.peak_mb:.0f} MB"
    )


def compare(folder: Path, *, samples: int, rounds: int, threads: int) -> dict[str, object]:
    """Write the files unless they are there, load them in turn, and return the line for programs."""
    log, parquet = folder / f"{samples}.events.zst", folder / f"{samples}.parquet"
    for path, write in ((log, write_log), (parquet, write_parquet)):
        if not path.exists():
            write(path, samples)
    runs: dict[str, list[Run]] = {"log": [], "Parquet": []}
    for number in range(rounds):
        for name, path in (("log", log), ("Parquet", parquet)):
            runs[name].append(load_elsewhere(path, threads=threads))
            print(f"round {number}: {describe(name, runs[name][-1])}", flush=True)
    digests = {(run.rows, run.digest) for side in runs.values() for run in side}
    assert len(digests) == 1 and runs["log"][0].rows == samples, f"the tables differ: {digests}"
    ours, peer = (samples / statistics.median(run.seconds for run in side) for side in runs.values())
    return {
        "benchmark": "rebuild",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "rows/s",
        "n": samples,
        "peak_mb": max(run.peak_mb for run in runs["log"]),
    }


def main() -> None:
    """Measure and print; the last line is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the files here and use them again")
    parser.add_argument("--load", type=Path, help="load one file and print what it took")
    chosen = parser.parse_args()
    if chosen.load:
        print(json.dumps(load(chosen.load, threads=chosen.threads)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch)
        line = compare(folder, samples=chosen.samples, rounds=chosen.rounds, threads=chosen.threads)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
