"""Spark and Ray seal a store, and Spark, Ray and Daft read what was sealed: every table as llem's own processes seal it, by hash.

`just other-engines` makes an environment of its own in the user's cache (about 1.5 GB); Spark needs a Java runtime.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import engine_examples
from benchmarks.clients import environment
from llem.projections.sealed import open_sealed
from llem.seal.sealing import seal
from llem.store import Store
from tests import world
from tests.seal.test_seal import hashes

REPOSITORY = Path(__file__).parents[1]
ENGINES = ("pyspark", "ray[data]", "daft")
LLEM_NEEDS = ("duckdb", "msgspec", "numpy", "zstandard")
PROCESSES = 4  # of an experiment, a segment each and one for its sampler


def hashes_of(root: Path) -> dict[str, tuple[int, int]]:
    """Those of sealed files."""
    with open_sealed(root) as connection:
        return hashes(connection)


def run(what: str, *paths: Path) -> Any:
    """What the program says."""
    python = environment.programs_of(*ENGINES, *LLEM_NEEDS) / "python"
    sources = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "events")))
    own = {"PYTHONPATH": sources, "PYSPARK_PYTHON": str(python), "RAY_raylet_start_wait_time_s": "600"}
    command = [python, "-m", "benchmarks.engine_examples", what, *paths]
    done = subprocess.run(
        list(map(str, command)), env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{what} ended with status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Compare each with llem's own, and print a line for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiments", type=int, default=20)
    with tempfile.TemporaryDirectory() as scratch:
        compare(Path(scratch), parser.parse_args().experiments)


def compare(scratch: Path, experiments: int) -> None:
    """Seal with each, then read what llem itself sealed."""
    store = Store(scratch / "store").create()
    for number in range(experiments):
        world.experiment(store, processes=PROCESSES, experiment_id=f"run-{number}")
    own = scratch / "own"
    own_told = seal(store, own, from_tables=False)
    wanted = hashes_of(own)
    for what in engine_examples.SEALING:
        segments, sealed, left = run(what, store.path, root := scratch / what)
        assert (segments, sealed, left) == (own_told.segments, experiments, [])
        assert hashes_of(root) == wanted, what
        print(f"{what}: {segments} segments, all {len(wanted)} tables equal by hash", flush=True)
    with open_sealed(own) as connection:
        rows, power_w = connection.execute("SELECT count(*), sum(power_w) FROM samples").fetchall()[0]
    for what in engine_examples.READING:
        counted, found_w = run(what, own)
        assert counted == rows and math.isclose(found_w, power_w, rel_tol=1e-9), (counted, found_w)
        print(f"{what}: {rows} samples and the sum of their powers", flush=True)


if __name__ == "__main__":
    main()
