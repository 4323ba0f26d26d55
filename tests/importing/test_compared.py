"""An imported run beside one that llem measured."""

import csv
from pathlib import Path

import pytest

from llem.comparing.findings import compare_groups
from llem.importers.asked import Asked
from llem.importing import import_result
from llem.store import Store
from tests.importing.files import FORMATS
from tests.importing.tables import tables
from tests.world import experiment

UTC = Asked(timezone="UTC")


def test_it_has_no_plan_and_that_is_the_only_difference_of_plans(tmp_path: Path) -> None:
    """Nobody wants to read every key of the other's."""
    store = Store(tmp_path / "store").create()
    measured = "20260101-000000-00000000000a"
    experiment(store, experiment_id=measured)
    (imported,) = import_result(FORMATS / "codecarbon/gpu.csv", store, asked=UTC).experiment_ids
    with tables(store) as connection:
        found = compare_groups(connection, {"ours": [measured], "theirs": [imported]})
    assert found.differences == {"plan": ["llem's", "none"]}


def test_codecarbons_gpus_drew_what_the_driver_counted(tmp_path: Path) -> None:
    """What the file says is 1.5 times that, for its PUE is 1.5."""
    store = Store(tmp_path / "store").create()
    import_result(FORMATS / "codecarbon/gpu.csv", store, asked=UTC)
    with tables(store) as connection:
        ((energy_j, source),) = connection.execute(
            "SELECT energy_gpu_j, energy_source FROM experiment_results"
        ).fetchall()
    (row,) = csv.DictReader((FORMATS / "codecarbon/gpu.csv").read_text().splitlines())
    assert source == "counter"
    assert energy_j * 1.5 == pytest.approx(float(row["gpu_energy"]) * 3_600_000, rel=1e-6)
