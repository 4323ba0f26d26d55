"""A meter of devices that are asked column by column, through a vendor's library that may have no answer."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from llem.meters.base import SYSTEM_CLOCK, Clock
from llem.meters.counter import CountedDevice, CounterSet, FaultLog, implausible_power
from llem_events.events import SAMPLE_COLUMNS, Device, EnergyEdge, MeteredDevice, Reading

Ask = Callable[[], int | None]


class Sensor:
    """One device: what it can be asked through the library, and why the rest is missing."""

    def __init__(self, device: Device, *, library: str, no_answer: tuple[type[Exception], ...]) -> None:
        """`no_answer`: what the library raises, or gives in a form that is no number, for what a device does not tell."""
        self.device = device
        self.missing = {column: f"not asked of {library}" for column in SAMPLE_COLUMNS if column != "at_ns"}
        self.asks: dict[str, Ask] = {}
        self.failed: dict[str, str] = {}
        self.energy_source: Literal["counter", "integrated"] = "counter"
        self.power_kind: Literal["instant", "average"] = "instant"
        self._no_answer = no_answer

    def offer(self, column: str, function: Callable[[], Any]) -> bool:
        """Take a column up if it answers now with a number; whether it did."""
        try:
            int(function())
        except self._no_answer as error:
            self.missing[column] = str(error)
            return False
        self.missing.pop(column, None)
        self.asks[column] = lambda: self._ask(column, function)
        return True

    def _ask(self, column: str, function: Callable[[], Any]) -> int | None:
        try:
            return int(function())
        except self._no_answer as error:
            self.failed.setdefault(column, str(error))
            return None

    def counted(self) -> CountedDevice:
        """Its energy counter, or why there is none."""
        return CountedDevice(
            self.device.uuid,
            self.asks.get("energy_mj"),
            reason=self.missing.get("energy_mj"),
            power_limit_mw=self.device.power_limit_mw,
        )

    def metered(self, counters: CounterSet) -> MeteredDevice:
        """The device with what it cannot say."""
        uuid, has_power = self.device.uuid, "power_mw" in self.asks
        return MeteredDevice(
            device=self.device,
            energy_source=self.energy_source if uuid in counters else "integrated" if has_power else None,
            power_kind=self.power_kind if has_power else None,
            counter_tick_ns=counters.tick_ns(uuid),
            missing=counters.missing(uuid) | self.missing,
        )


class SensorMeter:
    """Reads every sensor in turn; the meter of a vendor adds its name."""

    NAME: ClassVar[str]

    def __init__(self, sensors: Sequence[Sensor], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._sensors, self._clock = sensors, clock
        self._faults = FaultLog()
        self._counters = CounterSet([sensor.counted() for sensor in sensors], clock=clock)

    def devices(self) -> Sequence[MeteredDevice]:
        """What is measured."""
        return [sensor.metered(self._counters) for sensor in self._sensors]

    def read(self) -> Sequence[Reading]:
        """One reading per device."""
        return [self._read(sensor) for sensor in self._sensors]

    def _read(self, sensor: Sensor) -> Reading:
        uuid, limit_mw = sensor.device.uuid, sensor.device.power_limit_mw
        values = {column: ask() for column, ask in sensor.asks.items()}
        at_ns = self._clock.now_ns()
        values["energy_mj"] = self._counters.check(uuid, values.get("energy_mj"))
        power_mw = values.get("power_mw")
        if power_mw is not None and (fault := implausible_power(power_mw, power_limit_mw=limit_mw)):
            values["power_mw"] = None
            self._faults.tell(uuid, *fault)
        for column, reason in sensor.failed.items():
            self._faults.tell(uuid, f"{self.NAME}_error", f"{column}: {reason}", about=column)
        return Reading(at_ns, **values)

    def read_edge(self) -> list[EnergyEdge]:
        """Every counter just after its next tick."""
        return self._counters.read_edges()

    def faults(self) -> list[tuple[str, str, str]]:
        """What failed since the last call."""
        return self._faults.take() + self._counters.faults()

    def close(self) -> None:
        """Nothing to give back, where the vendor's meter does not say otherwise."""
