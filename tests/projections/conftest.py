"""A store of its own for every test."""

from pathlib import Path

import pytest

from llem.store import Store


@pytest.fixture
def log(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store").create()
