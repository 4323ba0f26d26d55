"""Whoever may read the log gets an answer: with a stranger on the tables, on a medium that cannot be written, or as another user."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from llem.projections import catch_up, open_tables, rebuild, results_for, snapshot
from llem.store import Store
from tests.conftest import LIMIT_S, LLEM, Run, mostly_slow, quiet
from tests.world import EXPERIMENT, experiment

ROOT = Path(__file__).parents[2]
STORAGE_OF_V1 = 64  # DuckDB's number of the format that v1.0.0 wrote
STRANGER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reading")
connection.execute("SELECT count(*) FROM samples").fetchall()
print("open", flush=True)
sys.stdin.read()
"""
MOUNT = """
import ctypes, os, sys
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
libc = ctypes.CDLL(None, use_errno=True)
folder = os.fsencode(sys.argv[1])
if libc.unshare(CLONE_NEWNS):
    sys.exit(77)
libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
if libc.mount(folder, folder, None, MS_BIND, None) or libc.mount(None, folder, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None):
    sys.exit(77)
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def stranger(log: Store, *, doing: str) -> Iterator[None]:
    """Another program that has the tables open, as the command line of DuckDB or DBeaver does."""
    program = [sys.executable, "-c", STRANGER, str(log.projections_path), doing]
    holder = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    try:
        yield
    finally:
        holder.communicate(timeout=LIMIT_S)


def tokens(log: Store, *, told: list[str], only: list[str] | None = None) -> dict[str, int]:
    """Experiment -> its tokens, as a command would get them."""
    with open_tables(log, told.append, only=only) as connection:
        return dict(
            connection.execute(
                "SELECT experiment_id, total_tokens FROM experiment_results ORDER BY ALL"
            ).fetchall()
        )


@pytest.mark.slow
@pytest.mark.parametrize("doing", ["reading", "writing"])
def test_a_stranger_on_the_tables_blocks_nobody(caught_up: Store, doing: str) -> None:
    """After a moment the answer comes from the tables as they are, or from others; a result that has just ended is complete."""
    with stranger(caught_up, doing=doing):
        experiment(caught_up, experiment_id="run-2")
        told: list[str] = []
        started = time.monotonic()
        found = tokens(caught_up, told=told)
        assert time.monotonic() - started < LIMIT_S
        assert found == ({EXPERIMENT: 120} if doing == "reading" else {EXPERIMENT: 120, "run-2": 120})
        assert len(told) == 1
        assert ("behind by 1 experiments" if doing == "reading" else "holds them open") in told[0]
        with open_tables(caught_up, told.append, only=["run-2"]) as connection:
            assert results_for(connection, "run-2").total_tokens == 120
    assert tokens(caught_up, told=[]) == {EXPERIMENT: 120, "run-2": 120}


@pytest.mark.slow
def test_tables_are_of_the_oldest_storage_version_and_a_snapshot_too(log: Store, tmp_path: Path) -> None:
    """Every DuckDB that llem supports opens them, and a snapshot can be held while llem goes on."""
    experiment(log)
    path = tmp_path / "copy.duckdb"
    snapshot(log, path, lambda line: None)
    for file in (log.projections_path, path):
        assert file.read_bytes()[8:20] == b"DUCK" + STORAGE_OF_V1.to_bytes(8, "little")
    with duckdb.connect(str(path)) as held:
        experiment(log, experiment_id="run-2")
        assert tokens(log, told=[]) == {EXPERIMENT: 120, "run-2": 120}
        assert held.execute("SELECT count(*) FROM experiments").fetchall() == [(1,)]


@pytest.mark.slow
def test_a_snapshot_is_made_of_the_log_where_the_tables_are_held(caught_up: Store, tmp_path: Path) -> None:
    """A stranger writes in them."""
    path = tmp_path / "copy.duckdb"
    with stranger(caught_up, doing="writing"):
        snapshot(caught_up, path, lambda line: None)
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT total_tokens FROM experiment_results").fetchall() == [(120,)]


@pytest.mark.slow
def test_the_command_writes_a_snapshot(log: Store, tmp_path: Path, llem: Run) -> None:
    """`llem query --snapshot FILE`; a file that is there is left alone."""
    experiment(log)
    arguments = ("query", "--snapshot", tmp_path / "copy.duckdb", "--store", log.path)
    assert llem(*arguments).returncode == 0
    again = llem(*arguments)
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchall() == [(1,)]


@pytest.mark.slow
@pytest.mark.parametrize("has_tables", [False, True])
def test_a_medium_that_cannot_be_written_is_answered(
    log: Store, has_tables: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive of a log, with tables or without: every reading command, and no file is left anywhere."""
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    experiment(log)
    if has_tables:
        catch_up(log)
        experiment(log, experiment_id="run-2")
    for arguments in (
        ["runs"],
        ["show", EXPERIMENT],
        ["query", "FROM runs"],
        ["rebuild", "--check"],
        ["export", "-"],
    ):
        sql = ["query", "SELECT experiment_id FROM experiments"] if arguments[0] == "query" else arguments
        done = on_a_medium_that_cannot_be_written(log, *sql)
        assert done.returncode == (1 if arguments[0] == "rebuild" else 0), done
        assert "internal error" not in done.stderr
        assert EXPERIMENT in done.stdout or arguments[0] == "rebuild"
    assert not list(temporary.iterdir())


def on_a_medium_that_cannot_be_written(store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with the store on such a one."""
    command = [
        sys.executable,
        "-c",
        MOUNT,
        str(store.path),
        str(LLEM),
        *arguments,
        "--store",
        str(store.path),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("no name space for mounts of one's own")
    return quiet(done)


@pytest.mark.slow
def test_a_copy_on_a_medium_that_cannot_be_written_is_not_behind(caught_up: Store, tmp_path: Path) -> None:
    """Its files have other times, and the ends of those that were read; one with another end is behind."""
    copied = Store(shutil.copytree(caught_up.path, tmp_path / "copy", copy_function=shutil.copyfile))
    for path in copied.path.rglob("*"):
        os.utime(path, (1, 1))
    done = on_a_medium_that_cannot_be_written(copied, "runs")
    assert (done.returncode, done.stderr) == (0, "")
    segment = next(copied.log_path.rglob("sampler*"))
    segment.write_bytes(segment.read_bytes()[:-1] + b"\0")
    done = on_a_medium_that_cannot_be_written(copied, "runs")
    assert (done.returncode, "behind by 1 experiments" in done.stderr) == (0, True)


@pytest.mark.slow
def test_damage_on_a_medium_that_cannot_be_written_is_salvaged(log: Store) -> None:
    """Into tables of the moment: those that are there leave it out, whatever the files' times."""
    experiment(log)
    damaged = next(log.log_path.rglob("sampler*"))
    written = damaged.read_bytes()
    damaged.write_bytes(written[:-400] + b"\0" + written[-399:])
    assert catch_up(log).refused
    refused = on_a_medium_that_cannot_be_written(log, "show", EXPERIMENT)
    assert refused.returncode != 0
    salvaged = on_a_medium_that_cannot_be_written(log, "show", EXPERIMENT, "--salvage")
    assert (salvaged.returncode, "answering from temporary tables" in salvaged.stderr) == (0, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_tables_of_another_user_are_not_opened_but_replaced_for_the_moment(caught_up: Store) -> None:
    """A database file can run code in whoever opens it; the log is read instead, and the file stays as it is."""
    os.chown(caught_up.projections_path, 12_345, -1)
    told: list[str] = []
    with open_tables(caught_up, told.append) as connection:
        found = connection.execute("SELECT experiment_id, total_tokens FROM experiment_results").fetchall()
        assert found == [(EXPERIMENT, 120)]
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            connection.execute("DELETE FROM experiments")
    assert "user 12345" in told[0]
    assert caught_up.projections_path.stat().st_uid == 12_345


@pytest.mark.slow
def test_tables_that_can_neither_be_read_nor_made_are_replaced_for_the_moment(log: Store) -> None:
    """A folder stands in their place."""
    experiment(log)
    log.projections_path.mkdir()
    (log.projections_path / "file").touch()
    told: list[str] = []
    assert tokens(log, told=told) == {EXPERIMENT: 120}
    assert told[0].startswith("llem: answering from temporary tables: ")
    assert tokens(log, told=told, only=[EXPERIMENT]) == {EXPERIMENT: 120}


@pytest.mark.parametrize("zone", mostly_slow(["Asia/Kolkata", "America/New_York", "UTC"], every=3))
@pytest.mark.usefixtures("tables")
def test_now_minus_a_time_of_the_tables_is_an_age_in_every_time_zone(
    log: Store, llem: Run, zone: str
) -> None:
    """SQL runs in UTC, as the times in the tables do."""
    experiment(log)
    sql = "SELECT (epoch(now() - started_time) - (epoch(now()) - started_ns / 1e9))::BIGINT AS apart FROM experiments"
    done = llem("query", "-f", "csv", sql, "--store", log.path, TZ=zone)
    assert done.stdout.split() == ["apart", "0"]


@pytest.mark.slow
def test_two_snapshots_of_one_log_hold_the_same(log: Store, tmp_path: Path) -> None:
    """A rebuild in between changes nothing."""
    experiment(log)
    for name in ("one.duckdb", "two.duckdb"):
        snapshot(log, tmp_path / name, lambda line: None)
        assert not rebuild(log).changes
    shutil.rmtree(log.path)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{tmp_path / 'one.duckdb'}' AS one (READ_ONLY)")
        connection.execute(f"ATTACH '{tmp_path / 'two.duckdb'}' AS two (READ_ONLY)")
        for table in ("samples", "requests", "experiment_results"):
            assert connection.execute(f"FROM one.{table} EXCEPT ALL FROM two.{table}").fetchall() == []
