"""Readers and writers of one store in processes of their own."""

import json
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from llem.projections import catch_up, open_readonly, rebuild
from llem.projections.database import writer_lock
from llem.store import Store
from tests.conftest import LIMIT_S
from tests.projections.tables import hashes, result
from tests.world import EXPERIMENT, experiment

pytestmark = pytest.mark.slow  # readers, writers and waiting processes of several seconds each

ROOT = Path(__file__).parents[2]
READER = """
import sys
from pathlib import Path
from llem.projections import catch_up, open_readonly
from llem.store import Store
store = Store(Path(sys.argv[1]))
for _ in range(8):
    assert catch_up(store).refused in ([], ())
    with open_readonly(store) as connection:
        for experiment_id, tokens in connection.execute(
            "SELECT experiment_id, total_tokens FROM experiment_results WHERE status = 'completed'"
        ).fetchall():
            assert tokens == 120, (experiment_id, tokens)
print("done")
"""
HOLDER = """
import sys
from pathlib import Path
from llem.projections import open_readonly
from llem.store import Store
with open_readonly(Store(Path(sys.argv[1]))) as connection:
    print("open", flush=True)
    sys.stdin.read()
    print(connection.execute("SELECT count(*) FROM experiment_results").fetchall()[0][0])
"""


def start(program: str, log: Store) -> subprocess.Popen[str]:
    """A Python program that is given the store."""
    return subprocess.Popen(
        [sys.executable, "-c", program, str(log.path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_readers_catch_up_while_experiments_arrive(log: Store) -> None:
    """Neither fails, neither sees half an experiment, and the tables are those of the log in the end."""
    experiment(log)
    readers = [start(READER, log) for _ in range(2)]
    for number in range(2, 8):
        experiment(log, experiment_id=f"run-{number}")
        time.sleep(0.1)
    for reader in readers:
        out, error = reader.communicate(timeout=LIMIT_S)
        assert out.strip() == "done", error
    catch_up(log)
    assert not rebuild(log, check=True).differs


def test_a_long_reader_delays_a_query_only_for_a_moment(caught_up: Store) -> None:
    """The second one is told how far behind its answer is; once the reader is gone, it is not."""
    holder = start(HOLDER, caught_up)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    experiment(caught_up, experiment_id="run-2")
    report = catch_up(caught_up)
    assert report.behind_experiments == ["run-2"]
    assert report.behind_bytes > 1_000
    assert report.behind_reason == "a query holds the tables"
    assert result(caught_up)["total_tokens"] == 120  # answered from the tables as they are
    out, _ = holder.communicate(timeout=LIMIT_S)
    assert out == "1\n"
    assert catch_up(caught_up).derived == ["run-2"]


def test_a_second_catch_up_waits_for_the_first(caught_up: Store) -> None:
    """Where it takes too long, the answer comes from the tables as they are."""
    experiment(caught_up, experiment_id="run-2")
    with writer_lock(caught_up, wait_s=0) as locked:
        assert locked
        report = catch_up(caught_up)
    assert report.behind_reason == "another llem is writing the tables"
    assert catch_up(caught_up).derived == ["run-2"]


def test_tables_can_be_read_where_nothing_can_be_written(caught_up: Store) -> None:
    """A read-only connection refuses to write, and leaves no file behind."""
    before = hashes(caught_up)
    with open_readonly(caught_up) as connection, pytest.raises(duckdb.Error, match="read-only"):
        connection.execute("DELETE FROM samples")
    assert hashes(caught_up) == before
    assert json.loads(result(caught_up)["result"])["experiment_id"] == EXPERIMENT


def test_a_running_experiment_is_shown_as_running_until_its_writer_is_gone(log: Store) -> None:
    """The supervisor's lock on its segment tells; nothing was written in between."""
    writer = start(RUNNING, log)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    catch_up(log)
    assert result(log)["status"] == "running"
    assert result(log)["valid"] is None
    writer.kill()
    writer.communicate(timeout=LIMIT_S)
    assert catch_up(log).derived == [EXPERIMENT]
    assert result(log)["status"] == "incomplete"


RUNNING = """
import sys
from pathlib import Path
import msgspec
from llem.plan import Plan
from llem.store import Store
from llem_events import SCHEMA_VERSION, SegmentHeader, SegmentWriter, read_clocks
from llem_events.events import ExperimentStarted
folder = Store(Path(sys.argv[1])).create_experiment("run-1")
clocks = read_clocks()
header = SegmentHeader(
    segment_id=bytes(16), experiment_id="run-1", role="supervisor", process_index=None, host="alpha", boot_id="boot", pid=1,
    llem_version="0", schema_version=SCHEMA_VERSION, monotonic_ns=clocks.monotonic_ns, wall_ns=clocks.wall_ns,
)
writer = SegmentWriter(folder / "supervisor.events.zst", header)
plan = msgspec.to_builtins(Plan())
writer.append(ExperimentStarted(
    experiment_id="run-1", plan=plan, measurement_config_hash="h", expected_processes=1, llem_version="0"))
writer.flush()
print("open", flush=True)
sys.stdin.read()
"""
