"""The GPUs of this host through NVML, by UUID, as CUDA lets this process see them."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pynvml

from llem.errors import MeterError
from llem.meters.gpus import Gpu, select, visible
from llem.meters.nvml_driver import ask, close_driver, open_driver
from llem_events.events import Device


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


def pin(uuids: Sequence[str]) -> dict[str, str]:
    """The variables under which a process sees these GPUs alone, in this order."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(uuids)}


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
