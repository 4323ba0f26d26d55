"""The simulated meter: a given power curve and an energy counter that is its exact integral, for any machine."""

import socket
from collections.abc import Sequence
from typing import ClassVar

from llem.errors import MeterError
from llem.meters.base import Meter
from llem.meters.clock import SYSTEM_CLOCK, Clock
from llem.meters.curves import Curve, curve_of
from llem.plan import MeterPlan, SimulatedMeterPlan
from llem.units import MJ_PER_J, MW_PER_W, NS_PER_MS, NS_PER_S
from llem_events.events import Device, EnergyEdge, MeteredDevice, Reading

_UNSIMULATED = (
    "power_average_mw", "temperature_c", "gpu_utilisation_pct", "memory_utilisation_pct", "memory_used_bytes",
    "sm_clock_mhz", "memory_clock_mhz", "throttle_reasons", "power_limit_mw",
)  # fmt: skip


class SimulatedMeter:
    """Every device follows the same curve over the monotonic clock, so that all processes of a host agree."""

    NAME: ClassVar[str] = "simulated"

    def __init__(
        self, plan: SimulatedMeterPlan, *, gpus: Sequence[str] = ("0",), clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._curve: Curve = curve_of(plan)
        self._tick_ns = round(plan.counter_tick_ms * NS_PER_MS) or None
        self._clock = clock
        self._devices = [self._metered(device) for device in resolve_gpus(gpus)]

    def _metered(self, device: Device) -> MeteredDevice:
        missing = dict.fromkeys(_UNSIMULATED, "not simulated")
        if self._tick_ns is None:
            missing["energy_mj"] = "the plan gives the simulated device no energy counter"
        return MeteredDevice(
            device=device,
            energy_source="simulated",
            power_kind="instant",
            counter_tick_ns=self._tick_ns,
            missing=missing,
        )

    def devices(self) -> Sequence[MeteredDevice]:
        """What is simulated."""
        return self._devices

    def read(self) -> Sequence[Reading]:
        """The curve's value now, once per device."""
        at_ns = self._clock.now_ns()
        power_mw = round(self._curve.power_w(at_ns / NS_PER_S) * MW_PER_W)
        return [Reading(at_ns, power_mw=power_mw, energy_mj=self._energy_mj(at_ns)) for _ in self._devices]

    def _energy_mj(self, at_ns: int) -> int | None:
        if self._tick_ns is None:
            return None
        ticked_ns = at_ns - at_ns % self._tick_ns
        return int(self._curve.energy_j(ticked_ns / NS_PER_S) * MJ_PER_J)

    def read_edge(self) -> list[EnergyEdge]:
        """The counter just after its next tick."""
        if self._tick_ns is not None:
            self._clock.sleep_s((self._tick_ns - self._clock.now_ns() % self._tick_ns) / NS_PER_S)
        at_ns = self._clock.now_ns()
        return [
            EnergyEdge(
                device_uuid=metered.device.uuid,
                at_ns=at_ns,
                energy_mj=self._energy_mj(at_ns),
                reason=metered.missing.get("energy_mj"),
            )
            for metered in self._devices
        ]

    def faults(self) -> list[tuple[str, str, str]]:
        """None: a curve does not fail."""
        return []

    def close(self) -> None:
        """Nothing to give back."""


_PREFIX = "SIM-"


def resolve_gpus(gpus: Sequence[str] | None) -> list[Device]:
    """A simulated device for every index; none where none is named. Raises MeterError for a name that is no index."""
    uuids = dict.fromkeys(_uuid(gpu.strip()) for gpu in gpus or ())
    return [
        Device(host=socket.gethostname(), uuid=uuid, index=index, name="simulated device", kind="simulated")
        for index, uuid in enumerate(uuids)
    ]


def _uuid(gpu: str) -> str:
    number = gpu.removeprefix(_PREFIX)
    if not (number.isascii() and number.isdigit()):
        raise MeterError(
            "no such simulated device", found=repr(gpu), expected="an index, such as 0: each is there"
        )
    return _PREFIX + number


def pin(uuids: Sequence[str]) -> dict[str, str]:
    """Nothing runs on them."""
    return {}


def open_meter(plan: MeterPlan, *, gpus: Sequence[str] | None, pid: int | None) -> Meter:
    """A simulated device for every entry of `gpus`, or one."""
    return SimulatedMeter(plan.simulated, gpus=gpus or ("0",))


def unavailable(*, gpus: Sequence[str] | None) -> str | None:
    """Never: it needs nothing of the machine."""
    return None
