"""A small database that no test may change."""

from pathlib import Path

import duckdb
import pytest


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A DuckDB file with a table of a thousand rows and one of hostile text."""
    path = tmp_path / "projections.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(
            "CREATE TABLE numbers AS SELECT range AS n, n / 2 AS half, 'x' || n AS name FROM range(1000)"
        )
        connection.execute("COMMENT ON COLUMN numbers.half IS '[J] half of n'")
        connection.execute("CREATE VIEW few AS FROM numbers LIMIT 3")
    return path
