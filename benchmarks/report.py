"""What a report costs: 30 runs of a million samples each, after the tables have caught up; and the page of one of them, with all its samples too.

Its peer draws the same traces from the same tables without a page: bucket minimum, mean and maximum in one query for each run, and nothing else.

    python -m benchmarks.report [--runs 30] [--samples 1000000] [--keep FOLDER]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.large_runs import shape_of, write_run
from llem.store import Store

LLEM = (sys.executable, "-c", "import llem.cli; llem.cli.main()")
PEER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
for run in sys.argv[2:]:
    (first, last), = connection.execute("SELECT min(at_ns), max(at_ns) FROM samples WHERE experiment_id = ?", [run]).fetchall()
    connection.execute("SELECT (at_ns - $first) // $step, min(power_w), avg(power_w), max(power_w) FROM samples WHERE experiment_id = $run"
        " GROUP BY 1 ORDER BY 1", {"first": first, "step": (last - first) // 600, "run": run}).fetchall()
"""
LIMIT_S, LIMIT_MB, LIMIT_BYTES, LIMIT_ONE_BYTES = 5.0, 400.0, 1.5e6, 200e3


class Cost(NamedTuple):
    """What a process took."""

    cpu_s: float
    peak_mb: float


def run(*command: object) -> Cost:
    """A command in a process of its own, start included. Raises SystemExit where it fails."""
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[-1]} failed")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def measure(folder: Path, *, runs: int, samples: int) -> None:
    """Write the runs where there are none, let the tables catch up, and make the pages."""
    store, page, small = Store(folder / "store"), folder / "all.html", folder / "one.html"
    ids = [f"20260718-1200{number:02d}-abcdef" for number in range(runs)]
    if not store.log_path.exists():
        store.create()
        for experiment_id in ids:
            write_run(store, shape_of("samples", samples, batch=32), experiment_id)
    caught_up = run(*LLEM, "query", "SELECT 1", "--store", store.path)
    print(f"catching up: {caught_up.cpu_s:.1f} CPU s, {caught_up.peak_mb:.0f} MB", flush=True)
    whole = run(*LLEM, "report", *ids, "-o", page, "--force", "--store", store.path)
    one = run(*LLEM, "report", ids[0], "-o", small, "--force", "--store", store.path)
    one_bytes = small.stat().st_size
    with_samples = run(*LLEM, "report", ids[0], "-o", small, "--force", "--samples", "--store", store.path)
    peer = run(sys.executable, "-c", PEER, store.projections_path, *ids)
    print(f"{runs} runs: {whole.cpu_s:.1f} CPU s, {whole.peak_mb:.0f} MB, {page.stat().st_size / 1e3:.0f} kB")
    print(f"one run: {one.cpu_s:.1f} CPU s, {one.peak_mb:.0f} MB, {one_bytes / 1e3:.0f} kB")
    per_million = small.stat().st_size / 1e6 * 1e6 / samples
    print(
        f"with all samples: {with_samples.cpu_s:.1f} CPU s, {with_samples.peak_mb:.0f} MB, {per_million:.2f} MB a million"
    )
    print(
        f"the queries alone: {peer.cpu_s:.1f} CPU s, {peer.peak_mb:.0f} MB; ratio {whole.cpu_s / peer.cpu_s:.2f}"
    )
    limits = {"cpu_s": LIMIT_S, "peak_mb": LIMIT_MB, "bytes": LIMIT_BYTES, "one_bytes": LIMIT_ONE_BYTES}
    print(json.dumps({"benchmark": "report", "ours": whole.cpu_s, "peer": peer.cpu_s, "limits": limits}))


def main() -> None:
    """Measure in a folder that is kept where one is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="store of an earlier time, or where to leave this one's")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        measure(folder, runs=chosen.runs, samples=chosen.samples)


if __name__ == "__main__":
    main()
