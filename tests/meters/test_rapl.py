"""RAPL counters on a powercap folder like the kernel's."""

import pytest

from llem.errors import MeterError
from llem.meters.rapl import RaplMeter, unreadable
from tests.meters.conftest import FakePowercap


def _joules(meter: RaplMeter, powercap: FakePowercap, *, seconds: float, step_s: float = 0.05) -> list[float]:
    opened = meter.read_edge()
    for _ in range(round(seconds / step_s)):
        powercap.sleep_s(step_s)
        meter.read()
    closed = meter.read_edge()
    return [
        ((end.energy_mj or 0) - (start.energy_mj or 0)) / 1000
        for start, end in zip(opened, closed, strict=True)
    ]


def test_counts_packages_and_dram_once(powercap: FakePowercap) -> None:
    """Cores inside a package, the platform around it and the second view of a package would count twice."""
    meter = RaplMeter(root=powercap.root, clock=powercap.clock)
    assert [(one.device.name, one.device.kind) for one in meter.devices()] == [
        ("package-0", "cpu_package"),
        ("package-0-dram", "dram"),
    ]
    assert _joules(meter, powercap, seconds=10.0) == pytest.approx([800.0, 120.0], rel=0.01)


def test_derives_power_from_the_counter(powercap: FakePowercap) -> None:
    """The first reading has no power yet; later ones have the mean since the last."""
    meter = RaplMeter(root=powercap.root, clock=powercap.clock)
    assert [reading.power_mw for reading in meter.read()] == [None, None]
    powercap.sleep_s(0.5)
    assert [reading.power_mw for reading in meter.read()] == pytest.approx([80_000, 12_000], rel=0.01)


def test_undoes_the_wrap_around(powercap: FakePowercap) -> None:
    """A counter that wraps at 100 J several times in a window still adds up."""
    powercap.add("intel-rapl:2", "package-1", watts=200.0, start_uj=99_000_000, range_uj=100_000_000)
    meter = RaplMeter(root=powercap.root, clock=powercap.clock)
    assert _joules(meter, powercap, seconds=4.0)[-1] == pytest.approx(800.0, rel=0.01)
    assert meter.faults() == []


def test_an_unreadable_counter_is_none_with_its_reason(powercap: FakePowercap) -> None:
    """A file that goes away during the run gives None, not zero; the others go on."""
    meter = RaplMeter(root=powercap.root, clock=powercap.clock)
    del powercap.energies_uj["intel-rapl:0:1"], powercap.watts["intel-rapl:0:1"]
    (powercap.root / "intel-rapl:0:1" / "energy_uj").unlink()
    package, dram = meter.read()
    assert package.energy_mj is not None
    assert (dram.energy_mj, dram.power_mw) == (None, None)
    assert [edge.reason for edge in meter.read_edge()] == [None, "the energy counter could not be read"]


def test_says_that_there_is_no_rapl(powercap: FakePowercap) -> None:
    """A virtual machine has an empty folder or none."""
    reason = unreadable(powercap.root / "elsewhere")
    assert reason is not None and reason.startswith("no intel-rapl package under")


def test_says_what_is_missing_and_how_to_get_it(powercap: FakePowercap) -> None:
    """Most distributions let only root read the counter; the error has the command that changes it."""
    (powercap.root / "intel-rapl:0" / "energy_uj").unlink()
    (powercap.root / "intel-rapl:0" / "energy_uj").mkdir()  # unreadable for root too
    with pytest.raises(MeterError, match=r"intel-rapl:0/energy_uj: Is a directory.*try: sudo chmod"):
        RaplMeter(root=powercap.root, clock=powercap.clock)
