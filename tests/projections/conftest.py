"""A store of its own for every test."""

import shutil
from pathlib import Path

import pytest

from llem.projections import catch_up
from llem.store import Store
from tests.world import experiment


@pytest.fixture
def log(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store").create()


@pytest.fixture(scope="session")
def empty_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of an empty store."""
    store = Store(tmp_path_factory.mktemp("empty") / "store").create()
    catch_up(store)
    return store.projections_path


@pytest.fixture
def tables(log: Store, empty_tables: Path) -> None:
    """Empty tables in the store of the test, to which it does not matter how tables are made."""
    shutil.copy(empty_tables, log.projections_path)


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one usual experiment in its tables, which no test may change."""
    store = Store(tmp_path_factory.mktemp("usual") / "store").create()
    experiment(store)
    catch_up(store)
    return store


@pytest.fixture
def caught_up(usual: Store, tmp_path: Path) -> Store:
    """A copy of that store, for one test."""
    return Store(shutil.copytree(usual.path, tmp_path / "store"))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same with an experiment of two processes, which has a label."""
    store = Store(tmp_path_factory.mktemp("pair") / "store").create()
    experiment(store, processes=2, labels={"series": "a"})
    catch_up(store)
    return store
