"""What a query costs: `llem query "select 1"` as a whole process, and the result query over 10,000 experiments.

The peer is the least that any program with DuckDB must do: an interpreter that imports duckdb and selects 1. Ours finds the
store, looks whether the log has grown, starts and locks a child process, and prints. Whole processes are run in turn, so that
both see the same machine; the ratio is ours over theirs, and at most 3 is wanted.

The result query is the saved query energy_per_token plus a scan of every column but the JSON, timed inside one process on a
store with that many rows in experiment_results; under 0.2 s is wanted. The rows are copies of one measured experiment.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from llem.query.statements import saved_query
from llem.store import Store

LLEM = Path(sys.executable).with_name("llem")
MEASURE = ("--engine", "simulated", "--meter", "simulated", "--set", "workload.min_duration_s=1")
QUICK = ("--set", "windows.baseline_s=0.2", "--set", "windows.baseline_after_s=0.1")
PEER = (sys.executable, "-c", "import duckdb; duckdb.sql('select 1')")


def seconds(command: tuple[str | Path, ...]) -> float:
    """Wall time of one process from start to end."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def whole_processes(folder: Path, rounds: int) -> tuple[float, float]:
    """Medians of ours and of the peer, run in turn."""
    ours = (LLEM, "query", "select 1", "--store", folder)
    seconds(ours), seconds(PEER)  # the tables are built and the disk's cache is warm for both
    pairs = [(seconds(ours), seconds(PEER)) for _ in range(rounds)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return mine, theirs


def result_query(store: Store, experiments: int) -> float:
    """Fastest of five runs inside this process, over so many rows."""
    with duckdb.connect(store.projections_path) as connection:
        connection.execute(
            "INSERT INTO experiment_results BY NAME SELECT r.* REPLACE (experiment_id || '-' || i AS experiment_id, "
            "total_energy_j * (1 + i / 1e5) AS total_energy_j) FROM experiment_results r, range(?) copies(i)",
            [experiments - 1],
        )
    with duckdb.connect(store.projections_path, read_only=True) as connection:
        return min(timed(connection) for _ in range(5))


def timed(connection: duckdb.DuckDBPyConnection) -> float:
    """Seconds for the aggregate and for all rows in Python."""
    started = time.perf_counter()
    connection.execute(saved_query("energy_per_token").sql).fetchall()
    connection.execute("SELECT * EXCLUDE (result) FROM experiment_results").fetchall()
    return time.perf_counter() - started


def main() -> None:
    """Print every figure; the last line is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--experiments", type=int, default=10_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        subprocess.run(
            [LLEM, "measure", *MEASURE, *QUICK, "--store", store.path], check=True, capture_output=True
        )
        ours, peer = whole_processes(store.path, chosen.rounds)
        inside = result_query(store, chosen.experiments)
    print(f"llem query 'select 1' {ours:.3f} s, import duckdb and select 1 {peer:.3f} s, medians")
    print(f"result query over {chosen.experiments} experiments {inside:.3f} s, wanted: under 0.2 s")
    line = {
        "benchmark": "query",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "s",
        "n": chosen.rounds,
        "result_query_s": inside,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
