"""The RAPL meter: energy counters of CPU packages and DRAM that Linux shows under /sys/class/powercap."""

import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from llem.errors import MeterError
from llem.meters.base import SYSTEM_CLOCK, Clock, Meter
from llem.meters.counter import CountedDevice, CounterSet
from llem.plan import MeterPlan
from llem.units import NS_PER_MS, NS_PER_S
from llem_events.events import SAMPLE_COLUMNS, Device, EnergyEdge, MeteredDevice, Reading

POWERCAP = Path("/sys/class/powercap")
# Where a container, which sees none of its own, has the host's folder mounted.
POWERCAP_VARIABLE = "LLEM_POWERCAP"
UJ_PER_MJ = 1_000
UW_PER_MW = 1_000
TICK_LIMIT_NS = 50 * NS_PER_MS  # these counters tick about every millisecond
PERMISSION_HINT = "sudo chmod -R a+r /sys/class/powercap/intel-rapl"
_MEASURED = {"at_ns", "power_mw", "energy_mj"}
# Zones inside a package (core, uncore) or around it (psys) and the second view of a package (intel-rapl-mmio) would
# count the same joules twice.
_ZONE = re.compile(r"intel-rapl:(\d+)(:\d+)?")


class Zone:
    """One counter in microjoules, unwrapped."""

    def __init__(self, folder: Path, *, name: str, kind: Literal["cpu_package", "dram"]) -> None:
        self.folder, self.name, self.kind = folder, name, kind
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._last_uj: int | None = None
        self._wrapped_uj = 0

    def energy_mj(self) -> int | None:
        """Millijoules, wrap-around undone; None where the file cannot be read any more."""
        try:
            now_uj = int((self.folder / "energy_uj").read_text())
        except (OSError, ValueError):
            return None
        if self._last_uj is not None and now_uj < self._last_uj:
            self._wrapped_uj += self._range_uj
        self._last_uj = now_uj
        return (self._wrapped_uj + now_uj) // UJ_PER_MJ

    def power_limit_mw(self) -> int | None:
        """The long-term limit; None where the zone has none."""
        try:
            return int((self.folder / "constraint_0_power_limit_uw").read_text()) // UW_PER_MW or None
        except (OSError, ValueError):
            return None


def zones(root: Path = POWERCAP) -> list[Zone]:
    """Packages and their DRAM, in the kernel's order."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        match = _ZONE.fullmatch(folder.name)
        name = (folder / "name").read_text().strip() if match else ""
        if match and name.startswith("package"):
            found.append(Zone(folder, name=name, kind="cpu_package"))
        elif match and name == "dram":
            package = (root / f"intel-rapl:{match[1]}" / "name").read_text().strip()
            found.append(Zone(folder, name=f"{package}-dram", kind="dram"))
    return found


def unreadable(root: Path = POWERCAP) -> str | None:
    """Why no package can be read."""
    try:
        found = zones(root)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    if not found:
        return f"no intel-rapl package under {root} (another CPU, a virtual machine or a container)"
    try:
        (found[0].folder / "energy_uj").read_bytes()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return None


class RaplMeter:
    """Counters of the CPU side; power is what the counter gained between two readings."""

    NAME: ClassVar[str] = "rapl"

    def __init__(self, *, root: Path = POWERCAP, clock: Clock = SYSTEM_CLOCK) -> None:
        if reason := unreadable(root):
            raise MeterError(
                "rapl meter", found=reason, expected="a readable energy_uj", hint=f"try: {PERMISSION_HINT}"
            )
        self._clock = clock
        found = zones(root)
        self._uuids = [_uuid(zone) for zone in found]
        counted = [
            CountedDevice(_uuid(zone), zone.energy_mj, power_limit_mw=zone.power_limit_mw()) for zone in found
        ]
        # A counter that is slow to move, as that of an idle package, still is one.
        self._counters = CounterSet(counted, clock=clock, limit_ns=TICK_LIMIT_NS, keep_unmoved=True)
        self._devices = [_metered(zone, index, self._counters) for index, zone in enumerate(found)]
        self._last: list[Reading | None] = [None] * len(found)

    def devices(self) -> Sequence[MeteredDevice]:
        """Packages and DRAM."""
        return self._devices

    def read(self) -> Sequence[Reading]:
        """Every counter, and the mean power since the last reading."""
        readings = [self._read(uuid, last) for uuid, last in zip(self._uuids, self._last, strict=True)]
        self._last = list(readings)
        return readings

    def _read(self, uuid: str, last: Reading | None) -> Reading:
        energy_mj, at_ns = self._counters.now_mj(uuid), self._clock.now_ns()
        if energy_mj is None or last is None or last.energy_mj is None or at_ns == last.at_ns:
            return Reading(at_ns, energy_mj=energy_mj)
        return Reading(
            at_ns,
            power_mw=(energy_mj - last.energy_mj) * NS_PER_S // (at_ns - last.at_ns),
            energy_mj=energy_mj,
        )

    def read_edge(self) -> list[EnergyEdge]:
        """Every counter just after its next tick."""
        return self._counters.read_edges()

    def faults(self) -> list[tuple[str, str, str]]:
        """Counters that were caught lying."""
        return self._counters.faults()

    def close(self) -> None:
        """Nothing to give back."""


def _uuid(zone: Zone) -> str:
    return f"rapl-{zone.name}"


def _metered(zone: Zone, index: int, counters: CounterSet) -> MeteredDevice:
    missing = {column: "RAPL counts energy only" for column in SAMPLE_COLUMNS if column not in _MEASURED}
    return MeteredDevice(
        device=Device(
            host=socket.gethostname(),
            uuid=_uuid(zone),
            index=index,
            name=zone.name,
            kind=zone.kind,
            power_limit_mw=zone.power_limit_mw(),
        ),
        energy_source="counter",
        power_kind="derived",
        counter_tick_ns=counters.tick_ns(_uuid(zone)),
        missing=missing | counters.missing(_uuid(zone)),
    )


def open_meter(plan: MeterPlan, *, devices: Sequence[Device], pid: int | None) -> Meter:
    """The counters of this machine's packages."""
    return RaplMeter(root=_powercap())


def unavailable(*, devices: Sequence[Device]) -> str | None:
    """Why it cannot be used here."""
    return unreadable(_powercap())


def _powercap() -> Path:
    return Path(os.environ.get(POWERCAP_VARIABLE) or POWERCAP)
