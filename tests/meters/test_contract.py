"""What every meter keeps to, whatever it reads."""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from llem.meters import Meter
from llem.meters.base import SYSTEM_CLOCK, Clock
from llem.meters.estimate import EstimateMeter
from llem.meters.rapl import RaplMeter
from llem.meters.simulated import SimulatedMeter
from llem.plan import SimulatedMeterPlan
from llem.registry import METERS
from llem_events.events import SAMPLE_COLUMNS
from tests.delays import best_of_rounds, delays
from tests.simulated_nvml.scenario import hosts_gpus

NAMES = list(METERS)


class Subject(NamedTuple):
    meter: Meter
    clock: Clock


def _simulated(request: pytest.FixtureRequest) -> Subject:
    clock = request.getfixturevalue("manual_clock").clock
    return Subject(SimulatedMeter(SimulatedMeterPlan(curve="square"), gpus=["0", "1"], clock=clock), clock)


def _estimate(request: pytest.FixtureRequest) -> Subject:
    return Subject(EstimateMeter(watts_per_core=10.0, pid=os.getpid()), SYSTEM_CLOCK)


def _rapl(request: pytest.FixtureRequest) -> Subject:
    powercap = request.getfixturevalue("powercap")
    return Subject(RaplMeter(root=powercap.root, clock=powercap.clock), powercap.clock)


def _nvml(request: pytest.FixtureRequest) -> Subject:
    from llem.meters.nvml import NvmlMeter, resolve_gpus

    nvml = request.getfixturevalue("nvml")
    nvml.install(hosts_gpus(2))
    return Subject(NvmlMeter(resolve_gpus(None), clock=nvml.clock), nvml.clock)


def _amd(request: pytest.FixtureRequest) -> Subject:
    amd, clock = request.getfixturevalue("amd"), request.getfixturevalue("manual_clock").clock
    return Subject(amd.AmdMeter(amd.resolve_gpus(["0", "2"]), clock=clock), clock)


def _zeus(request: pytest.FixtureRequest) -> Subject:
    pytest.importorskip("zeus", reason="the zeus extra is not installed")
    from llem.meters.zeus import ZeusMeter, gpu_sensors

    nvml = request.getfixturevalue("nvml")
    nvml.install(hosts_gpus(2))
    return Subject(ZeusMeter(gpu_sensors(None), clock=nvml.clock), nvml.clock)


MAKERS: dict[str, Callable[[pytest.FixtureRequest], Subject]] = {
    "nvml": _nvml,
    "amd": _amd,
    "rapl": _rapl,
    "zeus": _zeus,
    "estimate": _estimate,
    "simulated": _simulated,
}


@pytest.fixture(params=NAMES)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    made = MAKERS[request.param](request)
    yield made
    made.meter.close()


def test_is_known_by_its_name(subject: Subject) -> None:
    """A meter's NAME is the one that a plan can choose."""
    assert subject.meter.NAME in METERS


def test_names_its_devices_once(subject: Subject) -> None:
    """Every device has a host and a UUID of its own, for it is counted by them."""
    devices = [one.device for one in subject.meter.devices()]
    assert devices
    assert all(device.host and device.uuid for device in devices)
    assert len({device.uuid for device in devices}) == len(devices)


def test_gives_each_column_a_value_or_a_reason(subject: Subject) -> None:
    """A column is measured at the latest by the second reading, or its absence is explained."""
    subject.meter.read()
    subject.clock.sleep_s(0.05)
    for metered, reading in zip(subject.meter.devices(), subject.meter.read(), strict=True):
        for column in SAMPLE_COLUMNS:
            assert (getattr(reading, column) is None) == (column in metered.missing), column
        assert all(metered.missing.values())


def test_reads_every_device_in_order(subject: Subject) -> None:
    """Readings come one per device, in integers, on the clock it was given."""
    before_ns = subject.clock.now_ns()
    readings = subject.meter.read()
    assert len(readings) == len(subject.meter.devices())
    assert all(before_ns <= reading.at_ns <= subject.clock.now_ns() for reading in readings)
    assert all(value is None or type(value) is int for reading in readings for value in reading)


def test_never_counts_backwards(subject: Subject) -> None:
    """Time and energy only grow."""
    series = []
    for _ in range(5):
        subject.clock.sleep_s(0.02)
        series.append(subject.meter.read())
    for readings in zip(*series, strict=True):
        assert sorted(reading.at_ns for reading in readings) == [reading.at_ns for reading in readings]
        energies = [reading.energy_mj for reading in readings]
        assert sorted(energies) == energies


@best_of_rounds
def test_reads_an_edge_per_device_within_two_ticks(subject: Subject) -> None:
    """An edge has its energy or a reason, and does not keep the measurement waiting."""
    started_ns = subject.clock.now_ns()
    edges = subject.meter.read_edge()
    took_ns = subject.clock.now_ns() - started_ns
    ticks_ns = [one.counter_tick_ns or 0 for one in subject.meter.devices()]
    assert [edge.device_uuid for edge in edges] == [one.device.uuid for one in subject.meter.devices()]
    assert all((edge.energy_mj is None) == (edge.reason is not None) for edge in edges)
    with delays():
        assert took_ns <= 2.2 * max(ticks_ns) + 500_000_000


def test_says_how_it_knows_the_energy(subject: Subject) -> None:
    """Source and kind of power are named, and only a real counter is called one."""
    expected = {
        "nvml": "counter",
        "amd": "counter",
        "rapl": "counter",
        "zeus": "counter",
        "estimate": "estimated",
        "simulated": "simulated",
    }
    for metered in subject.meter.devices():
        assert metered.energy_source == expected[subject.meter.NAME]
        assert metered.power_kind is not None
        assert metered.counter_tick_ns


def test_tells_no_fault_without_one(subject: Subject) -> None:
    """A healthy device is never complained about."""
    for _ in range(3):
        subject.meter.read()
        subject.clock.sleep_s(0.01)
    assert subject.meter.faults() == []


def test_closes_twice(subject: Subject) -> None:
    """Closing again does nothing."""
    subject.meter.close()
    subject.meter.close()
