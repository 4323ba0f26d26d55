"""The door to NVML: opening it, asking it questions that may have no answer, the GPUs of this host and what they are set to."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pynvml

from llem.errors import MeterError
from llem.meters.gpus import DriverState, Gpu, GpuState, select, visible
from llem.units import MW_PER_W
from llem_events.events import Device

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
