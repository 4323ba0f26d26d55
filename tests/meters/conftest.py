"""Simulated GPUs, a simulated powercap folder, and clocks that only move when told to."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from llem.meters.base import Clock
from tests.simulated_nvml.build import Simulation, has_compiler, installed
from tests.simulated_nvml.scenario import Scenario

AMD_LIBRARY = Path(__file__).parents[1] / "simulated_amdsmi"


class ManualClock:
    """Time that passes by sleeping only; `on_sleep` lets something happen meanwhile."""

    def __init__(self) -> None:
        self.at_ns = 1_000_000_000_000

    def now_ns(self) -> int:
        return self.at_ns

    def sleep_s(self, seconds: float) -> None:
        self.at_ns += round(seconds * 1e9)

    @property
    def clock(self) -> Clock:
        return Clock(self.now_ns, self.sleep_s)


class FakePowercap(ManualClock):
    """A /sys/class/powercap whose counters are written anew whenever time passes."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.watts: dict[str, float] = {}
        self.energies_uj: dict[str, float] = {}
        self.ranges_uj: dict[str, int] = {}

    def add(
        self,
        folder: str,
        name: str,
        *,
        watts: float = 50.0,
        start_uj: int = 1_000_000,
        range_uj: int = 262_143_328_850,
    ) -> None:
        zone = self.root / folder
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
        self.watts[folder], self.energies_uj[folder], self.ranges_uj[folder] = watts, start_uj, range_uj
        self._write()

    def sleep_s(self, seconds: float) -> None:
        super().sleep_s(seconds)
        for folder, watts in self.watts.items():
            self.energies_uj[folder] = (self.energies_uj[folder] + watts * seconds * 1e6) % self.ranges_uj[
                folder
            ]
        self._write()

    def _write(self) -> None:
        for folder, energy_uj in self.energies_uj.items():
            (self.root / folder / "energy_uj").write_text(f"{int(energy_uj)}\n")


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def powercap(tmp_path: Path) -> FakePowercap:
    """A host with one package and its DRAM, and with the zones that would count the same joules twice."""
    fake = FakePowercap(tmp_path / "powercap")
    fake.add("intel-rapl:0", "package-0", watts=80.0)
    fake.add("intel-rapl:0:0", "core", watts=60.0)
    fake.add("intel-rapl:0:1", "dram", watts=12.0)
    fake.add("intel-rapl:1", "psys", watts=120.0)
    fake.add("intel-rapl-mmio:0", "package-0", watts=80.0)
    return fake


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    """A simulated NVML for one test, and afterwards none: other tests in this process must not see it."""
    if not has_compiler():
        pytest.skip("no C compiler: the simulated NVML cannot be built")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    with installed(Scenario(gpus=[])) as simulation:
        yield simulation


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch, manual_clock: ManualClock) -> Iterator[ModuleType]:
    """The AMD meter's module over a stand-in of amdsmi: GPUs of 100, 200 and 300 W on a clock that is moved by hand."""
    import importlib

    monkeypatch.syspath_prepend(AMD_LIBRARY)
    monkeypatch.setenv("SIMULATED_AMD_WATTS", "100,200,300")
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"):
        monkeypatch.delenv(name, raising=False)
    library = importlib.import_module("amdsmi")
    monkeypatch.setattr(library, "clock_ns", manual_clock.now_ns)
    yield importlib.import_module("llem.meters.amd")
    # No other test of this process has amdsmi.
    for name in ("amdsmi", "llem.meters.amd"):
        sys.modules.pop(name, None)
