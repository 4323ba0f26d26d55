"""GPUs: which of them the runtime lets a process see, which a list of indices and UUIDs means, and what they are set to."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from llem.errors import MeterError
from llem_events.events import Device

CUDA_MASK = "CUDA_VISIBLE_DEVICES"


class Gpu(NamedTuple):
    """One GPU in the driver's order (by PCI id), with its MIG instances; None where it is not divided."""

    device: Device
    instances: Sequence[Device] | None = None

    @property
    def usable(self) -> Sequence[Device]:
        """What CUDA can run on: a divided GPU only through its instances."""
        return [self.device] if self.instances is None else self.instances


def visible(
    gpus: Sequence[Gpu], *, mask: str | None, order: str | None, variable: str = CUDA_MASK
) -> list[Device]:
    """Devices in the runtime's order under the vendor's `variable` (`mask`) and CUDA_DEVICE_ORDER (`order`).

    As CUDA and ROCm do, the list ends at the first entry that names no GPU.
    """
    if mask is None:
        return [device for gpu in gpus for device in gpu.usable]
    seen: list[Device] = []
    for entry in (part.strip() for part in mask.split(",")):
        device = _by_index(gpus, entry, order=order) if entry.isdigit() else _by_uuid(gpus, entry)
        if device is None:
            break
        seen.append(device)
    if len({device.uuid for device in seen}) < len(seen):
        raise MeterError(f"{variable} names a GPU twice", found=mask, expected="each GPU once")
    return seen


def _by_index(gpus: Sequence[Gpu], entry: str, *, order: str | None) -> Device | None:
    if order != "PCI_BUS_ID" and len({gpu.device.name for gpu in gpus}) > 1:
        raise MeterError(
            "CUDA_VISIBLE_DEVICES",
            found=f"index {entry} on a host with different GPUs, which CUDA numbers by speed and NVML by PCI id",
            expected="UUIDs, or CUDA_DEVICE_ORDER=PCI_BUS_ID",
            hint="set CUDA_DEVICE_ORDER=PCI_BUS_ID",
        )
    index = int(entry)
    usable = gpus[index].usable if index < len(gpus) else []
    return usable[0] if usable else None


def _by_uuid(gpus: Sequence[Gpu], entry: str) -> Device | None:
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    named = [gpu.usable for gpu in gpus if gpu.device.uuid.startswith(entry)]
    named += [[device] for gpu in gpus for device in gpu.instances or () if device.uuid.startswith(entry)]
    return named[0][0] if len(named) == 1 and named[0] else None


def select(
    seen: Sequence[Device], wanted: Sequence[str] | None, *, masked: bool, variable: str = CUDA_MASK
) -> list[Device]:
    """The devices meant by indices and by UUIDs or their beginnings; all of `seen` for None.

    An index counts along `seen` where the vendor's `variable` made that list (`masked`), else it is the driver's, which
    its own tool shows; a GPU divided into several instances has no device of its own.
    """
    if wanted is None:
        return list(seen)
    numbers = range(len(seen)) if masked else [device.index for device in seen]
    numbered = list(zip(map(str, numbers), seen, strict=True))
    return each_once(wanted, [_one(numbered, entry.strip(), variable) for entry in wanted])


def each_once(wanted: Sequence[str], devices: Sequence[Device]) -> list[Device]:
    """The devices that were meant. Raises MeterError for one that is named twice."""
    uuids = [device.uuid for device in devices]
    twice = next((uuid for uuid in uuids if uuids.count(uuid) > 1), None)
    if twice is not None:
        raise MeterError(
            "a GPU is named twice",
            found=f"{','.join(wanted)}, twice {twice}",
            expected="each GPU once",
            hint="--workers 2 runs two processes on it",
        )
    return list(devices)


def _one(numbered: Sequence[tuple[str, Device]], entry: str, variable: str) -> Device:
    if entry.isdigit():
        matches = [device for number, device in numbered if number == entry]
    else:
        matches = [device for _, device in numbered if entry and device.uuid.startswith(entry)]
    if len(matches) == 1:
        return matches[0]
    raise MeterError(
        "several such devices" if matches else "no such GPU",
        found=entry or "an empty name",
        expected=_choices([(device.uuid, device) for device in matches] or numbered),
        hint=f"`llem doctor` lists the GPUs; {variable} hides all others",
    )


def _choices(numbered: Sequence[tuple[str, Device]]) -> str:
    if not numbered:
        return "a visible GPU, and there is none"
    names = (name if name == device.uuid else f"{name} ({device.uuid})" for name, device in numbered)
    return " or ".join(names)


class GpuState(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; None where the driver does not say."""

    device: Device
    instances: list[Device] = []
    compute_capability: str | None = None
    pcie_generation: int | None = None
    numa_node: int | None = None
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    sm_application_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    fan_speed_pct: int | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    ecc_enabled: bool | None = None
    mig_enabled: bool | None = None
    persistence_enabled: bool | None = None
    compute_mode: str | None = None
    process_ids: list[int] | None = None


class DriverState(msgspec.Struct, frozen=True, kw_only=True):
    """The driver and its GPUs; `cuda_version` is the newest that the driver can run."""

    version: str | None
    cuda_version: str | None
    gpus: list[GpuState]
