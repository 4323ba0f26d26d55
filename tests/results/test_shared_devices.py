"""A device that several processes used counts once."""

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from llem.results import (
    ComputeMetrics,
    DeviceEnergy,
    EnergyBreakdown,
    ExperimentResult,
    ExtendedEfficiencyMetrics,
    MemoryEfficiencyMetrics,
    RawProcessResult,
    aggregate_results,
)
from llem.results.attribution import join_energy
from llem.results.nullable import total
from tests.world import device_energy, process, wall_time


def aggregate(*results: RawProcessResult) -> ExperimentResult:
    return aggregate_results(list(results), "run", "hash")


@dataclass(frozen=True)
class Sharing:
    """Two processes on one GPU: their spans in seconds, energies, edges of the counter, and the joined energy."""

    spans: tuple[tuple[float, float], tuple[float, float]]
    energies_j: tuple[float, float]
    counters_j: tuple[tuple[float, float], tuple[float, float]] | None
    joined_j: float


SHARING = {
    "equal windows": Sharing(((0, 10), (0, 10)), (100.0, 100.0), None, 100.0),
    "equal windows, readings differ": Sharing(((0, 10), (0, 10)), (100.0, 104.0), None, 102.0),
    "half overlap, constant power": Sharing(((0, 10), (5, 15)), (100.0, 100.0), None, 150.0),
    "one inside the other": Sharing(((0, 10), (2, 4)), (100.0, 20.0), None, 100.0),
    "half overlap, by counter": Sharing(
        ((0, 10), (5, 15)), (100.0, 170.0), ((7.0, 107.0), (47.0, 217.0)), 210.0
    ),
}


def shared_process(index: int, case: Sharing) -> RawProcessResult:
    edges = (
        dict(zip(("counter_open_j", "counter_close_j"), case.counters_j[index], strict=True))
        if case.counters_j
        else {}
    )
    shared: DeviceEnergy = device_energy("GPU-7", case.energies_j[index], **edges)
    return process(index, span=case.spans[index], energy_j=case.energies_j[index], devices=[shared])


def test_the_energy_of_all_is_the_sum_of_the_devices_to_the_last_digit() -> None:
    """As they are printed, however the processes' own sums were rounded."""
    random = np.random.default_rng(1)
    for _ in range(100):
        devices = [device_energy(f"GPU-{number}", float(random.uniform(1, 1e6))) for number in range(6)]
        results = [
            process(
                index, energy_j=total(each.energy_j for each in of_process), devices=of_process, gpu_id=None
            )
            for index, of_process in enumerate((devices[:3], devices[3:]))
        ]
        joined = join_energy(results, duration_sec=10.0)
        assert joined.total_j == total(each.energy_j for each in devices)


@pytest.mark.parametrize(
    ("later_s", "bounds_j", "joined_j"),
    [(0.0, (2.0, 3.0), 3.0), (10.0, (2.0, 3.0), 5.0), (0.0, (2.0, None), None), (10.0, (2.0, None), None)],
)
def test_windows_at_one_time_have_the_same_edges_to_err_at(
    later_s: float, bounds_j: tuple[float, float | None], joined_j: float | None
) -> None:
    """The larger bound holds for both; those of windows one after another add up, and one that is unknown makes all so."""
    results = [
        process(
            index,
            span=(index * later_s, index * later_s + 10),
            devices=[device_energy("GPU-7", 25.0, uncertainty_j=bound_j)],
        )
        for index, bound_j in enumerate(bounds_j)
    ]
    assert join_energy(results, duration_sec=20.0).uncertainty_j == joined_j


@pytest.mark.parametrize("case", SHARING.values(), ids=SHARING.keys())
def test_a_shared_device_counts_once(case: Sharing) -> None:
    """Over the union of the windows, with a warning, and attribution is not verified."""
    result = aggregate(shared_process(0, case), shared_process(1, case))
    assert result.total_energy_j == pytest.approx(case.joined_j)
    assert result.energy_per_device_j == pytest.approx([case.joined_j])
    assert result.aggregation is not None
    assert not result.aggregation.gpu_attribution_verified
    assert (
        "device GPU-7 on h1 was shared by processes 0, 1; its energy counts once"
        in result.aggregation.warnings
    )


def test_a_counter_does_not_count_the_pause_between_windows() -> None:
    """With several windows the counter's edges say nothing of the pause, so mean power decides."""
    edges = {"counter_open_j": 0.0, "counter_close_j": 500.0}
    windows = [(wall_time(0), wall_time(5)), (wall_time(45), wall_time(50))]
    first, second = (
        process(index, energy_j=100.0, windows=windows, devices=[device_energy("GPU-7", 100.0, **edges)])
        for index in range(2)
    )
    assert aggregate(first, second).total_energy_j == pytest.approx(100.0)


@pytest.mark.parametrize("edge", ["counter_open_j", "counter_close_j"])
def test_a_counter_that_one_process_did_not_see_is_not_used(edge: str) -> None:
    """Without an edge of one of them the mean power of both decides."""
    case = SHARING["half overlap, by counter"]
    first, second = shared_process(0, case), shared_process(1, case)
    blind = msgspec.structs.replace(second.devices[0], **{edge: None})
    joined = aggregate(first, msgspec.structs.replace(second, devices=[blind]))
    assert joined.total_energy_j == pytest.approx(50.0 + (100.0 + 170.0) / 2 / 2 + 85.0)


def test_a_shared_device_of_unknown_energy_is_warned_of() -> None:
    """Where only the index of a GPU is known, the sum stands and the warning says that it may be too much."""
    same = {"devices": [], "gpu_id": 0, "host": "h1"}
    result = aggregate(process(0, **same), process(1, **same))
    assert result.total_energy_j == 50.0
    assert result.aggregation is not None
    assert not result.aggregation.gpu_attribution_verified
    assert "may count twice" in result.aggregation.warnings[0]


def test_one_device_used_in_turn_is_not_shared() -> None:
    """Processes that follow each other on a device both count in full."""
    use = [device_energy("GPU-7", 25.0)]
    result = aggregate(process(0, span=(0, 10), devices=use), process(1, span=(10, 20), devices=use))
    assert result.total_energy_j == 50.0
    assert result.aggregation is not None
    assert result.aggregation.gpu_attribution_verified
    assert not result.aggregation.temporal_overlap_verified


def test_equal_uuids_on_two_hosts_are_two_devices() -> None:
    """A device is host and UUID."""
    first = process(0, devices=[device_energy("GPU-7", 25.0)])
    second = process(1, devices=[device_energy("GPU-7", 25.0, host="h2")])
    result = aggregate(first, second)
    assert result.total_energy_j == 50.0
    assert result.aggregation is not None
    assert result.aggregation.gpu_attribution_verified


def test_mig_instances_of_one_gpu_are_one_metered_device() -> None:
    """Two instances show the power of their parent, which counts once."""
    instances = [device_energy(f"MIG-{index}", 100.0, kind="mig", parent_uuid="GPU-7") for index in range(2)]
    result = aggregate(*(process(index, energy_j=100.0, devices=[instances[index]]) for index in range(2)))
    assert result.total_energy_j == 100.0


def test_a_shared_device_pays_its_idle_power_once() -> None:
    """Adjusted energy of a shared device is its joined energy less its baseline over the union of windows."""
    shared = [device_energy("GPU-7", 100.0, baseline_power_w=4.0)]
    part = EnergyBreakdown(raw_j=100.0, adjusted_j=60.0, baseline_power_w=4.0)
    result = aggregate(
        *(process(index, energy_j=100.0, devices=shared, energy_breakdown=part) for index in range(2))
    )
    assert result.energy_breakdown is not None
    assert (result.energy_breakdown.raw_j, result.energy_adjusted_j) == (100.0, 60.0)


def test_idle_power_of_a_shared_device_is_the_mean_of_what_its_processes_saw() -> None:
    """4 W and 6 W of one GPU are 5 W, not 10; a processor of 1 W that both used too is 1 W."""
    common = device_energy("cpu-0", 10.0, kind="cpu_package", baseline_power_w=1.0)
    results = [
        process(
            index,
            energy_j=110.0,
            devices=[device_energy("GPU-7", 100.0, baseline_power_w=idle_w), common],
            energy_breakdown=EnergyBreakdown(baseline_power_w=idle_w + 1.0),
        )
        for index, idle_w in enumerate((4.0, 6.0))
    ]
    joined = aggregate(*results)
    assert (joined.total_energy_j, joined.baseline_power_w, joined.energy_adjusted_j) == (110.0, 6.0, 50.0)


@pytest.mark.parametrize(
    ("uuids", "std_w", "after_w"),
    [
        ((["GPU-0"], ["GPU-1"]), 5.0, 12.0),
        ((["GPU-0"], ["GPU-0"]), 4.0, 6.0),
        ((["GPU-0", "cpu"], ["GPU-1", "cpu"]), None, None),
        ((["GPU-0", "GPU-1"], ["GPU-0", "GPU-1"]), 4.0, 6.0),
    ],
    ids=["own devices", "one device", "own ones and a common one", "the same devices"],
)
def test_spread_and_drift_of_idle_power_are_those_of_all_devices(
    uuids: tuple[list[str], list[str]], std_w: float | None, after_w: float | None
) -> None:
    """Independent devices add up; of the same ones the larger spread and the mean hold; of a mixture nobody can tell."""
    results = [
        process(
            index,
            devices=[device_energy(uuid, 25.0) for uuid in uuids[index]],
            energy_breakdown=EnergyBreakdown(
                baseline_power_w=4.0, baseline_std_w=3.0 + index, baseline_after_w=5.0 + 2 * index
            ),
        )
        for index in range(2)
    ]
    breakdown = aggregate(*results).energy_breakdown
    assert breakdown is not None
    assert (breakdown.baseline_std_w, breakdown.baseline_after_w) == (std_w, after_w)


def test_what_several_counted_of_a_device_is_taken_off_energies_that_are_more_than_devices() -> None:
    """Of 70 J each, 5 J of which no device has, 40 J of a common processor count once."""
    for common_j, total_j in ((40.0, 100.0), (0.0, 140.0)):
        common = device_energy("cpu-0", common_j, kind="cpu_package")
        results = [
            process(index, energy_j=70.0, devices=[device_energy(f"GPU-{index}", 25.0), common])
            for index in range(2)
        ]
        assert aggregate(*results).total_energy_j == pytest.approx(total_j)
    alone = [process(index, energy_j=70.0, devices=[], gpu_id=0) for index in range(2)]
    assert aggregate(*alone).total_energy_j == pytest.approx(140.0)


def test_memory_of_a_shared_device_counts_once() -> None:
    """Two processes on one GPU of 80 GB have 80 GB; the engine's own peaks add up, the device's do not."""
    for devices in ([device_energy("GPU-7", 25.0, memory_mb=81_559.0)], [device_energy("GPU-7", 25.0)]):
        memory = MemoryEfficiencyMetrics(total_vram_mb=81_559.0, peak_memory_mb=1_024.0)
        extended = ExtendedEfficiencyMetrics(memory=memory)
        own = ComputeMetrics(peak_memory_mb=1_024.0)
        seen = [process(index, devices=devices, extended_metrics=extended) for index in range(2)]
        held = [msgspec.structs.replace(result, compute_metrics=own) for result in seen]
        for results, tokens_per_gb in ((seen, 800.0), (held, 400.0)):
            joined = aggregate(*results).extended_metrics
            assert joined is not None
            assert (joined.memory.total_vram_mb, joined.memory.tokens_per_gb_vram) == (
                81_559.0,
                tokens_per_gb,
            )


def test_sharing_that_is_not_verified_is_not_warned_of() -> None:
    """verify_gpu_attribution=False means no word about it; the device still counts once."""
    shared = [process(index, devices=[device_energy("GPU-7", 25.0)]) for index in range(2)]
    joined = aggregate_results(shared, "run", "hash", verify_gpu_attribution=False)
    assert joined.aggregation is not None
    assert (joined.aggregation.warnings, joined.total_energy_j) == ([], 25.0)


def test_a_device_shared_beside_own_ones_is_taken_off_the_sum() -> None:
    """GPUs of their own and a common processor: the processor counts once."""
    common = device_energy("cpu-0", 40.0, kind="cpu_package")
    results = [
        process(index, energy_j=65.0, devices=[device_energy(f"GPU-{index}", 25.0), common])
        for index in range(2)
    ]
    assert aggregate(*results).total_energy_j == pytest.approx(90.0)


def test_unknown_devices_are_not_verified() -> None:
    """Several processes, one of which does not say what it ran on."""
    result = aggregate(process(0), process(1, devices=[], gpu_id=None))
    assert result.aggregation is not None
    assert not result.aggregation.gpu_attribution_verified
    assert result.aggregation.warnings == [
        "devices of process 1 are unknown, so a shared one would count twice"
    ]


@pytest.mark.parametrize("case", SHARING.values(), ids=SHARING.keys())
def test_a_package_that_every_process_watched_counts_once(case: Sharing) -> None:
    """Beside GPUs of their own: the total and what follows from it stay the GPUs', and nobody is warned of sharing."""
    parts = [shared_process(index, case) for index in range(2)]
    beside = [
        [msgspec.structs.replace(used, uuid="rapl-package-0", kind="cpu_package") for used in part.devices]
        for part in parts
    ]
    result = aggregate(*(process(index, span=case.spans[index], beside=beside[index]) for index in range(2)))
    assert (result.total_energy_j, result.energy_gpu_j) == (50.0, 50.0)
    assert result.energy_cpu_j == pytest.approx(case.joined_j)
    assert result.energy_dram_j is None
    assert result.energy_per_device_j == [25.0, 25.0]
    assert result.aggregation is not None
    assert result.aggregation.gpu_attribution_verified
    assert not any("rapl" in warning for warning in result.aggregation.warnings)


def test_a_package_that_one_process_did_not_watch_is_not_measured() -> None:
    """What it used in that process's time is unknown, and part of it would look like all."""
    package = [device_energy("rapl-package-0", 60.0, kind="cpu_package")]
    result = aggregate(process(0, beside=package), process(1))
    assert (result.total_energy_j, result.energy_cpu_j) == (50.0, None)


def test_energy_of_a_kind_is_unknown_where_one_device_of_it_is() -> None:
    """Two packages of which one was not measured; the memory beside them was."""
    packages = [
        device_energy(f"rapl-{index}", energy, kind="cpu_package") for index, energy in enumerate((9.0, None))
    ]
    memory = device_energy("rapl-dram", 4.0, kind="dram")
    result = aggregate(process(0, beside=[*packages, memory]))
    assert (result.energy_gpu_j, result.energy_cpu_j, result.energy_dram_j) == (25.0, None, 4.0)


def test_kinds_of_a_process_whose_devices_nobody_knows_are_unknown() -> None:
    """As those of a predecessor's result, whose energy has no devices."""
    result = aggregate(process(0, devices=[]))
    assert (result.total_energy_j, result.energy_gpu_j) == (25.0, None)


@pytest.mark.parametrize(
    ("changes", "verified"),
    [
        ({"gpu_id": None}, True),  # its devices are named
        ({"devices": []}, True),  # its GPU's index is known
        ({"gpu_id": None, "devices": []}, False),
    ],
    ids=["devices", "index", "neither"],
)
def test_of_several_processes_each_has_to_name_its_devices(
    changes: dict[str, object], verified: bool
) -> None:
    """Of one alone it does not matter: nobody could share them."""
    assert (
        join_energy([process(0), process(1, **changes)], duration_sec=10.0).attribution_verified is verified
    )
    assert join_energy([process(1, **changes)], duration_sec=10.0).attribution_verified
