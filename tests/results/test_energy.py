"""Energy of devices, and of a process as their sum."""

import pytest

from llem.results import DeviceEnergy, EnergyBreakdown, EnergyMetrics
from llem_events.events import Device
from tests.world import device_energy

GPU = Device(host="h1", uuid="GPU-7", index=3, name="A100", kind="gpu")


def test_the_counter_is_preferred_and_both_are_kept() -> None:
    """Counter 187 J and integrated 327 J: the counter's figure, with how far they are apart."""
    energy = DeviceEnergy.from_readings(
        GPU, energy_source="counter", counter_energy_j=187.0, integrated_energy_j=327.0
    )
    assert (energy.energy_j, energy.energy_source) == (187.0, "counter")
    assert (energy.counter_energy_j, energy.integrated_energy_j) == (187.0, 327.0)
    assert energy.disagreement == pytest.approx(140 / 327)
    assert (energy.host, energy.uuid, energy.index, energy.key) == ("h1", "GPU-7", 3, ("h1", "GPU-7"))


def test_a_legal_zero_of_the_counter_is_kept() -> None:
    """0 J by the counter is not replaced by the integrated power, from which it is as far as can be."""
    energy = DeviceEnergy.from_readings(
        GPU, energy_source="counter", counter_energy_j=0.0, integrated_energy_j=5.0
    )
    assert (energy.energy_j, energy.energy_source, energy.disagreement) == (0.0, "counter", 1.0)


def test_equal_readings_do_not_disagree() -> None:
    """Nor do two zeros."""
    energy = DeviceEnergy.from_readings(
        GPU, energy_source="counter", counter_energy_j=0.0, integrated_energy_j=0.0
    )
    assert energy.disagreement == 0.0


def test_without_a_counter_power_is_integrated() -> None:
    """The source says which figure it is, whatever the meter promised."""
    energy = DeviceEnergy.from_readings(GPU, energy_source="counter", integrated_energy_j=5.0)
    assert (energy.energy_j, energy.energy_source, energy.disagreement) == (5.0, "integrated", None)


def test_two_views_of_an_estimate_are_no_two_sensors() -> None:
    """However far they are apart, nothing was read that could disagree."""
    energy = DeviceEnergy.from_readings(
        GPU, energy_source="estimated", counter_energy_j=187.0, integrated_energy_j=327.0
    )
    assert (energy.energy_j, energy.energy_source, energy.disagreement) == (187.0, "estimated", None)


@pytest.mark.parametrize("source", ["estimated", "simulated"])
def test_an_estimate_stays_an_estimate(source: str) -> None:
    """A counter that is not measured does not become a measurement."""
    energy = DeviceEnergy.from_readings(GPU, energy_source=source, counter_energy_j=5.0)  # type: ignore[arg-type]
    assert energy.energy_source == source


def test_a_device_without_reading_has_a_reason() -> None:
    """None, and why."""
    energy = DeviceEnergy.from_readings(GPU, energy_source="counter", reason="the driver said no")
    assert (energy.energy_j, energy.energy_source, energy.reason) == (None, None, "the driver said no")


def test_process_energy_is_the_sum_by_kind() -> None:
    """GPUs, processors and memory by themselves and together; power is energy over duration."""
    devices = [
        device_energy("a", 30.0),
        device_energy("b", 20.0),
        device_energy("c", 8.0, kind="cpu_package"),
        device_energy("d", 2.0, kind="dram"),
    ]
    metrics = EnergyMetrics.from_devices(devices, duration_sec=10.0, total_tokens=600)
    assert (metrics.gpu_energy_j, metrics.cpu_energy_j, metrics.ram_energy_j) == (50.0, 8.0, 2.0)
    assert (metrics.gpu_power_w, metrics.cpu_power_w, metrics.ram_power_w) == (5.0, 0.8, 0.2)
    assert (metrics.total_energy_j, metrics.energy_per_token_j) == (60.0, 0.1)
    assert metrics.emissions_kg_co2 is None


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("gpu", "gpu_energy_j"),
        ("mig", "gpu_energy_j"),
        ("simulated", "gpu_energy_j"),
        ("cpu_package", "cpu_energy_j"),
        ("process", "cpu_energy_j"),
        ("dram", "ram_energy_j"),
        ("wall", None),
    ],
)
def test_every_kind_of_device_has_its_group(kind: str, field: str | None) -> None:
    """A meter of the whole machine is in none."""
    metrics = EnergyMetrics.from_devices(
        [device_energy("a", 5.0, kind=kind)], duration_sec=1.0, total_tokens=10
    )
    grouped = {name: getattr(metrics, name) for name in ("gpu_energy_j", "cpu_energy_j", "ram_energy_j")}
    assert grouped == dict.fromkeys(grouped) | ({field: 5.0} if field else {})


def test_an_unmeasured_device_makes_its_sums_unknown() -> None:
    """The kind and the total are None; the other kinds are known."""
    devices = [device_energy("a", None), device_energy("c", 8.0, kind="cpu_package")]
    metrics = EnergyMetrics.from_devices(devices, duration_sec=10.0, total_tokens=600)
    assert (metrics.total_energy_j, metrics.gpu_energy_j, metrics.cpu_energy_j) == (None, None, 8.0)


def test_no_devices_are_no_energy() -> None:
    """A process without a meter has None everywhere."""
    assert EnergyMetrics.from_devices([], duration_sec=10.0, total_tokens=5) == EnergyMetrics(
        duration_sec=10.0
    )


def test_adjusted_energy_may_be_negative() -> None:
    """Below the idle power it is what it is."""
    devices = [device_energy("a", 30.0, baseline_power_w=4.0), device_energy("b", 20.0, baseline_power_w=2.0)]
    breakdown = EnergyBreakdown.from_devices(devices, duration_sec=10.0, baseline_method="fresh")
    assert breakdown == EnergyBreakdown(
        raw_j=50.0, adjusted_j=-10.0, baseline_power_w=6.0, baseline_method="fresh"
    )


def test_a_missing_baseline_makes_adjusted_energy_unknown() -> None:
    """The part that is known is not the whole."""
    devices = [device_energy("a", 30.0, baseline_power_w=4.0), device_energy("b", 20.0)]
    breakdown = EnergyBreakdown.from_devices(devices, duration_sec=10.0)
    assert (breakdown.raw_j, breakdown.adjusted_j, breakdown.baseline_power_w) == (50.0, None, None)


def test_meters_beside_the_first_are_in_their_group_and_not_in_the_total() -> None:
    """A GPU of 50 J with a package of 8 J beside it."""
    gpu, package = (
        DeviceEnergy(host="h", uuid=kind, kind=kind, energy_j=energy_j, uncertainty_j=1.0)
        for kind, energy_j in (("gpu", 50.0), ("cpu_package", 8.0))
    )
    metrics = EnergyMetrics.from_devices([gpu], beside=[package], duration_sec=2.0, total_tokens=10)
    assert (metrics.total_energy_j, metrics.gpu_energy_j, metrics.cpu_energy_j) == (50.0, 50.0, 8.0)
    assert (metrics.cpu_power_w, metrics.energy_uncertainty_j, metrics.energy_per_token_j) == (4.0, 1.0, 5.0)
