"""A store with tables that no test may change."""

import shutil
from pathlib import Path

import duckdb
import pytest

from llem.projections import catch_up
from llem.store import Store


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store without experiments, with a table of a thousand rows beside the empty ones."""
    store = Store(tmp_path_factory.mktemp("database") / "store").create()
    catch_up(store)
    with duckdb.connect(store.projections_path) as connection:
        connection.execute(
            "CREATE TABLE numbers AS SELECT range AS n, n / 2 AS half, 'x' || n AS name FROM range(1000)"
        )
        connection.execute("COMMENT ON COLUMN numbers.half IS '[J] half of n'")
        connection.execute("CREATE VIEW few AS FROM numbers LIMIT 3")
    return store.path


@pytest.fixture
def database(made_once: Path, tmp_path: Path) -> Store:
    """A copy of that store, for one test."""
    return Store(shutil.copytree(made_once, tmp_path, dirs_exist_ok=True))
