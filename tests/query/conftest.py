"""A store with tables that no test may change."""

from pathlib import Path

import duckdb
import pytest

from llem.projections import catch_up
from llem.store import Store


@pytest.fixture
def database(tmp_path: Path) -> Store:
    """A store without experiments, with a table of a thousand rows beside the empty ones."""
    store = Store(tmp_path).create()
    catch_up(store)
    with duckdb.connect(store.projections_path) as connection:
        connection.execute(
            "CREATE TABLE numbers AS SELECT range AS n, n / 2 AS half, 'x' || n AS name FROM range(1000)"
        )
        connection.execute("COMMENT ON COLUMN numbers.half IS '[J] half of n'")
        connection.execute("CREATE VIEW few AS FROM numbers LIMIT 3")
    return store
