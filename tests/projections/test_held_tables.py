"""Tables that somebody holds open, or that other formulas made, in this process and without a wait: what is done instead, and what is said."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from llem.errors import StoreError
from llem.projections import catch_up, database, opening, projector, snapshot
from llem.projections.checkpoint import known_segments
from llem.projections.derive_again import derive_again
from llem.projections.opening import open_tables
from llem.store import Store
from tests.projections.tables import hashes_of, rows
from tests.world import EXPERIMENT, experiment, supervisor, worker_events, write

OLDER = "UPDATE projection SET derived_digest = 'older'"
CATALOG = (
    "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal ORDER BY ALL",
    "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
    "SELECT function_name, function_type, parameters, macro_definition, comment FROM duckdb_functions() WHERE NOT internal ORDER BY ALL",
    "SELECT log_digest, derived_digest, definitions_digest FROM projection",
    "SELECT count(*) FROM timed_samples",
)


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (projector, "READERS_WAIT_S"),
        (database, "READER_WAIT_S"),
        (projector, "LOCK_WAIT_S"),
        (projector, "FIRST_BUILD_WAIT_S"),
    ):
        monkeypatch.setattr(module, name, 0.0)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with a usual experiment and one of a supervisor alone."""
    store = Store(tmp_path_factory.mktemp("beside") / "store").create()
    experiment(store)
    supervisor(store, experiment_id="run-2")
    catch_up(store)
    return store.path


@pytest.fixture
def two(beside: Path, tmp_path: Path) -> Store:
    """A copy of it."""
    return Store(shutil.copytree(beside, tmp_path / "store"))


@pytest.fixture
def changed(two: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """Its tables, with figures by other formulas and things that this program does not make."""
    with duckdb.connect(two.projections_path) as connection:
        for statement in (
            *(OLDER, "UPDATE experiment_results SET mean_power_w = 1.0", "DELETE FROM warnings"),
            *(
                "CREATE VIEW colour AS SELECT 1",
                "CREATE MACRO taste() AS 1",
                "CREATE MACRO smells() AS TABLE SELECT 1",
            ),
            *(
                "CREATE TABLE sound (loud BIGINT)",
                "UPDATE segments SET derived_blocks = 0, clock_offset_ns = 0",
            ),
        ):
            connection.execute(statement)
        yield connection


OTHER_DEFINITIONS = """
UPDATE projection SET definitions_digest = 'older';
CREATE OR REPLACE VIEW timed_samples AS SELECT 1 AS colour;
CREATE OR REPLACE MACRO throttle_names(mask) AS 'taste';
ALTER TABLE experiment_results DROP COLUMN mean_power_w
"""


@pytest.mark.parametrize("other_definitions", ["", OTHER_DEFINITIONS], ids=["same", "other"])
def test_everything_but_the_log_is_derived_again(
    two: Store, beside: Path, changed: duckdb.DuckDBPyConnection, other_definitions: str
) -> None:
    """Rows, columns, views, macros and comments are those of new tables; what was refused is forgotten, and then tried again."""
    changed.execute(other_definitions)
    changed.execute("UPDATE segments SET verdict = 'unusable' WHERE experiment_id = 'run-2'")
    changed.execute("INSERT INTO folders VALUES ('run-2', 1), ('run-1', 1)")
    derive_again(changed)
    for table in ("segments", "events", "folders", "experiments", "experiment_results"):
        found = changed.execute(f"SELECT DISTINCT experiment_id FROM {table}").fetchall()
        assert found == [(EXPERIMENT,)], table
    changed.execute("DELETE FROM folders")
    changed.close()
    assert catch_up(two).derived == ["run-2"]
    with database.open_readonly(two) as found, database.open_readonly(Store(beside)) as wanted:
        assert hashes_of(found) == hashes_of(wanted)
        for sql in CATALOG:
            assert found.execute(sql).fetchall() == wanted.execute(sql).fetchall()


def test_tables_of_the_log_with_other_columns_are_not_derived_from(
    changed: duckdb.DuckDBPyConnection,
) -> None:
    """Nothing of them is changed."""
    changed.execute("ALTER TABLE folders ADD COLUMN colour VARCHAR")
    before = hashes_of(changed)
    with pytest.raises(database.UnusableError, match="its table folders has other columns"):
        derive_again(changed)
    assert hashes_of(changed) == before


def renew(connection: duckdb.DuckDBPyConnection) -> None:
    """In the place of a derivation."""
    connection.execute("UPDATE projection SET derived_digest = ?", [database.VERSION.derived])


def test_figures_are_derived_again_before_anything_is_read(
    two: Store, changed: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place; the report says why."""
    monkeypatch.setattr(projector, "derive_again", renew)
    changed.execute("UPDATE segments SET derived_blocks = blocks")
    changed.close()
    report = catch_up(two)
    assert (report.derived_again, report.rebuilt) == ("derived by another version of llem", None)
    assert (report.blocks, report.derived) == (0, ())


def test_outdated_tables_that_this_very_program_holds_are_made_once(two: Store) -> None:
    """In a copy, which it cannot see before it closes what it holds: a notebook with a connection of its own."""
    with duckdb.connect(two.projections_path) as connection:
        connection.execute(OLDER)
    with duckdb.connect(two.projections_path, read_only=True, config=database._CONFIG) as held:
        with pytest.raises(
            StoreError, match="this program holds them open as they were before; close its conn"
        ):
            catch_up(two)
        assert held.execute("SELECT derived_digest FROM projection").fetchall() == [("older",)]
    assert catch_up(two).derived_again is None


def test_figures_are_derived_again_in_a_copy(
    two: Store, changed: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes the place of the tables, for their owner only, and leaves nothing else; unless a writer crashed nobody looks for what is missing."""
    monkeypatch.setattr(projector, "derive_again", renew)
    changed.execute("UPDATE segments SET derived_blocks = blocks")
    changed.execute("DELETE FROM samples")
    changed.close()
    before = two.projections_path.stat().st_ino
    projector._derive_again_in_a_copy(two, crashed=False)
    assert two.projections_path.stat().st_mode & 0o777 == 0o600
    assert two.projections_path.stat().st_ino != before
    assert len(rows(two, "FROM experiments")) == 2
    assert {path.name for path in two.path.iterdir()} == {"log", "projections.duckdb", "projections.lock"}


@pytest.mark.parametrize("held", [False, True])
def test_tables_of_a_crash_are_not_derived_from(
    two: Store, changed: duckdb.DuckDBPyConnection, held: bool
) -> None:
    """Where rows are missing, or where a reader keeps anybody from looking."""
    if not held:
        changed.execute("UPDATE segments SET derived_blocks = blocks")
        changed.execute("DELETE FROM samples")
    changed.close()
    with pytest.raises(database.UnusableError, match="rows were lost in a crash"):
        if held:
            projector._derive_again_in_a_copy(two, crashed=True)
        else:
            projector._derive_again_in(two.projections_path, crashed=True)


def test_what_a_reader_keeps_from_the_tables_is_behind(two: Store) -> None:
    """Experiments by their names, and the bytes of log that are not in the tables."""
    with database.open_readonly(two) as reader:
        known = known_segments(reader)["run-2"]
        path = supervisor(two, experiment_id="run-3")
        added = write(two, worker_events()[:2], role="worker", index=0, experiment_id="run-2", seal=False)
        report = catch_up(two)
        assert report.behind_experiments == ["run-2", "run-3"]
        sealed_bytes = sum(file.file_bytes - file.applied_bytes for file in known.values())
        assert report.behind_bytes == path.stat().st_size + added.stat().st_size + sealed_bytes
        assert report.behind_reason == "a query holds the tables"
        told: list[str] = []
        with open_tables(two, told.append) as found:
            assert found.execute("SELECT count(*) FROM experiments").fetchall() == [(2,)]
        assert told == [
            f"llem: answering from tables that are behind by 2 experiments, {report.behind_bytes} bytes of log: "
            "a query holds the tables"
        ]
        told.clear()
        with open_tables(two, told.append, only=["run-1"]) as found:
            assert found.execute("SELECT count(*) FROM experiments").fetchall() == [(2,)]
        with open_tables(two, told.append, only=["run-3"]) as found:
            assert found.execute("SELECT experiment_id FROM experiments").fetchall() == [("run-3",)]
        assert told[-1] == "llem: answering from temporary tables: a query holds the tables"


def test_a_writer_that_is_no_llem_is_told(two: Store) -> None:
    """With a way out; a reader is none, and what is no database is not held."""
    assert not database.is_held(two.projections_path)
    with database.open_readonly(two):
        assert not database.is_held(two.projections_path)
    with duckdb.connect(two.projections_path):
        assert database.is_held(two.projections_path)
        with pytest.raises(StoreError, match=r"another program holds them open for writing.*--snapshot FILE"):
            catch_up(two)
        with projector.writer_lock(two, wait_s=0.0), projector.writer_lock(two, wait_s=0.0) as again:
            assert not again
            report = catch_up(two)
        assert (report.behind_reason, report.behind_experiments) == ("another llem is writing the tables", ())
    two.projections_path.write_text("no database")
    assert not database.is_held(two.projections_path)
    with projector.writer_lock(two, wait_s=0.0):
        report = catch_up(two)
    assert (report.behind_reason, report.rebuilt) == ("another llem is building the tables", None)


def test_a_writer_that_comes_before_figures_are_derived_again_is_told(
    two: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may open the tables after they were found outdated, while another llem is waited for."""
    with duckdb.connect(two.projections_path) as connection:
        connection.execute(OLDER)
    lock = projector.writer_lock

    @contextlib.contextmanager
    def while_another_writes(store: Store, *, wait_s: float) -> Iterator[bool]:
        with lock(store, wait_s=wait_s) as locked, duckdb.connect(store.projections_path):
            yield locked

    monkeypatch.setattr(projector, "writer_lock", while_another_writes)
    with pytest.raises(StoreError, match=r"another program holds them open for writing.*--snapshot FILE"):
        catch_up(two)


def test_a_snapshot_is_a_copy(two: Store, tmp_path: Path) -> None:
    """For its owner only."""
    snapshot(two, tmp_path / "copied.duckdb", print)
    assert (tmp_path / "copied.duckdb").read_bytes() == two.projections_path.read_bytes()
    assert (tmp_path / "copied.duckdb").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("crashed", [True, False])
def test_a_snapshot_is_made_of_the_log_where_no_copy_can_be(
    two: Store, tmp_path: Path, crashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file whose writer crashed, or where the tables are others than the store's."""
    built: list[object] = []
    monkeypatch.setattr(opening, "build", lambda *of, **how: built.append((of, how)))
    if crashed:
        database.wal_path(two).touch()
    temporary = contextlib.nullcontext(database.connect(two.projections_path, read_only=True))
    others = contextlib.nullcontext(database.in_memory())
    monkeypatch.setattr(opening, "open_tables", lambda *_: temporary if crashed else others)
    snapshot(two, tmp_path / "built.duckdb", print)
    assert built == [((two, tmp_path / "built.duckdb"), {"salvage": False})]
    assert not (tmp_path / "built.duckdb").exists()


def test_temporary_tables_leave_nothing(two: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do those of a reader that was killed; what belongs to one that lives, or to something else, stays. What the log holds beside experiments is told."""
    (folder := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (two.log_path / "no id").mkdir()
    (ended := subprocess.Popen(["true"])).wait()
    for name in (f"{ended.pid}-x", f"{os.getpid()}-x", "x"):
        (folder / f"{opening.TEMPORARY_PREFIX}{name}" / "inside").mkdir(parents=True)
    told: list[str] = []
    with opening._temporary(two, told.append, "a reason", salvage=False, only=None) as found:
        assert found.execute("SELECT count(*) FROM experiments").fetchall() == [(2,)]
    assert {path.name for path in folder.iterdir()} == {f"llem-tables-{os.getpid()}-x", "llem-tables-x"}
    assert told[0] == "llem: answering from temporary tables: a reason"
    assert told[1:] == ["llem: folder 'no id' in the log is no experiment: its name is no id"]
