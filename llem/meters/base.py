"""What every meter and every vendor of GPUs does, and how often devices are read; a clock that simulated time can replace."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, NamedTuple, Protocol

from llem.meters.gpus import DriverState
from llem.plan import MeterPlan
from llem_events.events import Device, EnergyEdge, MeteredDevice, Reading

MAX_HZ = 100.0  # of reading
MIN_HZ = 10.0
AVERAGED_HZ = 50.0  # at which refreshes of an averaging sensor are told apart down to every 30 ms


class Meter(Protocol):
    """Reads power; knows nothing of models or storage. Used from one thread of one process."""

    NAME: ClassVar[str]

    def devices(self) -> Sequence[MeteredDevice]:
        """What is measured, in the order of `read`, with the reason for every column that is missing."""
        ...

    def read(self) -> Sequence[Reading]:
        """One reading per device, now. A device that fails gives a Reading of None, never zeros; its reason is in `faults`."""
        ...

    def read_edge(self) -> list[EnergyEdge]:
        """Energy counter of every device for a window's edge, read just after a tick where that can be awaited."""
        ...

    def faults(self) -> list[tuple[str, str, str]]:
        """(device UUID, code, text) of every fault noticed since the last call, each told once."""
        ...

    def close(self) -> None:
        """Give the driver back; may be called twice."""
        ...


class MeterModule(Protocol):
    """A module of a meter, as the registry names it."""

    def unavailable(self, *, devices: Sequence[Device]) -> str | None:
        """Why nothing can be read here of what runs on `devices`, on the CPU where there are none; None where it can."""
        ...

    def open_meter(self, plan: MeterPlan, *, devices: Sequence[Device], pid: int | None) -> Meter:
        """The meter of `devices`, or of what else it reads. Raises MeterError."""
        ...


class Vendor(MeterModule, Protocol):
    """The module of a meter that has GPUs of its own; nothing else knows the vendor's library."""

    def resolve_gpus(self, gpus: Sequence[str] | None) -> list[Device]:
        """The GPUs meant by indices and UUIDs, in the order of a process that is pinned to them; for None all that are visible.

        Raises MeterError for a GPU that is not there or not visible, and where there is none at all.
        """
        ...

    def pin(self, devices: Sequence[Device]) -> dict[str, str]:
        """The variables under which a process sees these GPUs alone, in this order."""
        ...

    def driver_state(self) -> DriverState:
        """The driver and what every GPU is set to. Raises MeterError where it cannot be asked."""
        ...


class SettingsModule(Protocol):
    """The module that changes what a vendor's devices are set to; a setting is a key of the plan's `devices`, with its unit.

    All but `driver` are called while that is open.
    """

    def driver(self) -> AbstractContextManager[None]:
        """The driver, open for the length of a block. Raises MeterError."""
        ...

    def range_of(self, device: Device, setting: str) -> tuple[float, float] | None:
        """The least and the most that the device takes; None where it does not tell."""
        ...

    def read(self, device: Device, setting: str) -> float | None:
        """What is set now; None where the driver decides, or does not tell. Raises MeterError."""
        ...

    def write(self, device: Device, setting: str, value: float | None) -> None:
        """Set it; None leaves it to the driver. Raises MeterError, with the command that grants it where that is not permitted."""
        ...


class Clock(NamedTuple):
    """Nanoseconds of the host's monotonic clock, and a way to wait."""

    now_ns: Callable[[], int]
    sleep_s: Callable[[float], None]


SYSTEM_CLOCK = Clock(time.monotonic_ns, time.sleep)


def default_hz(devices: Sequence[MeteredDevice]) -> float:
    """Where the plan does not say it: one sample per tick of the fastest counter, between MIN_HZ and MAX_HZ; an estimate is not worth more than MIN_HZ.

    Where power is averaged and there is no counter, when the average changes is what its energy follows from.
    """
    ticks = [
        each.counter_tick_ns for each in devices if each.counter_tick_ns and each.energy_source != "estimated"
    ]
    if ticks:
        return min(MAX_HZ, max(MIN_HZ, 1e9 / min(ticks)))
    averaged = any(each.power_kind == "average" and each.power_window_ns for each in devices)
    return AVERAGED_HZ if averaged else MIN_HZ
