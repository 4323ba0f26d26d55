"""What a command takes grows with what there is to do, and its memory hardly at all."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from benchmarks.large_runs import EXPERIMENT, Shape, write_run
from benchmarks.projector import Maker, outdate
from llem.store import Store
from tests.conftest import LLEM
from tests.delays import best_of_rounds, delays

pytestmark = pytest.mark.slow
MORE = 4
MAX_CPU, MAX_MEMORY = 4.4, 1.3
EXPERIMENTS, SAMPLES = 60, 416
ONE = Shape(requests=4_000, tokens=32, batch=8, samples=200_000)
# n log n: an export is sorted, the larger one on the disk
MAX_CPU_SORTED = MAX_CPU * math.log(MORE * ONE.samples) / math.log(ONE.samples)
COMMANDS = (
    ("runs",),
    ("show", EXPERIMENT),
    ("show", EXPERIMENT, "--window", "0:5"),
    ("query", "-f", "csv", "FROM experiment_results"),
    ("query", "SELECT device_uuid, avg(power_w), max(power_w) FROM samples GROUP BY device_uuid"),
    ("query", "-f", "csv", "FROM samples"),
    ("query", "FROM requests ORDER BY first_token_ns - arrival_ns DESC LIMIT 5"),
    ("export", "out.csv", "--force", "--what", "samples"),
    ("export", "out.parquet", "--force", "--what", "samples"),
    ("export", "out.jsonl", "--force", "--what", "requests"),
    ("export", "out.json", "--force"),
    ("export", "raw.json", "--force", "--what", "raw"),
    ("log", "verify", EXPERIMENT),
    ("log", "info", EXPERIMENT),
    ("log", "digest", EXPERIMENT),
    ("log", "cat", EXPERIMENT),
)


# a small process in between, because a child begins with the peak memory of whoever starts it
LAUNCHER = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(status)
"""


class Cost(NamedTuple):
    """What a command and its children took."""

    cpu_s: float
    peak_mb: float


def run_of(times: int, folder: Path) -> Path:
    """The folder with a store of one run, of so many times as much of everything; it is in its tables."""
    shape = msgspec.structs.replace(ONE, requests=times * ONE.requests, samples=times * ONE.samples)
    write_run(Store(folder / "store"), shape)
    cost(("rebuild",), folder)
    return folder


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and one of four times as much."""
    one, four = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("four")
    return run_of(1, one), run_of(MORE, four)


@pytest.fixture(scope="module")
def four_times_as_large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four times as much as the larger of both."""
    return run_of(MORE * MORE, tmp_path_factory.mktemp("sixteen"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@best_of_rounds
def test_four_times_as_much_takes_four_times_the_time_and_the_same_memory(
    command: tuple[str, ...], stores: tuple[Path, Path]
) -> None:
    """CPU at most 4.4 x, which allows for noise, 4.9 x where rows are sorted, and memory at most 1.3 x, of every command that reads a run."""
    check(command, *stores, max_cpu=MAX_CPU_SORTED if command[0] == "export" else MAX_CPU)


@best_of_rounds
def test_a_rebuild_of_four_times_as_much(stores: tuple[Path, Path], four_times_as_large: Path) -> None:
    """The same of building tables, from the size on where DuckDB's cache has reached its limit."""
    check(("rebuild",), stores[1], four_times_as_large)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Small experiments, and four times as many; they are in their tables."""
    folders = tmp_path_factory.mktemp("fewer"), tmp_path_factory.mktemp("more")
    for folder, times in zip(folders, (1, MORE), strict=True):
        Maker(Store(folder / "store"), SAMPLES).make(times * EXPERIMENTS)
        cost(("rebuild",), folder)
    return folders


@pytest.mark.parametrize(
    "command", [("rebuild",), ("runs",), ("query", "-f", "csv", "FROM experiment_results")], ids=" ".join
)
@best_of_rounds
def test_four_times_as_many_experiments_take_four_times_the_time_and_the_same_memory(
    command: tuple[str, ...], many: tuple[Path, Path]
) -> None:
    """As four times as much of one does."""
    check(command, *many)


@best_of_rounds
def test_four_times_as_many_experiments_are_derived_again_in_the_same_memory(
    many: tuple[Path, Path],
) -> None:
    """After an upgrade that changed a formula."""
    check(("query", "SELECT count(*) FROM experiment_results"), *many, cost_of=after_an_upgrade)


def after_an_upgrade(command: tuple[str, ...], folder: Path) -> Cost:
    """What it takes when the figures in the tables are by other formulas."""
    outdate(Store(folder / "store"))
    return cost(command, folder)


def check(
    command: tuple[str, ...],
    smaller: Path,
    larger: Path,
    *,
    max_cpu: float = MAX_CPU,
    cost_of: Callable[[tuple[str, ...], Path], Cost] | None = None,
) -> None:
    """Compare what a command takes with two stores, one right after the other, so that both have the same neighbours on the machine."""
    cost_of = cost_of or cost
    less, more = cost_of(command, smaller), cost_of(command, larger)
    with delays():
        assert more.cpu_s <= max_cpu * less.cpu_s
        assert more.peak_mb <= MAX_MEMORY * less.peak_mb


def cost(command: tuple[str, ...], folder: Path) -> Cost:
    """Run a command with the store of a folder."""
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, LLEM, *command, "--store", "store"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=Cost)
