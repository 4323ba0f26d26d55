"""Building the tables anew, comparing them, and swapping them in."""

import os

import duckdb
import pytest

from llem.projections import catch_up, open_readonly, rebuild
from llem.projections.database import SCHEMA_SQL, comments, create_tables
from llem.store import Store
from tests.projections.tables import hashes, result
from tests.world import EXPERIMENT, experiment


def change(log: Store, sql: str) -> None:
    """Falsify the tables."""
    with duckdb.connect(str(log.projections_path)) as connection:
        connection.execute(sql)


@pytest.mark.slow
def test_rebuilding_twice_gives_equal_tables(log: Store) -> None:
    """Every table, every row, every column."""
    experiment(log, processes=2)
    catch_up(log)
    first = hashes(log)
    report = rebuild(log)
    second = hashes(log)
    rebuild(log)
    assert first == second == hashes(log)
    assert report.experiments == 1
    assert report.rows["requests"] == 22
    assert not report.differs


@pytest.mark.slow
def test_check_finds_a_changed_figure_and_changes_nothing(caught_up: Store) -> None:
    """The table of changes names experiment, column, before and after."""
    change(caught_up, "UPDATE experiment_results SET total_energy_j = 1.0")
    change(caught_up, "DELETE FROM warnings")
    report = rebuild(caught_up, check=True)
    assert report.differs
    assert "experiment_results" in report.changed_tables
    (found,) = report.changes
    assert (found.experiment_id, found.column, found.before, found.after) == (
        EXPERIMENT,
        "total_energy_j",
        1.0,
        4_080.0,
    )
    assert result(caught_up)["total_energy_j"] == 1.0
    rebuild(caught_up)
    assert result(caught_up)["total_energy_j"] == 4_080.0


@pytest.mark.slow
def test_a_copy_of_a_store_is_the_same(caught_up: Store) -> None:
    """Its files have other times than those that its tables were made of."""
    for path in caught_up.log_path.glob("*/*"):
        os.utime(path, (1e9, 1e9))
    report = rebuild(caught_up, check=True)
    assert (report.changed_tables, report.differs) == ([], False)


def test_check_without_tables_says_why(log: Store) -> None:
    """There is nothing to compare with, and still nothing afterwards."""
    experiment(log)
    report = rebuild(log, check=True)
    assert (report.compared, report.differs) == ("not built yet", True)
    assert not log.projections_path.exists()


@pytest.mark.slow
def test_a_reader_keeps_its_tables_while_they_are_swapped(caught_up: Store) -> None:
    """And the next one sees the new ones."""
    with open_readonly(caught_up) as reader:
        experiment(caught_up, experiment_id="run-2")
        rebuild(caught_up)
        assert reader.execute("SELECT count(*) FROM experiment_results").fetchall() == [(1,)]
    with open_readonly(caught_up) as reader:
        assert reader.execute("SELECT count(*) FROM experiment_results").fetchall() == [(2,)]


def test_nothing_is_left_of_a_rebuild(log: Store) -> None:
    """Nor of one that crashed before."""
    experiment(log)
    leftover = log.path / "projections-crashed.tmp"
    leftover.mkdir()
    (leftover / "projections.duckdb").write_bytes(b"half")
    rebuild(log)
    assert sorted(path.name for path in log.path.iterdir()) == [
        "log",
        "projections.duckdb",
        "projections.lock",
    ]


@pytest.mark.slow
def test_a_write_ahead_log_of_a_crash_is_not_applied_to_new_tables(caught_up: Store) -> None:
    """It belonged to the old file."""
    wal = caught_up.projections_path.with_name("projections.duckdb.wal")
    wal.write_bytes(b"left by a crash")
    rebuild(caught_up)
    assert not wal.exists()
    assert result(caught_up)["total_tokens"] == 120


@pytest.mark.slow
def test_rows_lost_in_a_crash_are_noticed(caught_up: Store) -> None:
    """A write-ahead log is there and samples are missing: the tables are built anew."""
    change(caught_up, "DELETE FROM samples WHERE at_ns % 2 = 0")
    caught_up.projections_path.with_name("projections.duckdb.wal").touch()
    experiment(caught_up, experiment_id="run-2")
    assert catch_up(caught_up).rebuilt == "rows were lost in a crash"
    assert not rebuild(caught_up, check=True).differs


def test_tables_that_are_whole_after_a_crash_are_kept(caught_up: Store) -> None:
    """A write-ahead log alone is no reason to build them anew."""
    caught_up.projections_path.with_name("projections.duckdb.wal").touch()
    experiment(caught_up, experiment_id="run-2")
    report = catch_up(caught_up)
    assert (report.rebuilt, list(report.derived)) == (None, ["run-2"])


@pytest.mark.parametrize("kind", ["table", "view"])
def test_every_table_and_view_has_a_comment(kind: str) -> None:
    """It says what a row is."""
    with duckdb.connect() as connection:
        create_tables(connection)
        found = connection.execute(
            f"SELECT {kind}_name, comment FROM duckdb_{kind}s() WHERE NOT internal"
        ).fetchall()
    assert found
    assert [name for name, comment in found if not comment] == []


def test_every_column_has_a_comment() -> None:
    """Unit, meaning, and what NULL says."""
    with duckdb.connect() as connection:
        create_tables(connection)
        found = connection.execute(
            "SELECT c.table_name, c.column_name FROM duckdb_columns() c JOIN duckdb_tables() t USING (table_name) "
            "WHERE c.comment IS NULL AND NOT t.internal"
        ).fetchall()
    assert found == []


def test_the_schema_stands_without_its_comments() -> None:
    """Comments come from the lines of the schema itself, so none can name what is not there."""
    assert len(list(comments(SCHEMA_SQL))) > 150
