"""What every meter does: name its devices, read them, read their energy counters, on a clock that simulated time can replace."""

import time
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Protocol

from llem_events.events import EnergyEdge, MeteredDevice, Reading


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


class Clock(NamedTuple):
    """Nanoseconds of the host's monotonic clock, and a way to wait."""

    now_ns: Callable[[], int]
    sleep_s: Callable[[float], None]


SYSTEM_CLOCK = Clock(time.monotonic_ns, time.sleep)
