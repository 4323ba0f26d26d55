"""After an upgrade: a changed formula derives again from the tables of the log, a changed decoding replays the log."""

import ast
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from llem.errors import StoreError
from llem.projections import catch_up, database, rebuild, tables_version
from llem.projections.current import open_current
from llem.store import Store
from tests.conftest import without_progress
from tests.projections.changed_llem import ROOT, Change, ChangedLlem
from tests.projections.tables import hashes, one, result
from tests.world import experiment, sampler_events, supervisor, worker_events, write

DOUBLED = Change(
    "llem/results/experiment.py",
    "return ratio(self.total_energy_j, self.duration_sec)",
    "return 2 * ratio(self.total_energy_j, self.duration_sec)",
)
MORE_COLUMNS = Change(
    "llem/results/figures.py",
    '    Figure("mean_power_w", ',
    '    Figure("requests_again", "BIGINT", "", "another", "total_requests"),\n    Figure("mean_power_w", ',
)
FAILING = Change(
    "llem/results/experiment.py",
    "return ratio(self.total_energy_j, self.duration_sec)",
    'return 1 / 0 if self.experiment_id == "run-2" else 1.0',
)
DECODED = Change("llem_events/replay.py", "BATCH_SAMPLES = 122_880", "BATCH_SAMPLES = 61_440")
COMMENTED = Change("llem/projections/log.sql", "-- [W] power\n", "-- [W] power of the device\n")
MORE_VIEWS = Change(
    "llem/projections/derived.sql",
    "CREATE VIEW samples_1s AS",
    "CREATE VIEW powers AS -- powers alone\nSELECT power_w FROM samples;\n\nCREATE VIEW samples_1s AS",
)
TOLD = "llem: figures derived again from the tables: derived by another version of llem\n"
POWER = "SELECT experiment_id, mean_power_w FROM experiment_results ORDER BY ALL"


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with two experiments in its tables."""
    store = Store(tmp_path_factory.mktemp("measured") / "store").create()
    for experiment_id in ("run-1", "run-2"):
        experiment(store, processes=2, experiment_id=experiment_id)
    catch_up(store)
    return store.path


@pytest.fixture
def measured(measured_once: Path, tmp_path: Path) -> Store:
    """A copy of that store, for one test."""
    return Store(shutil.copytree(measured_once, tmp_path / "store"))


Upgraded = Callable[..., ChangedLlem]


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Upgraded:
    """The program after some changes, which are made once."""

    @functools.cache
    def changed(*changes: Change) -> ChangedLlem:
        return ChangedLlem(tmp_path_factory.mktemp("upgraded"), changes)

    return changed


def garble(store: Store) -> None:
    """Make the log unreadable in a way that no look at its files tells."""
    for path in store.log_path.glob("*/*.events.zst"):
        times, size = path.stat(), path.stat().st_size
        path.write_bytes(b"\0" * size)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def ask(llem: ChangedLlem, store: Store, sql: str = POWER) -> tuple[list[str], str]:
    """Lines of the answer as CSV, without the head, and what was said on stderr but progress."""
    found = llem.run("query", sql, "-f", "csv", "--store", store.path)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()[1:], without_progress(found.stderr)


@pytest.mark.slow
def test_a_changed_formula_derives_again_and_reads_nothing_of_the_log(
    measured: Store, upgraded: Upgraded
) -> None:
    """One line says so, once; the log may be unreadable meanwhile."""
    power_w = result(measured)["mean_power_w"]
    llem = upgraded(DOUBLED)
    garble(measured)
    lines, told = ask(llem, measured)
    assert (lines, told) == ([f"run-1,{2 * power_w}", f"run-2,{2 * power_w}"], TOLD)
    assert ask(llem, measured) == (lines, "")


@pytest.mark.slow
def test_tables_derived_again_are_those_of_a_rebuild(measured: Store, upgraded: Upgraded) -> None:
    """Columns that are new are there; comments, views and macros too."""
    llem = upgraded(DOUBLED, MORE_COLUMNS)
    view = "SELECT requests_again, (SELECT count(*) FROM timed_samples) > 0, len(throttle_names(4)) FROM experiment_results"
    assert ask(llem, measured, view) == (["20,true,1"] * 2, TOLD)
    described = "SELECT count(*), count(comment) FROM duckdb_columns() WHERE NOT internal"
    (counts,), _ = ask(llem, measured, described)
    assert len(set(counts.split(","))) == 1
    checked = llem.run("rebuild", "--check", "--store", measured.path)
    assert (checked.returncode, "the tables would be the same as before" in checked.stderr) == (0, True)


def described(store: Store) -> list[tuple[object, ...]]:
    """Every column of tables and views, every view and every macro, with its comment."""
    with duckdb.connect(store.projections_path, read_only=True) as connection:
        return connection.execute(
            "SELECT schema_name, table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal UNION ALL "
            "SELECT schema_name, view_name, NULL, NULL, comment FROM duckdb_views() WHERE NOT internal UNION ALL "
            "SELECT schema_name, function_name, parameters::VARCHAR, NULL, comment FROM duckdb_functions() "
            "WHERE NOT internal ORDER BY ALL"
        ).fetchall()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [(COMMENTED,), (MORE_VIEWS,), (COMMENTED, MORE_VIEWS, MORE_COLUMNS)])
def test_tables_derived_again_are_described_as_by_a_rebuild(
    measured: Store, upgraded: Upgraded, changes: tuple[Change, ...]
) -> None:
    """Tables of the log, which stay, and views of them too; going back is as good."""
    before, llem = described(measured), upgraded(*changes)
    assert ask(llem, measured)[1] == TOLD
    derived_again = described(measured)
    assert llem.run("rebuild", "--store", measured.path).returncode == 0
    assert derived_again == described(measured) != before
    assert catch_up(measured).derived_again
    assert described(measured) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "own",
    [
        "CREATE VIEW mine AS SELECT 1 AS a",
        "CREATE TABLE mine (a INTEGER)",
        'CREATE TABLE "in ""quotes""" (a INTEGER)',
        "CREATE MACRO mine(a) AS a, (a, b) AS a + b",
        "CREATE SCHEMA mine; CREATE VIEW mine.timed_samples AS SELECT 1 AS a; CREATE TABLE mine.samples (a INTEGER)",
        "CREATE OR REPLACE VIEW timed_samples AS SELECT 1 AS a",
        "CREATE OR REPLACE MACRO throttle_names(mask) AS 'none'",
        "DROP VIEW timed_samples; CREATE TABLE timed_samples (a INTEGER)",
        "DROP VIEW timed_samples",
        "DROP MACRO throttle_names",
    ],
)
def test_what_others_did_to_views_and_macros_is_undone(caught_up: Store, own: str) -> None:
    """Whatever they added, replaced or removed, when the tables are derived again."""
    before = described(caught_up)
    with duckdb.connect(caught_up.projections_path) as connection:
        connection.execute(own)
        connection.execute("UPDATE projection SET derived_digest = 'older'")
    report = catch_up(caught_up)
    assert (report.rebuilt, report.derived_again) == (None, "derived by another version of llem")
    assert described(caught_up) == before


@pytest.mark.slow
def test_a_changed_decoding_replays_the_log(measured: Store, upgraded: Upgraded) -> None:
    """And says so."""
    told = "llem: tables built from the log: built by another version of llem\n"
    assert ask(upgraded(DECODED), measured)[1] == told


@pytest.mark.slow
def test_log_tables_of_other_columns_replay_the_log(measured: Store) -> None:
    """Whatever the digests say."""
    with duckdb.connect(measured.projections_path) as connection:
        connection.execute("ALTER TABLE samples ADD COLUMN colour VARCHAR")
        connection.execute("UPDATE projection SET derived_digest = 'older'")
    assert catch_up(measured).rebuilt == "its table samples has other columns"
    assert rebuild(measured, check=True).changed_tables == []


@pytest.mark.slow
def test_what_is_new_in_the_log_is_taken_too(measured: Store, upgraded: Upgraded) -> None:
    """In the same query."""
    experiment(measured, experiment_id="run-3")
    lines, told = ask(upgraded(DOUBLED), measured)
    assert (len(lines), TOLD in told) == (3, True)


@pytest.mark.slow
def test_an_experiment_that_fails_its_new_formula_is_damaged(measured: Store, upgraded: Upgraded) -> None:
    """The other is answered; the next formula takes both again."""
    llem = upgraded(FAILING)
    status = "SELECT experiment_id, status, problem FROM experiments ORDER BY ALL"
    lines, _ = ask(llem, measured, status)
    assert lines[0] == "run-1,completed,"
    assert lines[1].startswith("run-2,damaged,") and lines[1].endswith("ZeroDivisionError: division by zero")
    report = catch_up(measured)
    assert (report.derived_again, report.derived) == ("derived by another version of llem", ["run-2"])
    assert rebuild(measured, check=True).changed_tables == []
    assert (
        one(measured, "SELECT status FROM experiments WHERE experiment_id = 'run-2'")["status"] == "completed"
    )


@pytest.mark.slow
def test_a_reader_keeps_what_it_reads(measured: Store, upgraded: Upgraded) -> None:
    """The tables are derived in a copy then, and swapped in."""
    before = result(measured)["mean_power_w"]
    with database.open_readonly(measured) as reader:
        lines, told = ask(upgraded(DOUBLED), measured)
        assert (lines[0], told) == (f"run-1,{2 * before}", TOLD)
        assert reader.execute(POWER).fetchall() == [("run-1", before), ("run-2", before)]
    assert {path.name for path in measured.path.iterdir()} == {
        "log",
        "projections.duckdb",
        "projections.lock",
    }


@pytest.mark.slow
def test_figures_by_other_formulas_are_derived_again_beside_a_reader(caught_up: Store) -> None:
    """In a copy that takes their place; the tables of the log stay as they are, and nothing else is left."""
    before = hashes(caught_up)
    with duckdb.connect(caught_up.projections_path) as connection:
        connection.execute("UPDATE projection SET derived_digest = 'older'")
        connection.execute("UPDATE experiment_results SET mean_power_w = 1.0")
    garble(caught_up)
    with reading(caught_up):
        assert catch_up(caught_up).derived_again == "derived by another version of llem"
    assert hashes(caught_up) == before
    assert {path.name for path in caught_up.path.iterdir()} == {
        "log",
        "projections.duckdb",
        "projections.lock",
    }


@contextlib.contextmanager
def reading(store: Store) -> Iterator[None]:
    """Another process holds the tables open."""
    held = f"import duckdb; held = duckdb.connect({str(store.projections_path)!r}, read_only=True); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None and reader.stdout is not None
        reader.stdout.readline()
        yield
        reader.stdin.write("\n")
        reader.stdin.flush()
    assert reader.returncode == 0


@pytest.mark.slow
def test_killed_in_between_the_old_tables_stay(log: Store, upgraded: Upgraded) -> None:
    """Until the new ones are whole, at whatever moment; the next query makes them."""
    for number in range(40):
        experiment(log, processes=2, experiment_id=f"run-{number}")
    catch_up(log)
    before, llem = hashes(log), upgraded(DOUBLED)
    moments = []
    for tenths in range(10, 60, 8):
        process = llem.start("query", POWER, "--store", log.path)
        time.sleep(tenths / 10)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        try:
            assert hashes(log) == before
        except StoreError:
            break  # it was done
        moments.append(tenths)
    assert moments
    assert len(ask(llem, log)[0]) == 40
    assert llem.run("rebuild", "--check", "--store", log.path).returncode == 0


@pytest.mark.usefixtures("tables")
@pytest.mark.slow
def test_refused_experiments_stay_refused(log: Store) -> None:
    """Damage is damage by every formula, and nothing is read again to know."""
    experiment(log)
    supervisor(log, experiment_id="run-2")
    damaged = write(log, worker_events(), role="worker", index=0, experiment_id="run-2", blocks=4)
    damaged.write_bytes(damaged.read_bytes()[:-400] + b"\0" * 400)
    write(log, sampler_events(), role="sampler", index=0, experiment_id="run-2")
    refused = [str(refusal) for refusal in catch_up(log).refused]
    with duckdb.connect(log.projections_path) as connection:
        connection.execute("UPDATE projection SET derived_digest = 'older'")
    report = catch_up(log)
    assert (report.blocks, [str(refusal) for refusal in report.refused]) == (0, refused)
    assert rebuild(log, check=True).changed_tables == []


@pytest.mark.slow
def test_tables_of_a_crash_that_miss_rows_are_built_anew(measured: Store) -> None:
    """What is derived again from too little would look whole."""
    with duckdb.connect(measured.projections_path) as connection:
        connection.execute("UPDATE projection SET derived_digest = 'older'")
        connection.execute("DELETE FROM samples WHERE experiment_id = 'run-2'")
    database.wal_path(measured).touch()
    assert catch_up(measured).rebuilt == "rows were lost in a crash"
    assert rebuild(measured, check=True).changed_tables == []


def test_tables_of_other_formulas_are_not_current(measured: Store) -> None:
    """Nor are they read as if they were."""
    with duckdb.connect(measured.projections_path) as connection:
        connection.execute("UPDATE projection SET derived_digest = 'older'")
    assert open_current(measured)[0] is None
    with pytest.raises(database.OutdatedError):
        database.connect(measured.projections_path, read_only=True)


DECODES_NOTHING = {  # what a decoding module uses, and why no row of the log depends on it
    "llem_events": "names of its modules",
    "llem_events.cleaning": "cleans what is written",
    "llem_events.files": "opens files",
    "llem.store": "finds files",
    "llem.sql": "literals of statements",
    "llem.projections.current": "compares files with checkpoints",
    "llem.projections.containment": "reasons against experiments, which are taken anew when formulas change",
    "llem.projections.ranges": "limits of experiments, which are taken anew when formulas change",
    "llem.projections.database": "columns, which are compared",
    "llem.projections.derive": "what the log means",
}
ROOTS = {"llem": ROOT / "llem", "llem_events": ROOT / "events" / "llem_events"}


def modules_imported_by(path: Path) -> Iterator[str]:
    """Those of llem, by their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("llem"):
            root, *folders = node.module.split(".")
            inside = ROOTS[root].joinpath(*folders)
            modules = [name.name for name in node.names if (inside / f"{name.name}.py").exists()]
            yield from (f"{node.module}.{name}" for name in modules)
            if len(modules) < len(node.names):
                yield node.module


def test_every_module_that_decodes_is_in_the_digest_of_the_log() -> None:
    """What one of them imports is one of them, or no row depends on it."""
    files = [
        folder / f"{name}.py" for folder, names in tables_version.DECODING.items() for name in names.split()
    ]
    listed = {f"{path.parent.name}.{path.stem}" for path in files}
    for path in files:
        others = {
            name
            for name in modules_imported_by(path)
            if ".".join(name.split(".")[-2:]) not in listed
            and not any(
                name == other or (name.startswith(f"{other}.") and other != "llem_events")
                for other in DECODES_NOTHING
            )
        }
        assert not others, path
