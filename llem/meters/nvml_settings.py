"""Power limit and locked clocks of NVIDIA's GPUs, through NVML."""

from typing import Any

import pynvml

from llem.errors import MeterError
from llem.meters.nvml import Answer, ask, driver
from llem.units import MW_PER_W
from llem_events.events import Device

__all__ = ["driver", "range_of", "read", "write"]

GRANT = 'sudo -E env "PATH=$PATH" llem ... may; so may a container that is started with --cap-add=SYS_ADMIN'


def range_of(device: Device, setting: str) -> tuple[float, float] | None:
    """Of the power limit as the board allows it; of clocks, those that go with the fastest memory clock."""
    handle = _handle(device, setting)
    if setting == "power_limit_w":
        limits = ask(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, handle).value
        return (limits[0] / MW_PER_W, limits[1] / MW_PER_W) if limits else None
    memory_mhz = ask(pynvml.nvmlDeviceGetSupportedMemoryClocks, handle).value
    clocks_mhz = (
        memory_mhz and ask(pynvml.nvmlDeviceGetSupportedGraphicsClocks, handle, max(memory_mhz)).value
    )
    return (min(clocks_mhz), max(clocks_mhz)) if clocks_mhz else None


def read(device: Device, setting: str) -> float | None:
    """The power limit; NVML has no way to ask for a lock of clocks."""
    if setting != "power_limit_w":
        return None
    answer = ask(pynvml.nvmlDeviceGetPowerManagementLimit, _handle(device, setting))
    if answer.reason:
        raise _refused(answer, device, setting)
    return float(answer.value / MW_PER_W)


def write(device: Device, setting: str, value: float | None) -> None:
    """Set it; a power limit that is left to the driver is the board's own."""
    handle = _handle(device, setting)
    if setting == "power_limit_w":
        answer = ask(pynvml.nvmlDeviceSetPowerManagementLimit, handle, _limit_mw(handle, value))
    elif value is None:
        answer = ask(pynvml.nvmlDeviceResetGpuLockedClocks, handle)
    else:
        answer = ask(pynvml.nvmlDeviceSetGpuLockedClocks, handle, round(value), round(value))
    if answer.reason:
        raise _refused(answer, device, setting)


def _limit_mw(handle: Any, value: float | None) -> int:
    if value is not None:
        return round(value * MW_PER_W)
    return int(ask(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, handle).value or 0)


def _handle(device: Device, setting: str) -> Any:
    """Of a whole GPU: what is set on it holds for all of its MIG instances."""
    if device.parent_uuid is not None:
        raise MeterError(
            f"{setting} of {device.uuid}",
            found=f"a MIG instance of {device.parent_uuid}",
            expected="a whole GPU: all instances have one limit and one clock",
        )
    answer = ask(pynvml.nvmlDeviceGetHandleByUUID, device.uuid)
    if answer.reason:
        raise _refused(answer, device, setting)
    return answer.value


def _refused(answer: Answer, device: Device, setting: str) -> MeterError:
    is_permission = answer.code == pynvml.NVML_ERROR_NO_PERMISSION
    return MeterError(
        f"{setting} of GPU {device.index} ({device.name})",
        found=answer.reason,
        expected="permission to set it" if is_permission else "a GPU that takes it",
        hint=GRANT if is_permission else None,
    )
