"""Tables are taken as they are only when they are exactly as the log."""

import os
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from llem.importing import import_result
from llem.projections import catch_up, current, rebuild
from llem.projections.current import open_current
from llem.projections.database import in_utc
from llem.query.process import running
from llem.store import Store

ORIGINAL = Path(__file__).parents[1] / "export" / "predecessor_result.json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one experiment and tables that hold it."""
    store = Store(tmp_path / "store").create()
    import_result(ORIGINAL, store)
    catch_up(store)
    return store


def is_current(store: Store) -> bool:
    """Whether the tables would be taken as they are."""
    connection, _ = open_current(store)
    if connection is not None:
        connection.close()
    return connection is not None


def test_tables_that_hold_the_whole_log_are_current(store: Store) -> None:
    """Nothing is read twice; times are those of UTC, by its own name."""
    assert is_current(store)
    connection, doubted = open_current(store)
    assert connection is not None and doubted == set()
    with connection:
        assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


def test_times_are_those_of_utc_wherever_the_machine_is() -> None:
    """As they are stored."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        (found,) = (
            in_utc(connection).execute("SELECT '2026-01-02 03:04:05Z'::TIMESTAMPTZ::TIMESTAMP").fetchone()
        )
    assert found == datetime(2026, 1, 2, 3, 4, 5)


@pytest.mark.slow
def test_a_file_that_changed_is_noticed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its size or by the time of its last change, where its folder had changed just before it was listed."""
    monkeypatch.setattr(current, "TICK_NS", 10**18)
    rebuild(store)
    (segment,) = store.segments(store.experiment_ids()[0])
    os.utime(segment, ns=(0, 0))
    assert not is_current(store)


@pytest.mark.slow
def test_of_sealed_segments_nothing_but_the_folder_is_looked_at(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that comes, goes or is replaced is noticed; bytes that change in place are for `llem log verify` and `llem rebuild`."""
    monkeypatch.setattr(current, "TICK_NS", -(10**18))
    rebuild(store)
    (segment,) = store.segments(store.experiment_ids()[0])
    os.utime(segment, ns=(0, 0))
    assert is_current(store)
    copied = segment.with_name("copied")
    copied.write_bytes(segment.read_bytes())
    copied.replace(segment)
    assert not is_current(store)
    catch_up(store)
    assert is_current(store)


@pytest.mark.slow
def test_a_new_experiment_is_noticed(store: Store, tmp_path: Path) -> None:
    """And a query then sees it, by itself."""
    other = tmp_path / "other.json"
    other.write_text(ORIGINAL.read_text().replace('"total_tokens": 12345,', '"total_tokens": 54321,', 1))
    import_result(other, store)
    assert not is_current(store)
    with running("SELECT total_tokens FROM experiment_results ORDER BY ALL", store=store) as result:
        assert list(result.rows()) == [(12345,), (54321,)]
    assert is_current(store)


def test_tables_of_another_version_are_not_current(store: Store) -> None:
    """Nor is a database without our tables."""
    with duckdb.connect(store.projections_path) as connection:
        connection.execute("UPDATE projection SET derived_digest = 'older'")
    assert not is_current(store)
    store.projections_path.unlink()
    duckdb.connect(store.projections_path).close()
    assert not is_current(store)


def test_tables_that_are_missing_linked_or_garbage_are_not_opened(store: Store) -> None:
    """A database file of a stranger can run code."""
    elsewhere = store.path / "elsewhere.duckdb"
    store.projections_path.rename(elsewhere)
    assert not is_current(store)
    store.projections_path.symlink_to(elsewhere)
    assert not is_current(store)
    store.projections_path.unlink()
    store.projections_path.write_bytes(b"garbage" * 1000)
    assert not is_current(store)
