"""From a file of CodeCarbon to what its energy means for a site: PUE is applied once, whatever the file contains of it."""

from pathlib import Path

import pytest

from llem.importing import import_result
from llem.store import Store
from tests.importing.files import UTC
from tests.importing.tables import rows, tables

COLUMNS = "timestamp,project_name,run_id,duration,emissions,cpu_energy,gpu_energy,ram_energy,energy_consumed,gpu_count,gpu_model,pue"
DEVICES_J = 550.0


def emissions(*, pue: float, gpu: str) -> str:
    """A file as CodeCarbon writes it: its energies are those of the devices times the PUE."""
    consumed = "0.000153" if gpu == "0.0" else gpu
    return f"{COLUMNS}\n2026-03-01T12:01:00,p,a,60,0.1,0.0,{gpu},0.0,{consumed},1,H100,{pue}\n"


@pytest.mark.parametrize("pue", [1.0, 1.5])
def test_a_pue_in_the_file_is_not_applied_twice(pue: float, tmp_path: Path) -> None:
    """550 J of the GPU are 825 J with a PUE of 1.5, also where the file's own 825 J contain that PUE already."""
    (path := tmp_path / "emissions.csv").write_text(emissions(pue=pue, gpu=repr(DEVICES_J / 3.6e6 * pue)))
    store = Store(tmp_path / "store").create()
    (run,) = import_result(path, store, asked=UTC).experiment_ids
    with tables(store) as connection:
        before = rows(connection, "FROM experiment_results")
        (row,) = rows(connection, "FROM footprint(pue := 1.5) WHERE experiment_id = ?", [run])
        assert rows(connection, "FROM experiment_results") == before
    assert row["total_energy_j"] == pytest.approx(DEVICES_J, abs=1e-3)
    assert row["facility_energy_j"] == pytest.approx(825.0, abs=2e-3)


def test_a_zero_of_codecarbon_has_no_footprint(tmp_path: Path) -> None:
    """0.0 for the GPU is not measured: no energy, and the reason instead of one."""
    (path := tmp_path / "emissions.csv").write_text(emissions(pue=1.5, gpu="0.0"))
    store = Store(tmp_path / "store").create()
    import_result(path, store, asked=UTC)
    with tables(store) as connection:
        (row,) = rows(connection, "FROM footprint(pue := 1.5)")
        reasons = rows(connection, "SELECT energy_j, reason FROM windows WHERE device_uuid = 'GPUs'")
    assert (row["total_energy_j"], row["facility_energy_j"]) == (None, None) and row["reason"]
    assert reasons[0]["energy_j"] is None and "CodeCarbon writes 0" in reasons[0]["reason"]
