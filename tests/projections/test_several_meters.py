"""A meter beside the first: its devices have figures of their own, and those of the first meter stay what they were."""

from pathlib import Path
from typing import Any

import msgspec

from llem.projections import catch_up
from llem.store import Store
from llem_events import Reading, columns
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    Device,
    Event,
    MeteredDevice,
    MeterStarted,
    OtherMeter,
    SamplingCompleted,
    WindowClosed,
    WindowOpened,
)
from tests.projections.tables import result, rows
from tests.world import HOST, at, edges, experiment, sampler_events, worker_events

PACKAGE = "rapl-package-0"
METERED = MeteredDevice(
    device=Device(host=HOST, uuid=PACKAGE, index=0, name="package-0", kind="cpu_package"),
    energy_source="counter",
    power_kind="derived",
)
COUNTED_MJ = {10.0: 5_000, 30.0: 1_605_000}


def with_edges(event: Event, second: float) -> Event:
    """The package's counter beside the GPU's, and its idle power beside the GPU's."""
    match event:
        case WindowOpened(kind="measurement") | WindowClosed(kind="measurement"):
            both = [*event.edges, *edges(PACKAGE, COUNTED_MJ[second], second)]
            return msgspec.structs.replace(event, edges=both)
        case BaselineMeasured():
            idle = BaselinePower(device_uuid=PACKAGE, mean_power_w=20.0, std_power_w=3.0, samples=30)
            return msgspec.structs.replace(event, devices=[*event.devices, idle])
    return event


def with_package(event: Event) -> Event:
    """The sampler's own account of the other meter."""
    match event:
        case MeterStarted():
            return msgspec.structs.replace(event, beside=[OtherMeter(meter="rapl", devices=[METERED])])
        case SamplingCompleted():
            return msgspec.structs.replace(event, samples=event.samples + 40)
    return event


def package_samples() -> list[tuple[float, Event]]:
    """One a second, at 80 W while something is measured and 20 W before it."""
    readings = [
        Reading(at_ns=at(second + 0.5), power_mw=80_000 if second >= 10 else 20_000) for second in range(40)
    ]
    return [(34.9, columns.pack(readings, meter="rapl", device_uuid=PACKAGE))]


def derived(log: Store, *, beside: bool) -> dict[str, Any]:
    """The result of one process with a GPU, with or without a package beside it."""
    worker, sampler = worker_events(), sampler_events()
    if beside:
        worker = [(second, with_edges(event, second)) for second, event in worker]
        *sampler, ended = [(second, with_package(event)) for second, event in sampler]
        sampler = [*sampler, *package_samples(), ended]
    experiment(log, worker=worker, sampler=sampler)
    catch_up(log)
    return result(log)


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
    blank = [(second, msgspec.structs.replace(event, edges=[*event.edges, *edges(PACKAGE, None, second)]))
             if isinstance(event, WindowOpened | WindowClosed) and event.kind == "measurement" else (second, event)
             for second, event in worker_events()]  # fmt: skip
    sampler = sampler_events()
    started = [(second, with_package(event) if isinstance(event, MeterStarted) else event) for second, event in sampler]  # fmt: skip
    experiment(log, worker=blank, sampler=started)
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
