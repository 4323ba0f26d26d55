"""Two projections side by side, in memory: which tables differ, and which figures of which results."""

from collections.abc import Sequence

import duckdb
import pytest

from llem.projections import diff
from llem.projections.diff import Change

COLUMNS = {
    "experiment_results": "experiment_id VARCHAR, total_energy_j DOUBLE, result VARCHAR",
    "segments": "experiment_id VARCHAR, blocks BIGINT, modified_ns BIGINT",
    "folders": "experiment_id VARCHAR, changed_ns BIGINT",
    "new_segments": "experiment_id VARCHAR, blocks BIGINT",
}
RESULTS = [("run-1", 5.0, "a"), ("run-2", None, "b")]
SEGMENTS = [("run-1", 3, 100), ("run-2", 4, 200)]


def projection(
    results: Sequence[object] = RESULTS, segments: Sequence[object] = SEGMENTS
) -> duckdb.DuckDBPyConnection:
    """Tables with these rows, and two that the log alone does not decide about."""
    connection = duckdb.connect()
    for table, columns in COLUMNS.items():
        connection.execute(f"CREATE TABLE {table} ({columns})")
    for table, rows in (("experiment_results", results), ("segments", segments)):
        for row in rows:
            connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", row)
    connection.execute("INSERT INTO folders VALUES ('run-1', 1)")
    return connection


def test_tables_are_named_and_counted() -> None:
    """Those that the log decides about."""
    connection = projection()
    assert diff.tables(connection) == ["experiment_results", "segments"]
    assert diff.count_rows(connection) == {"experiment_results": 2, "segments": 2}


@pytest.mark.parametrize(
    ("segments", "changed"),
    [
        (SEGMENTS[::-1], []),
        ([("run-1", 3, 7), ("run-2", 4, 8)], []),
        ([("run-1", 3, 100), ("run-2", 5, 200)], ["segments"]),
        (SEGMENTS[:1], ["segments"]),
        ([*SEGMENTS, SEGMENTS[0]], ["segments"]),
        ([], ["segments"]),
    ],
    ids=["another order", "other times of files", "a value", "one less", "one twice", "none"],
)
def test_tables_differ_by_their_rows(segments: Sequence[object], changed: list[str]) -> None:
    """Whatever their order is and whenever the files of the log were written."""
    before, after = projection(), projection(segments=segments)
    assert diff.table_changes(before, after) == diff.table_changes(after, before) == changed


def test_figures_that_changed_are_told() -> None:
    """Of each result that both have its columns, the whole result left out; of one that came or went, that it did."""
    before = projection()
    after = projection([("run-1", 6.0, "c"), ("run-3", 1.0, "d")])
    assert diff.result_changes(before, after) == [
        Change(experiment_id="run-1", column="total_energy_j", before=5.0, after=6.0),
        Change(experiment_id="run-2", column="experiment_id", before="present", after=None),
        Change(experiment_id="run-3", column="experiment_id", before=None, after="present"),
    ]
    assert diff.result_changes(before, projection([RESULTS[0], ("run-2", None, "z")])) == []
