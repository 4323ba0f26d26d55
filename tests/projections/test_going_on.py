"""A large measurement that goes on is not derived for every query."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from benchmarks.catch_up import LATER_SAMPLES, Measurement
from llem.projections import catch_up, database
from llem.projections.database import Tables, create_tables
from llem.projections.going_on import GoingOn, going_on
from llem.projections.opening import open_tables
from llem.store import Store

LARGE_SAMPLES = 1_400_000
SEGMENT = {
    "experiment_id": "run-1",
    "file": "sampler",
    "verdict": "unclosed",
    "being_written": True,
    "applied_bytes": 16 * 2**20,
    "blocks": 100,
    "derived_blocks": 90,
}
FIRST, OTHER = {}, {"file": "worker", "applied_bytes": 0, "blocks": 0, "derived_blocks": 0}


@pytest.fixture(scope="module")
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    """Empty ones, which stay so."""
    with database.in_memory() as opened:
        create_tables(opened)
        yield opened


@pytest.fixture
def connection(tables: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """To tables that are empty at first; what is written there is gone at the end."""
    tables.execute("BEGIN")
    yield tables
    tables.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("segments", "waits"),
    [
        ([FIRST], True),
        ([FIRST, OTHER], True),
        ([FIRST, OTHER | {"being_written": False}], False),
        ([FIRST, OTHER | {"derived_blocks": None}], False),
        ([FIRST, OTHER | {"blocks": 1}], False),
        ([{"derived_blocks": 89}], False),
        ([{"applied_bytes": 16 * 2**20 - 1}], False),
    ],
)
def test_waits_while_all_write_and_little_is_new(
    connection: duckdb.DuckDBPyConnection, segments: list[dict[str, object]], waits: bool
) -> None:
    """Results of a large experiment wait until a tenth is new, a segment begins or ends."""
    Tables(connection).insert("segments", [SEGMENT | segment for segment in segments])
    assert bool(going_on(connection, ["run-1", "run-2"])) is waits


def test_says_how_much_is_derived(connection: duckdb.DuckDBPyConnection) -> None:
    """Only experiments that were asked for, with the blocks that their results include."""
    Tables(connection).insert("segments", [SEGMENT, SEGMENT | {"experiment_id": "run-2"}])
    assert going_on(connection, ["run-2"]) == [GoingOn("run-2", 90, 100)]


@pytest.mark.slow
def test_query_beside_a_large_measurement(tmp_path: Path) -> None:
    """New samples are in the tables at once; figures come when a tenth is new, and when it ends."""
    store = Store(tmp_path / "store").create()
    measurement = Measurement(store, LARGE_SAMPLES)
    assert len(catch_up(store).derived) == 1
    measurement.go_on(LATER_SAMPLES)
    notes: list[str] = []
    with open_tables(store, notes.append) as tables:
        found = tables.execute("SELECT count(*) FROM samples").fetchall()
        placed = tables.execute("SELECT count(clock_offset_ns), count(*) FROM segments").fetchall()
    assert found == [(LARGE_SAMPLES + LATER_SAMPLES,)] and placed == [(3, 3)]
    assert [note for note in notes if "goes on: its figures include" in note]
    measurement.go_on(LARGE_SAMPLES // 5)
    assert len(catch_up(store).derived) == 1
    measurement.go_on(LATER_SAMPLES)
    measurement.stop()
    assert len(catch_up(store).derived) == 1
