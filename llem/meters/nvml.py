"""The NVML meter: NVIDIA's GPUs by UUID. Which there are and what they are set to; energy counter first, power samples always."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple

import pynvml

from llem.errors import LlemError, MeterError
from llem.meters.base import SYSTEM_CLOCK, Clock, Meter
from llem.meters.counter import CountedDevice, CounterSet, FaultLog, implausible_power
from llem.meters.gpus import DriverState, Gpu, GpuState, select, visible
from llem.plan import MeterPlan
from llem.units import MW_PER_W, NS_PER_MS, NS_PER_S
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
LOST = {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_NOT_FOUND}
CLOSED = {pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_DRIVER_NOT_LOADED}
_REASONS = {
    pynvml.NVML_ERROR_NOT_SUPPORTED: "not supported by this device",
    pynvml.NVML_ERROR_NO_PERMISSION: "no permission",
    pynvml.NVML_ERROR_GPU_IS_LOST: "the GPU is lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "the GPU needs a reset",
    pynvml.NVML_ERROR_UNINITIALIZED: "the driver was restarted",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not installed",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver and libnvidia-ml.so.1 have different versions",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "not known to this driver",
    pynvml.NVML_ERROR_TIMEOUT: "the driver did not answer in time",
}
_HINTS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "install the NVIDIA driver; in a container, start it with --gpus all",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "try: sudo modprobe nvidia",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "reboot, or reload the nvidia kernel module",
    pynvml.NVML_ERROR_NO_PERMISSION: "check the permissions of /dev/nvidia*",
}
_COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}


class Answer(NamedTuple):
    """What NVML said: a value, or its error code and the reason in words."""

    value: Any
    code: int | None = None
    reason: str | None = None


def ask(function: Callable[..., Any], *arguments: Any) -> Answer:
    """Call one NVML function; an error is an answer, and so is a text that is not UTF-8."""
    try:
        return Answer(function(*arguments))
    except UnicodeDecodeError as error:
        return Answer(error.object.decode(errors="replace"))
    except pynvml.NVMLError as error:
        return Answer(None, error.value, reason_of(error.value))


def reason_of(code: int) -> str:
    """An NVML error code in words."""
    return _REASONS.get(code) or str(pynvml.NVMLError(code))


def open_driver() -> None:
    """Initialise NVML; every successful call is matched by one of `close_driver`."""
    answer = ask(pynvml.nvmlInit)
    if answer.reason:
        raise MeterError(
            "NVML", found=answer.reason, expected="an NVIDIA driver", hint=_HINTS.get(answer.code or 0)
        )


def close_driver() -> None:
    """Give NVML back; a driver that has gone away is no error."""
    ask(pynvml.nvmlShutdown)


@contextmanager
def driver() -> Iterator[None]:
    """NVML open for the length of a block."""
    open_driver()
    try:
        yield
    finally:
        close_driver()


def list_gpus() -> list[Device]:
    """Every device that CUDA could run on, in the driver's order, hidden ones included."""
    with driver():
        return [device for gpu in inventory() for device in gpu.usable]


def resolve_gpus(gpus: Sequence[str] | None) -> list[Device]:
    """The devices meant by indices, UUIDs or MIG UUIDs; all that CUDA_VISIBLE_DEVICES leaves for None."""
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    with driver():
        seen = visible(inventory(), mask=mask, order=os.environ.get("CUDA_DEVICE_ORDER"))
    found = select(seen, gpus, masked=mask is not None)
    if not found:
        raise _nothing_to_measure(gpus, mask=mask)
    return found


def pin(devices: Sequence[Device]) -> dict[str, str]:
    """The variable under which a process sees these GPUs alone, in this order."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(device.uuid for device in devices)}


def _nothing_to_measure(gpus: Sequence[str] | None, *, mask: str | None) -> MeterError:
    what, expected = "no GPU to measure", "at least one visible GPU"
    if gpus is not None:
        return MeterError(what, found="a plan that uses none", expected=expected, hint="name one with --gpu")
    if mask is None:
        return MeterError(what, found="a driver without a device", expected=expected)
    hint = "unset CUDA_VISIBLE_DEVICES, or name a GPU in it"
    return MeterError(what, found=f"CUDA_VISIBLE_DEVICES={mask!r}", expected=expected, hint=hint)


def inventory() -> list[Gpu]:
    """Every GPU that answers, with its MIG instances."""
    count = ask(pynvml.nvmlDeviceGetCount).value or 0
    handles = [(index, ask(pynvml.nvmlDeviceGetHandleByIndex, index).value) for index in range(count)]
    gpus = [
        Gpu(_device(handle, index=index), _instances(handle, index=index))
        for index, handle in handles
        if handle
    ]
    return [gpu for gpu in gpus if gpu.device.uuid]


def _device(handle: Any, *, index: int) -> Device:
    memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle).value
    pci = ask(pynvml.nvmlDeviceGetPciInfo, handle).value
    return Device(
        host=socket.gethostname(),
        uuid=ask(pynvml.nvmlDeviceGetUUID, handle).value or "",
        index=index,
        name=ask(pynvml.nvmlDeviceGetName, handle).value or "unknown GPU",
        kind="gpu",
        pci_id=_text(pci.busId) if pci else None,
        memory_bytes=memory.total if memory else None,
        power_limit_mw=ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle).value,
    )


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def _instances(handle: Any, *, index: int) -> list[Device] | None:
    mode = ask(pynvml.nvmlDeviceGetMigMode, handle).value
    if not mode or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return None
    most = ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle).value or 0
    found = [ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot).value for slot in range(most)]
    return [_instance(mig, parent=_device(handle, index=index)) for mig in found if mig]


def _instance(handle: Any, *, parent: Device) -> Device:
    name = ask(pynvml.nvmlDeviceGetName, handle).value or parent.name
    memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle).value
    return Device(
        host=parent.host,
        uuid=ask(pynvml.nvmlDeviceGetUUID, handle).value or "",
        index=parent.index,
        name=name,
        kind="mig",
        mig_profile=name.partition(" MIG ")[2] or None,
        parent_uuid=parent.uuid,
        pci_id=parent.pci_id,
        memory_bytes=memory.total if memory else None,
        power_limit_mw=parent.power_limit_mw,
    )


def driver_state() -> DriverState:
    """Ask everything once. Raises MeterError where NVML cannot be opened."""
    with driver():
        cuda = ask(pynvml.nvmlSystemGetCudaDriverVersion).value
        return DriverState(
            version=ask(pynvml.nvmlSystemGetDriverVersion).value,
            cuda_version=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            gpus=[_state(gpu.device, list(gpu.instances or ())) for gpu in inventory()],
        )


def _state(device: Device, instances: list[Device]) -> GpuState:
    handle = ask(pynvml.nvmlDeviceGetHandleByUUID, device.uuid).value

    def one(function: Callable[..., Any], *arguments: Any) -> Any:
        return ask(function, handle, *arguments).value

    capability = one(pynvml.nvmlDeviceGetCudaComputeCapability)
    processes = one(pynvml.nvmlDeviceGetComputeRunningProcesses)
    return GpuState(
        device=device,
        instances=instances,
        compute_capability=capability and f"{capability[0]}.{capability[1]}",
        pcie_generation=one(pynvml.nvmlDeviceGetCurrPcieLinkGeneration),
        numa_node=one(pynvml.nvmlDeviceGetNumaNodeId),
        sm_clock_mhz=one(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM),
        sm_clock_max_mhz=one(pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM),
        sm_application_clock_mhz=one(pynvml.nvmlDeviceGetApplicationsClock, pynvml.NVML_CLOCK_SM),
        memory_clock_mhz=one(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM),
        temperature_c=one(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
        fan_speed_pct=one(pynvml.nvmlDeviceGetFanSpeed),
        power_limit_w=_watts(one(pynvml.nvmlDeviceGetEnforcedPowerLimit)),
        default_power_limit_w=_watts(one(pynvml.nvmlDeviceGetPowerManagementDefaultLimit)),
        ecc_enabled=_first_is_on(one(pynvml.nvmlDeviceGetEccMode)),
        mig_enabled=_first_is_on(one(pynvml.nvmlDeviceGetMigMode)),
        persistence_enabled=_first_is_on([one(pynvml.nvmlDeviceGetPersistenceMode)]),
        compute_mode=_COMPUTE_MODES.get(one(pynvml.nvmlDeviceGetComputeMode)),
        process_ids=None if processes is None else [process.pid for process in processes],
    )


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / MW_PER_W


def _first_is_on(states: list[int | None] | None) -> bool | None:
    """Current and pending mode come as a pair."""
    return None if not states or states[0] is None else states[0] == pynvml.NVML_FEATURE_ENABLED


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
        resolve_gpus(list(dict.fromkeys(device.uuid for device in devices)))
    except LlemError as error:
        return str(error)
    return None
