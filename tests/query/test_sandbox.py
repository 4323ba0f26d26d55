"""Hostile SQL is refused or killed, and changes nothing."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from llem.errors import QueryError
from llem.query.process import Limits, running
from llem.store import Store
from tests.conftest import LIMIT_S, mostly_slow, wait_until
from tests.delays import best_of_rounds, delays
from tests.query.hostile import HARMLESS, REFUSED, STOPPED

TIGHT = Limits(timeout_s=1.0, memory_bytes=2**30)
STARTING_CPU_S = 10.0  # of the child before the query, and of a machine that is busy with others


def run(sql: str, database: Store, **options: object) -> list[tuple[object, ...]]:
    """All rows of a query."""
    with running(sql, store=database, **options) as result:  # type: ignore[arg-type]
        return list(result.rows())


@pytest.mark.parametrize("sql", mostly_slow(REFUSED, every=12))
def test_hostile_sql_is_refused(sql: str, database: Store, tmp_path: Path) -> None:
    """It ends in a QueryError; the database stays as it was, and no file appears or leaks."""
    secret = tmp_path / "secret.csv"
    secret.write_text("password|hunter2\n")
    before = contents(tmp_path)
    with pytest.raises(QueryError) as refusal:
        run(sql.format(folder=tmp_path, secret=secret), database)
    assert contents(tmp_path) == before
    assert "hunter2" not in str(refusal.value)
    assert "process" not in str(refusal.value)


@pytest.mark.parametrize("sql", mostly_slow(HARMLESS, every=6))
def test_looking_around_changes_nothing(sql: str, database: Store, tmp_path: Path) -> None:
    """Answered or not, the folder stays as it was."""
    before = contents(tmp_path)
    with suppress(QueryError):
        run(sql.format(folder=tmp_path), database)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("sql", mostly_slow(STOPPED, every=12))
def test_endless_and_greedy_sql_is_stopped(sql: str, database: Store, tmp_path: Path) -> None:
    """It ends in a QueryError when its second is over or its gigabyte used, by its own processor's clock, and leaves nothing behind."""
    before, used_s = contents(tmp_path), children_cpu_s()
    with pytest.raises(QueryError, match=r"took too long|memory|too large|without an answer"):
        run(sql, database, limits=TIGHT)
    assert children_cpu_s() - used_s < TIGHT.cpu_s + STARTING_CPU_S
    assert contents(tmp_path) == before


def children_cpu_s() -> float:
    """Processor time of all children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "WITH a AS (SELECT 1) FROM a",
        "VALUES (1), (2)",
        "FROM numbers",
        "TABLE numbers",
        "DESCRIBE numbers",
        "SHOW TABLES",
        "SUMMARIZE numbers",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT count(*) FROM numbers",
        "PIVOT numbers ON n IN (1, 2) USING count(*) GROUP BY name",
        "SELECT 1;",
        "SELECT 1 -- the end",
    ],
)
def test_reading_sql_is_answered(sql: str, database: Store) -> None:
    """Every way to read gives rows."""
    assert run(sql, database)


def test_a_child_sees_no_secret_of_its_parent(database: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the child holds nothing but the language and Python's own places."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running("SELECT * FROM range(100000000)", store=database) as result:
        assert result.columns
        environment = Path(f"/proc/{result.pid}/environ").read_bytes()
    assert b"hf_secret" not in environment


def test_a_child_cannot_write_a_byte_to_any_file(database: Store) -> None:
    """The kernel, not only DuckDB, refuses every write and bounds memory, time, files and cores."""
    asked = Limits(timeout_s=LIMIT_S, memory_bytes=2**30)
    with running("SELECT * FROM range(100000000)", store=database, limits=asked) as result:
        assert result.columns
        limits = Path(f"/proc/{result.pid}/limits").read_text()
    soft = {line[:25].strip(): line[25:].split()[0] for line in limits.splitlines()[1:]}
    assert soft["Max file size"] == "0"
    assert soft["Max core file size"] == "0"
    assert 2**30 <= int(soft["Max address space"]) < 3 * 2**30
    assert asked.cpu_s < int(soft["Max cpu time"]) <= asked.cpu_s + STARTING_CPU_S


def test_a_child_does_not_outlive_its_parent(database: Store) -> None:
    """When the parent is killed the kernel kills the child."""
    program = (
        "import time\nfrom pathlib import Path\nfrom llem.query.process import running\nfrom llem.store import Store\n"
        f"with running('SELECT * FROM range(100000000000)', store=Store(Path({str(database.path)!r}))) as result:\n"
        "    print(result.pid if result.columns else None, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(child))


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_ends_with_the_block(database: Store) -> None:
    """Rows that nobody reads cost nothing afterwards."""
    with running("SELECT * FROM range(100000000000)", store=database) as result:
        assert result.columns
        assert alive(result.pid)
    assert not alive(result.pid)


@pytest.mark.slow
@best_of_rounds
def test_a_slow_reader_is_not_a_slow_query(database: Store) -> None:
    """Time counts while the query works, not while its reader does."""
    counts = []
    limits = Limits(timeout_s=2.0)
    with delays(QueryError), running("SELECT * FROM range(300000)", store=database, limits=limits) as result:
        for batch in result.batches():
            if not counts:
                time.sleep(2.2)
            counts.append(len(batch))
    assert sum(counts) == 300_000


def test_unsafe_lifts_the_restrictions(database: Store, tmp_path: Path) -> None:
    """With unsafe set one may read and write files of one's own."""
    out = tmp_path / "out.csv"
    run(f"COPY (SELECT 42 AS answer) TO '{out}'", database, unsafe=True)
    assert run(f"FROM '{out}'", database, unsafe=True) == [(42,)]
