"""The simulated meter: a given power curve and an energy counter that is its exact integral, for any machine."""

import math
import socket
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import ClassVar

from llem.errors import MeterError
from llem.meters import simulated_settings
from llem.meters.base import SYSTEM_CLOCK, Clock, Meter
from llem.meters.gpus import DriverState, each_once
from llem.plan import MeterPlan, SimulatedMeterPlan
from llem.units import MJ_PER_J, MW_PER_W, NS_PER_MS, NS_PER_S
from llem_events.events import Device, EnergyEdge, MeteredDevice, Reading

Row = tuple[float, float]  # seconds, watts
_UNSIMULATED = (
    "power_average_mw", "temperature_c", "gpu_utilisation_pct", "memory_utilisation_pct", "memory_used_bytes",
    "sm_clock_mhz", "memory_clock_mhz", "throttle_reasons", "power_limit_mw",
)  # fmt: skip
_PREFIX = "SIM-"


class SimulatedMeter:
    """Every device follows the same curve over the monotonic clock, so that all processes of a host agree.

    It draws no more than the power limit that it has when the meter is opened.
    """

    NAME: ClassVar[str] = "simulated"

    def __init__(
        self, plan: SimulatedMeterPlan, *, gpus: Sequence[str] = ("0",), clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._tick_ns = round(plan.counter_tick_ms * NS_PER_MS) or None
        self._clock = clock
        self._devices = [self._metered(device) for device in resolve_gpus(gpus)]
        self._curves = [curve_of(plan).capped(_limit_w(metered.device)) for metered in self._devices]

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
        return [
            Reading(
                at_ns,
                power_mw=round(curve.power_w(at_ns / NS_PER_S) * MW_PER_W),
                energy_mj=self._energy_mj(curve, at_ns),
            )
            for curve in self._curves
        ]

    def _energy_mj(self, curve: "Curve", at_ns: int) -> int | None:
        if self._tick_ns is None:
            return None
        ticked_ns = at_ns - at_ns % self._tick_ns
        return int(curve.energy_j(ticked_ns / NS_PER_S) * MJ_PER_J)

    def read_edge(self) -> list[EnergyEdge]:
        """The counter just after its next tick."""
        if self._tick_ns is not None:
            self._clock.sleep_s((self._tick_ns - self._clock.now_ns() % self._tick_ns) / NS_PER_S)
        at_ns = self._clock.now_ns()
        return [
            EnergyEdge(
                device_uuid=metered.device.uuid,
                at_ns=at_ns,
                energy_mj=self._energy_mj(curve, at_ns),
                reason=metered.missing.get("energy_mj"),
            )
            for metered, curve in zip(self._devices, self._curves, strict=True)
        ]

    def faults(self) -> list[tuple[str, str, str]]:
        """None: a curve does not fail."""
        return []

    def close(self) -> None:
        """Nothing to give back."""


def _limit_w(device: Device) -> float:
    limit_w = simulated_settings.read(device, "power_limit_w")
    return math.inf if limit_w is None else limit_w


def resolve_gpus(gpus: Sequence[str] | None) -> list[Device]:
    """A simulated device for every index; none where none is named. Raises MeterError for a name that is no index, and for one twice."""
    uuids = [_uuid(gpu.strip()) for gpu in gpus or ()]
    devices = [
        Device(host=socket.gethostname(), uuid=uuid, index=index, name="simulated device", kind="simulated")
        for index, uuid in enumerate(uuids)
    ]
    return each_once(gpus or (), devices)


def _uuid(gpu: str) -> str:
    number = gpu.removeprefix(_PREFIX)
    if not (number.isascii() and number.isdigit()):
        raise MeterError(
            "no such simulated device", found=repr(gpu), expected="an index, such as 0: each is there"
        )
    return _PREFIX + number


def pin(devices: Sequence[Device]) -> dict[str, str]:
    """Nothing runs on them."""
    return {}


def open_meter(plan: MeterPlan, *, devices: Sequence[Device], pid: int | None) -> Meter:
    """A simulated device in the place of each, or one."""
    names = [device.uuid if device.kind == "simulated" else str(device.index) for device in devices]
    return SimulatedMeter(plan.simulated, gpus=names or ("0",))


def unavailable(*, devices: Sequence[Device]) -> str | None:
    """Never: it needs nothing of the machine."""
    return None


class Curve:
    """Watts over seconds, linear between rows, repeated for ever with the last row's time as the period."""

    def __init__(self, rows: Sequence[Row]) -> None:
        if not rows or rows[0][0] != 0 or any(later[0] < earlier[0] for earlier, later in pairwise(rows)):
            raise MeterError(
                "power curve",
                found=list(rows)[:3],
                expected="rows of (seconds, watts) that start at 0 s and go forward",
            )
        self._rows = [*rows, (1.0, rows[0][1])] if rows[-1][0] == 0 else list(rows)
        self._times = [second for second, _ in self._rows]
        self._energies = [
            0.0,
            *accumulate((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(self._rows)),
        ]
        self.period_s = self._times[-1]

    def power_w(self, at_s: float) -> float:
        """Watts at a time; at a step, the value after it."""
        (start_s, start_w), (end_s, end_w) = self._around(at_s % self.period_s)
        return start_w + (end_w - start_w) * (at_s % self.period_s - start_s) / (end_s - start_s)

    def energy_j(self, until_s: float) -> float:
        """Joules between time 0 and `until_s`, exact."""
        periods, rest_s = divmod(until_s, self.period_s)
        (start_s, start_w), _ = self._around(rest_s)
        within = (
            self._energies[bisect_right(self._times, rest_s) - 1]
            + (rest_s - start_s) * (start_w + self.power_w(rest_s)) / 2
        )
        return periods * self._energies[-1] + within

    def capped(self, limit_w: float) -> "Curve":
        """The same, nowhere above a limit."""
        rows: list[Row] = []
        for (start_s, start_w), (end_s, end_w) in pairwise(self._rows):
            rows.append((start_s, min(start_w, limit_w)))
            if (start_w - limit_w) * (end_w - limit_w) < 0:
                rows.append((start_s + (end_s - start_s) * (limit_w - start_w) / (end_w - start_w), limit_w))
        return Curve([*rows, (self.period_s, min(self._rows[-1][1], limit_w))])

    def _around(self, at_s: float) -> tuple[Row, Row]:
        index = bisect_right(self._times, at_s)
        return self._rows[index - 1], self._rows[index]


def curve_of(plan: SimulatedMeterPlan) -> Curve:
    """The plan's curve: named ones swing between a fifth of `power_w` and all of it."""
    high_w, low_w, period_s = plan.power_w, plan.power_w / 5, plan.period_s
    match plan.curve:
        case "constant":
            return Curve([(0.0, high_w), (period_s, high_w)])
        case "square":
            half_s = period_s / 2
            return Curve([(0.0, high_w), (half_s, high_w), (half_s, low_w), (period_s, low_w)])
        case "ramp":
            return Curve([(0.0, low_w), (period_s, high_w)])
        case rows:
            return Curve(rows)


def driver_state() -> DriverState:
    """Never: they have no driver."""
    raise MeterError("simulated meter", found="devices without a driver")
