"""The NVML meter: NVIDIA GPUs by UUID, energy counter first, power samples always; what one can say is found out once."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import pynvml

from llem.errors import LlemError, MeterError
from llem.meters.base import SYSTEM_CLOCK, Clock, Meter
from llem.meters.counter import CountedDevice, CounterSet, FaultLog, implausible_power
from llem.meters.nvml_driver import CLOSED, LOST, ask, close_driver, open_driver, reason_of
from llem.meters.nvml_driver import driver_state as driver_state
from llem.meters.nvml_driver import list_gpus as list_gpus
from llem.meters.nvml_driver import pin as pin
from llem.meters.nvml_driver import resolve_gpus as resolve_gpus
from llem.plan import MeterPlan
from llem.units import NS_PER_MS, NS_PER_S
from llem_events.events import Device, EnergyEdge, MeteredDevice, Reading

Values = dict[str, int | None]

ENERGY, POWER, AVERAGE = "energy_mj", "power_mw", "power_average_mw"
FIELDS = {
    POWER: pynvml.NVML_FI_DEV_POWER_INSTANT,
    AVERAGE: pynvml.NVML_FI_DEV_POWER_AVERAGE,
    ENERGY: pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
}
REFRESH_NS = 200 * NS_PER_MS  # slow columns are at most this old; the driver itself renews them no faster
SLOW_READ_NS = NS_PER_S // 2
AVERAGE_WINDOW_NS = NS_PER_S
REOPEN_AFTER_NS = NS_PER_S


class Handles(NamedTuple):
    """NVML's handles of one device; a MIG instance has its own memory but its parent's sensors."""

    own: Any
    sensors: Any


class Call(NamedTuple):
    """One NVML call and the columns it fills; a slow one changes seldom and is asked a few times a second."""

    columns: Sequence[str]
    ask: Callable[[Handles], Sequence[int]]
    slow: bool = False


def _utilisation(handles: Handles) -> tuple[int, int]:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handles.own)
    return rates.gpu, rates.memory


def _clock(kind: int) -> Callable[[Handles], tuple[int]]:
    return lambda handles: (pynvml.nvmlDeviceGetClockInfo(handles.sensors, kind),)


CALLS = (
    Call(("sm_clock_mhz",), _clock(pynvml.NVML_CLOCK_SM)),
    Call(("throttle_reasons",), lambda handles: (pynvml.nvmlDeviceGetCurrentClocksEventReasons(handles.sensors),)),
    Call(("temperature_c",), lambda handles: (pynvml.nvmlDeviceGetTemperature(handles.sensors, pynvml.NVML_TEMPERATURE_GPU),), slow=True),
    Call(("gpu_utilisation_pct", "memory_utilisation_pct"), _utilisation, slow=True),
    Call(("memory_used_bytes",), lambda handles: (pynvml.nvmlDeviceGetMemoryInfo(handles.own).used,), slow=True),
    Call(("memory_clock_mhz",), _clock(pynvml.NVML_CLOCK_MEM), slow=True),
    Call(("power_limit_mw",), lambda handles: (pynvml.nvmlDeviceGetEnforcedPowerLimit(handles.sensors),), slow=True),
)  # fmt: skip
# For devices and drivers that do not know the field values.
POWER_CALL = Call((POWER,), lambda handles: (pynvml.nvmlDeviceGetPowerUsage(handles.sensors),))
ENERGY_CALL = Call((ENERGY,), lambda handles: (pynvml.nvmlDeviceGetTotalEnergyConsumption(handles.sensors),))


def read_fields(handles: Handles, columns: Sequence[str]) -> tuple[Values, dict[str, int]]:
    """Several field values in one call: (what was answered, error code of what was not)."""
    values: Values = dict.fromkeys(columns)
    errors: dict[str, int] = {}
    answers = pynvml.nvmlDeviceGetFieldValues(handles.sensors, [FIELDS[column] for column in columns])
    for column, answer in zip(columns, answers, strict=True):
        if answer.nvmlReturn == pynvml.NVML_SUCCESS:
            values[column] = _number(answer)
        else:
            errors[column] = answer.nvmlReturn
    return values, errors


def _number(answer: Any) -> int:
    """The member of the value's union that its type names."""
    match answer.valueType:
        case pynvml.NVML_VALUE_TYPE_UNSIGNED_INT:
            return int(answer.value.uiVal)
        case pynvml.NVML_VALUE_TYPE_DOUBLE:
            return int(answer.value.dVal)
        case pynvml.NVML_VALUE_TYPE_SIGNED_INT:
            return int(answer.value.siVal)
    return int(answer.value.ullVal)


def power_usage_is_average(handles: Handles) -> bool:
    """Whether nvmlDeviceGetPowerUsage is a 1 s average: so documented from Ampere on, GA100 (8.0) excepted."""
    try:
        capability = pynvml.nvmlDeviceGetCudaComputeCapability(handles.sensors)
    except pynvml.NVMLError:
        return False
    return bool(capability > (8, 0))


class GpuReader:
    """Asks for what the device has; a column that fails later is None with a fault, never zero."""

    def __init__(self, device: Device, *, clock: Clock, faults: FaultLog) -> None:
        self.device = device
        self.missing: dict[str, str] = {}
        self.closed = False
        self._lost = False
        self._clock = clock
        self._faults = faults
        self._handles = self._find()
        self._fields = self._probe_fields()
        self._calls = [call for call in CALLS if self._answers(call)]
        self._power_calls = self._probe_calls()
        self._slow: Values = {}
        self._slow_due_ns = 0

    def _find(self) -> Handles:
        own = ask(pynvml.nvmlDeviceGetHandleByUUID, self.device.uuid)
        sensors = ask(pynvml.nvmlDeviceGetHandleByUUID, self.device.parent_uuid or self.device.uuid)
        if reason := own.reason or sensors.reason:
            raise MeterError(f"GPU {self.device.uuid}", found=reason, expected="a GPU that answers")
        return Handles(own.value, sensors.value)

    def _probe_fields(self) -> list[str]:
        answer = ask(read_fields, self._handles, tuple(FIELDS))
        if answer.reason:
            self.missing[AVERAGE] = answer.reason
            return []
        values, errors = answer.value
        if AVERAGE in errors:
            self.missing[AVERAGE] = reason_of(errors[AVERAGE])
        return [column for column in values if column not in errors]

    def _probe_calls(self) -> list[Call]:
        wanted = [call for call in (POWER_CALL, ENERGY_CALL) if call.columns[0] not in self._fields]
        return [call for call in wanted if self._answers(call)]

    def _answers(self, call: Call) -> bool:
        reason = ask(call.ask, self._handles).reason
        self.missing |= dict.fromkeys(call.columns, reason) if reason else {}
        return reason is None

    def counted(self) -> CountedDevice:
        """Its energy counter, where it answers for one."""
        reason = self.missing.get(ENERGY)
        return CountedDevice(
            self.device.uuid,
            None if reason else self.energy_mj,
            reason=reason,
            power_limit_mw=self.device.power_limit_mw,
        )

    def energy_mj(self) -> int | None:
        """The counter alone, unchecked."""
        if self._lost or self.closed:
            return None
        return (
            self._ask_fields([ENERGY])[ENERGY] if ENERGY in self._fields else self._ask(ENERGY_CALL)[ENERGY]
        )

    def metered(self, counters: CounterSet) -> MeteredDevice:
        """The device with what it cannot say."""
        uuid, kind = self.device.uuid, self._power_kind()
        source: Literal["counter", "integrated"] | None = (
            "counter" if uuid in counters else "integrated" if kind else None
        )
        return MeteredDevice(
            device=self.device,
            energy_source=source,
            power_kind=kind,
            power_window_ns=AVERAGE_WINDOW_NS if kind == "average" else None,
            counter_tick_ns=counters.tick_ns(uuid),
            missing=self.missing | counters.missing(uuid),
        )

    def _power_kind(self) -> Literal["instant", "average"] | None:
        if POWER in self.missing:
            return None
        return "average" if POWER not in self._fields and power_usage_is_average(self._handles) else "instant"

    def read(self, counters: CounterSet) -> Reading:
        """Power and energy first, then what the chip does, then what changes slowly."""
        started_ns = self._clock.now_ns()
        if self._lost or self.closed:
            return Reading(started_ns)
        values = self._ask_fields(self._fields)
        for call in self._power_calls:
            values |= self._ask(call)
        at_ns = self._clock.now_ns()
        values |= self._others(at_ns)
        values[ENERGY] = counters.check(self.device.uuid, values.get(ENERGY))
        self._drop_impossible(values)
        self._note_slowness(self._clock.now_ns() - started_ns)
        return Reading(at_ns) if self._lost or self.closed else Reading(at_ns, **values)

    def _others(self, at_ns: int) -> Values:
        refresh = at_ns >= self._slow_due_ns
        if refresh:
            self._slow_due_ns = at_ns + REFRESH_NS
        for call in self._calls:
            if call.slow and refresh:
                self._slow |= self._ask(call)
        fast: Values = {}
        for call in self._calls:
            if not call.slow:
                fast |= self._ask(call)
        return self._slow | fast

    def _ask_fields(self, columns: list[str]) -> Values:
        if not columns:
            return {}
        answer = ask(read_fields, self._handles, columns)
        if answer.reason:
            self._failed(columns, answer.code or 0)
            return dict.fromkeys(columns)
        values, errors = answer.value
        for column, code in errors.items():
            self._failed([column], code)
        return dict(values)

    def _ask(self, call: Call) -> Values:
        if self._lost or self.closed:
            return dict.fromkeys(call.columns)
        answer = ask(call.ask, self._handles)
        if answer.reason:
            self._failed(call.columns, answer.code or 0)
            return dict.fromkeys(call.columns)
        return dict(zip(call.columns, answer.value, strict=True))

    def _failed(self, columns: Sequence[str], code: int) -> None:
        if code in LOST:
            self._lost = True
            self._tell("gpu_lost", reason_of(code))
        elif code in CLOSED:
            self.closed = True
            self._tell("driver_restarted", reason_of(code))
        else:
            self._tell("nvml_error", f"{', '.join(columns)}: {reason_of(code)}")

    def _drop_impossible(self, values: Values) -> None:
        for column in (POWER, AVERAGE):
            power_mw = values.get(column)
            fault = (
                None
                if power_mw is None
                else implausible_power(power_mw, power_limit_mw=self.device.power_limit_mw)
            )
            if fault:
                values[column] = None
                self._tell(*fault)

    def _note_slowness(self, took_ns: int) -> None:
        if took_ns > SLOW_READ_NS:
            self._tell("slow_driver", f"one reading took {took_ns / NS_PER_MS:.0f} ms")

    def _tell(self, code: str, text: str) -> None:
        self._faults.tell(self.device.uuid, code, text, about=text if code == "nvml_error" else "")

    def reopen(self) -> None:
        """After the driver came back: find the device again."""
        self.closed = False
        try:
            self._handles = self._find()
        except MeterError:
            self.closed = True


class NvmlMeter:
    """Reads every device in turn; a lost GPU or a restarted driver gives readings of None, not exceptions."""

    NAME: ClassVar[str] = "nvml"

    def __init__(self, devices: Sequence[Device], *, clock: Clock = SYSTEM_CLOCK) -> None:
        open_driver()
        self._open = True
        self._clock = clock
        self._reopen_at_ns = 0
        self._faults = FaultLog()
        try:
            self._readers = [
                GpuReader(device, clock=clock, faults=self._faults)
                for device in {one.uuid: one for one in devices}.values()
            ]
        except LlemError:
            self.close()
            raise
        self._counters = CounterSet([reader.counted() for reader in self._readers], clock=clock)

    def devices(self) -> Sequence[MeteredDevice]:
        """What is measured; a MIG instance carries its parent's UUID, whose power and energy its figures are."""
        return [reader.metered(self._counters) for reader in self._readers]

    def read(self) -> Sequence[Reading]:
        """One reading per device."""
        self._reopen_if_due()
        return [reader.read(self._counters) for reader in self._readers]

    def _reopen_if_due(self) -> None:
        closed = [reader for reader in self._readers if reader.closed]
        if not closed or not self._open or self._clock.now_ns() < self._reopen_at_ns:
            return
        self._reopen_at_ns = self._clock.now_ns() + REOPEN_AFTER_NS
        try:
            open_driver()
        except LlemError:
            return
        # They started anew with the driver and are of no use.
        self._counters.distrust("the driver was restarted")
        for reader in self._readers:
            reader.reopen()

    def read_edge(self) -> list[EnergyEdge]:
        """Every counter just after its next tick; devices without a counter say why."""
        return self._counters.read_edges()

    def faults(self) -> list[tuple[str, str, str]]:
        """(device UUID, code, text), each told once."""
        return self._faults.take() + self._counters.faults()

    def close(self) -> None:
        """Give NVML back."""
        if self._open:
            self._open = False
            close_driver()


def open_meter(plan: MeterPlan, *, devices: Sequence[Device], pid: int | None) -> Meter:
    """The GPUs among `devices`."""
    if reason := unavailable(devices=devices):
        raise MeterError("nvml meter", found=reason, expected="a GPU of NVIDIA")
    return NvmlMeter(devices)


def unavailable(*, devices: Sequence[Device]) -> str | None:
    """Why the GPUs cannot be read here."""
    if not devices:
        return "no GPU is used"
    try:
        resolve_gpus([device.uuid for device in devices])
    except LlemError as error:
        return str(error)
    return None
