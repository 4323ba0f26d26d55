"""A meter beside the first: its devices have figures of their own, and those of the first meter stay what they were."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from llem.projections import catch_up
from llem.store import Store
from llem_events.events import MeterStarted, OtherMeter, SamplingCompleted, WindowClosed, WindowOpened
from tests.projections.tables import result, rows
from tests.world import PACKAGE, edges, experiment, sampler_events, with_package, worker_events

pytestmark = pytest.mark.usefixtures("tables")


def derived(log: Store, *, beside: bool) -> dict[str, Any]:
    """The result of one process with a GPU, with or without a package beside it."""
    worker, sampler = worker_events(), sampler_events()
    if beside:
        worker, sampler = with_package(worker, sampler)
    experiment(log, worker=worker, sampler=sampler)
    catch_up(log)
    return result(log)


@pytest.mark.slow
def test_the_first_meters_figures_stay_what_they_were(log: Store, tmp_path: Path) -> None:
    """All but those of the package; and nothing speaks against the result."""
    alone = derived(Store(tmp_path / "alone").create(), beside=False)
    both = derived(log, beside=True)
    assert (both["energy_cpu_j"], both["energy_dram_j"]) == (1_600.0, None)
    assert (both["valid"], both["invalid_reasons"], both["warnings"]) == (True, [], [])
    for told in (alone, both):
        del told["energy_cpu_j"], told["result"]
    assert both == alone
    assert both["energy_gpu_j"] == both["total_energy_j"] == 4_080.0


def test_every_device_has_its_rows(log: Store) -> None:
    """With the meter that read it, its idle power, and its energy in each window."""
    derived(log, beside=True)
    assert rows(log, "SELECT device_uuid, meter, baseline_power_w FROM devices ORDER BY ALL") == [
        {"device_uuid": "GPU-0", "meter": "nvml", "baseline_power_w": 50.0},
        {"device_uuid": PACKAGE, "meter": "rapl", "baseline_power_w": 20.0},
    ]
    measured = "SELECT device_uuid, energy_j, samples FROM windows WHERE kind = 'measurement' ORDER BY ALL"
    assert rows(log, measured) == [
        {"device_uuid": "GPU-0", "energy_j": 4_080.0, "samples": 200},
        {"device_uuid": PACKAGE, "energy_j": 1_600.0, "samples": 20},
    ]


def test_the_spread_of_idle_power_is_the_first_meters(log: Store) -> None:
    """1 W of the GPU; the package's 3 W belong to no total."""
    found = msgspec.json.decode(derived(log, beside=True)["result"])
    assert found["energy_breakdown"]["baseline_std_w"] == 1.0


def test_a_package_that_nobody_sampled_is_null_with_its_reason(log: Store) -> None:
    """Its counter was not read either, so its energy is unknown, and the result of the first meter stands."""
    worker, sampler = with_package(worker_events(), sampler_events())
    unread = [
        (second, msgspec.structs.replace(event, edges=[event.edges[0], *edges(PACKAGE, None, second)]))
        if isinstance(event, WindowOpened | WindowClosed) and event.edges
        else (second, event)
        for second, event in worker
    ]
    *others, _, (second, ended) = sampler
    assert isinstance(ended, SamplingCompleted)
    unsampled = [*others, (second, msgspec.structs.replace(ended, samples=ended.samples - 40))]
    experiment(log, worker=unread, sampler=unsampled)
    catch_up(log)
    found = result(log)
    assert (found["total_energy_j"], found["energy_cpu_j"], found["valid"]) == (4_080.0, None, True)
    assert found["warnings"] == [f"energy of {PACKAGE} was not measured: no energy counter"]


def test_devices_that_two_meters_name_alike_are_told(log: Store) -> None:
    """Their samples could not be told apart."""
    sampler = [
        (second, msgspec.structs.replace(event, beside=[OtherMeter(meter="zeus", devices=event.devices)])
         if isinstance(event, MeterStarted) else event)
        for second, event in sampler_events()
    ]  # fmt: skip
    experiment(log, sampler=sampler)
    catch_up(log)
    assert any("is named twice" in reason for reason in result(log)["invalid_reasons"])
