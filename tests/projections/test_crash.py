"""Killed between any two steps, a catch-up replays nothing twice and loses nothing."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from llem.projections import catch_up
from llem.store import Store
from tests.world import experiment, worker_events, write

ROOT = Path(__file__).parents[2]


def behind(log: Store) -> None:
    """A store with one experiment in its tables, and two in its log, one of them damaged."""
    experiment(log)
    catch_up(log)
    experiment(log, experiment_id="run-2")
    damaged = write(log, worker_events(), role="worker", index=0, experiment_id="run-3", blocks=4)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)


def outdated(log: Store, *digests: str) -> None:
    """A store with two experiments in tables of other formulas, or of other definitions too."""
    for experiment_id in ("run-1", "run-2"):
        experiment(log, experiment_id=experiment_id)
    catch_up(log)
    with duckdb.connect(log.projections_path) as connection:
        for name in digests:
            connection.execute(f"UPDATE projection SET {name}_digest = 'older'")


def deaths(log: Store, scratch: Path, stride: int) -> dict:
    """What the program says that dies at its calls."""
    scratch.mkdir()
    command = [sys.executable, "-m", "tests.projections.dying", str(log.path), str(scratch), str(stride)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(found.stdout)


@pytest.mark.slow
def test_death_at_every_call_changes_nothing(log: Store, tmp_path: Path) -> None:
    """At every call of the database."""
    behind(log)
    found = deaths(log, tmp_path / "scratch", 1)
    assert found["differing"] == []
    assert int(found["calls"].split()[0]) > 30


@pytest.mark.slow
@pytest.mark.parametrize(("digests", "calls"), [("derived", 60), ("derived definitions", 100)])
def test_death_while_deriving_again_leaves_the_tables_as_they_were(
    log: Store, tmp_path: Path, digests: str, calls: int
) -> None:
    """At some calls of the database; what is derived afterwards is the same. Of other definitions views and macros are made too."""
    outdated(log, *digests.split())
    found = deaths(log, tmp_path / "scratch", 13)
    assert found["differing"] == []
    assert int(found["calls"].split()[0]) > calls
