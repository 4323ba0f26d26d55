"""The estimate meter: CPU time of a process tree times stated watts per core, where nothing can be measured."""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from llem.errors import MeterError
from llem.meters.base import SYSTEM_CLOCK, Clock, Meter
from llem.plan import MeterPlan
from llem.process_tree import descendants, stat_of
from llem.units import MJ_PER_J, MW_PER_W, NS_PER_S
from llem_events.events import SAMPLE_COLUMNS, Device, EnergyEdge, MeteredDevice, Reading

NS_PER_CLOCK_TICK = NS_PER_S // os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name, see proc(5).
_UTIME, _STIME, _CUTIME, _CSTIME = 11, 12, 13, 14
REFRESH_NS = NS_PER_S // 2
_ESTIMATED = {"at_ns", "power_mw", "energy_mj"}
GONE = "the process has ended"


class EstimateMeter:
    """Joules = CPU seconds x watts per core: an assumption, labelled as one everywhere."""

    NAME: ClassVar[str] = "estimate"

    def __init__(self, *, watts_per_core: float, pid: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._watts, self._clock = watts_per_core, clock
        self._cpu_time = CpuTime(pid)
        self._last: Reading | None = None
        self._refresh_at_ns = 0
        self._faults: list[tuple[str, str, str]] = []
        self._gone = False
        if self._cpu_time.total_ns() is None:
            raise MeterError(
                "estimate meter", found=f"no process {pid}", expected="the process to be measured"
            )
        device = Device(
            host=socket.gethostname(),
            uuid=f"process-{pid}",
            index=0,
            name=f"CPU time of process {pid}",
            kind="process",
        )
        self._metered = MeteredDevice(
            device=device,
            energy_source="estimated",
            power_kind="derived",
            counter_tick_ns=NS_PER_CLOCK_TICK,
            missing={
                column: "estimated from CPU time, no sensor is read"
                for column in SAMPLE_COLUMNS
                if column not in _ESTIMATED
            },
        )

    def devices(self) -> Sequence[MeteredDevice]:
        """The process tree as one device."""
        return [self._metered]

    def read(self) -> Sequence[Reading]:
        """Energy so far, and the mean power since the last reading."""
        at_ns = self._clock.now_ns()
        if at_ns >= self._refresh_at_ns:
            self._refresh_at_ns = at_ns + REFRESH_NS
            self._cpu_time.refresh()
        energy_mj = self._energy_mj()
        self._last = Reading(at_ns, power_mw=self._power_mw(energy_mj, at_ns), energy_mj=energy_mj)
        return [self._last]

    def _energy_mj(self) -> int | None:
        total_ns = self._cpu_time.total_ns()
        if total_ns is None:
            if not self._gone:
                self._faults.append((self._metered.device.uuid, "process_gone", GONE))
            self._gone = True
            return None
        return int(total_ns / NS_PER_S * self._watts * MJ_PER_J)

    def _power_mw(self, energy_mj: int | None, at_ns: int) -> int | None:
        if (
            energy_mj is None
            or self._last is None
            or self._last.energy_mj is None
            or at_ns == self._last.at_ns
        ):
            return None
        return (
            (energy_mj - self._last.energy_mj)
            * (NS_PER_S * MW_PER_W // MJ_PER_J)
            // (at_ns - self._last.at_ns)
        )

    def read_edge(self) -> list[EnergyEdge]:
        """CPU time now, over all children there are."""
        self._cpu_time.refresh()
        energy_mj = self._energy_mj()
        reason = GONE if energy_mj is None else None
        return [
            EnergyEdge(
                device_uuid=self._metered.device.uuid,
                at_ns=self._clock.now_ns(),
                energy_mj=energy_mj,
                reason=reason,
            )
        ]

    def faults(self) -> list[tuple[str, str, str]]:
        """The end of the process, told once."""
        told, self._faults = self._faults, []
        return told

    def close(self) -> None:
        """Nothing to give back."""


def open_meter(plan: MeterPlan, *, devices: Sequence[Device], pid: int | None) -> Meter:
    """The meter of `pid` and its children, of this process where none is given."""
    if reason := unavailable(devices=devices):
        raise MeterError(
            "estimate meter", found=reason, expected="Linux's /proc", hint="try --meter simulated"
        )
    return EstimateMeter(watts_per_core=plan.estimate_watts_per_core, pid=os.getpid() if pid is None else pid)


def unavailable(*, devices: Sequence[Device]) -> str | None:
    """Why it cannot be used here."""
    return None if Path("/proc/self/stat").exists() else f"no /proc on {sys.platform}"


class CpuTime:
    """Sums a process tree; looks for new members only when asked to `refresh`."""

    def __init__(self, pid: int, *, proc: Path = Path("/proc")) -> None:
        self._pid, self._proc = pid, proc
        self._family = {pid}
        self._most_ns = 0
        self.refresh()

    def refresh(self) -> None:
        """Look for children that were started since."""
        self._family = descendants(self._pid, proc=self._proc)

    def total_ns(self) -> int | None:
        """CPU time so far, children that have ended included; None when the process itself is gone."""
        if stat_of(self._pid, self._proc) is None:
            return None
        # a child's time vanishes until its parent has waited for it
        self._most_ns = max(self._most_ns, sum(self._each_ns()))
        return self._most_ns

    def _each_ns(self) -> Iterator[int]:
        for pid in self._family:
            if stat := stat_of(pid, self._proc):
                yield (stat[_UTIME] + stat[_STIME] + stat[_CUTIME] + stat[_CSTIME]) * NS_PER_CLOCK_TICK
