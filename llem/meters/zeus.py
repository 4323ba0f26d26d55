"""The zeus meter: AMD GPUs, Apple silicon and Jetson boards through the zeus package, an optional extra."""

import os
import socket
from collections.abc import Sequence
from typing import Any, ClassVar

from zeus.device import get_gpus, get_soc
from zeus.exception import ZeusBaseError

from llem.errors import MeterError
from llem.meters.base import Meter
from llem.meters.gpus import DriverState
from llem.meters.sensors import Sensor, SensorMeter
from llem.plan import MeterPlan
from llem_events.events import Device

# Parts of a system on a chip that do not overlap; a board with a total has it measured as one.
_SOC_TOTAL = "total_energy_mj"
_SOC_PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "dram_mj", "ane_mj")
# The libraries below zeus answer "N/A", or leave a key out, for what a device does not tell.
_NO_ANSWER = (ZeusBaseError, LookupError, TypeError, ValueError)
_UUID = "zeus-gpu-"
_UNSEEN_BY_ZEUS = ("ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")


def gpu_sensors(gpus: Sequence[str] | None) -> list[Sensor]:
    """The GPUs meant, each once."""
    return [_gpu_sensor(index, gpu) for index, gpu in _selected(gpus)]


def resolve_gpus(gpus: Sequence[str] | None) -> list[Device]:
    """The GPUs meant by their place among those visible to zeus, or by their name here; all of them for None.

    Raises MeterError for one that is not there, and where another variable than HIP_VISIBLE_DEVICES numbers the GPUs anew
    for the model, but not for zeus: another one would be measured than works.
    """
    for name in _UNSEEN_BY_ZEUS:
        if name in os.environ:
            raise MeterError(
                name,
                found=os.environ[name],
                expected="HIP_VISIBLE_DEVICES, the only variable that zeus and the model read alike",
                hint=f"unset {name}, and name the GPUs with --gpu or HIP_VISIBLE_DEVICES",
            )
    try:
        return [_device(index, gpu) for index, gpu in _selected(gpus)]
    except ZeusBaseError as error:
        raise MeterError("zeus meter", found=str(error), expected="a GPU that zeus can read") from error


def pin(devices: Sequence[Device]) -> dict[str, str]:
    """The variables under which a process sees these GPUs alone: zeus numbers AMD's as HIP does, NVIDIA's by PCI id."""
    indices = ",".join(device.uuid.removeprefix(_UUID) for device in devices)
    return {
        "HIP_VISIBLE_DEVICES": indices,
        "CUDA_VISIBLE_DEVICES": indices,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def driver_state() -> DriverState:
    """Never: zeus does not ask for it."""
    raise MeterError("zeus meter", found="GPUs whose settings zeus does not tell")


def _selected(gpus: Sequence[str] | None) -> list[tuple[int, Any]]:
    visible = list(enumerate(_visible()))
    if gpus is None:
        return visible
    named = {str(index): index for index, _ in visible} | {_uuid(gpu): index for index, gpu in visible}
    for entry in gpus:
        if entry not in named:
            expected = f"an index below {len(visible)}, which is how zeus names GPUs"
            raise MeterError("no such GPU", found=entry or "an empty name", expected=expected)
    return [visible[index] for index in dict.fromkeys(named[entry] for entry in gpus)]


def _visible() -> Sequence[Any]:
    mask = os.environ.get("HIP_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    try:
        gpus: Sequence[Any] = get_gpus().gpus
    except ValueError as error:
        raise MeterError(
            "HIP_VISIBLE_DEVICES", found=repr(mask), expected="indices, which is all that zeus understands"
        ) from error
    if len({_uuid(gpu) for gpu in gpus}) < len(gpus):
        raise MeterError("HIP_VISIBLE_DEVICES names a GPU twice", found=mask, expected="each GPU once")
    return gpus


def _uuid(gpu: Any) -> str:
    return f"{_UUID}{gpu.gpu_index}"


def _device(index: int, gpu: Any) -> Device:
    return Device(host=socket.gethostname(), uuid=_uuid(gpu), index=index, name=_name(gpu), kind="gpu")


def _name(gpu: Any) -> str:
    try:
        name: str = gpu.get_name()
    except _NO_ANSWER:  # also a name that is no UTF-8
        return "unknown GPU"
    return name


def _gpu_sensor(index: int, gpu: Any) -> Sensor:
    sensor = Sensor(_device(index, gpu), library="zeus", no_answer=_NO_ANSWER)
    sensor.offer("power_mw", gpu.get_instant_power_usage)
    sensor.offer("power_average_mw", gpu.get_average_power_usage)
    sensor.offer("temperature_c", gpu.get_gpu_temperature)
    sensor.offer("energy_mj", gpu.get_total_energy_consumption)
    return sensor


def soc_sensor(soc: Any) -> Sensor:
    """The whole chip as one device."""
    parts = soc.get_available_metrics()
    counted = [_SOC_TOTAL] if _SOC_TOTAL in parts else [part for part in _SOC_PARTS if part in parts]
    name = f"{type(soc).__name__} ({', '.join(counted)})"
    device = Device(host=socket.gethostname(), uuid="zeus-soc", index=0, name=name, kind="cpu_package")
    sensor = Sensor(device, library="zeus", no_answer=_NO_ANSWER)
    # zeus sums a Jetson's power itself
    sensor.energy_source = "integrated" if _SOC_TOTAL in counted else "counter"
    sensor.missing |= dict.fromkeys(
        ("power_mw", "power_average_mw", "temperature_c"), "zeus gives a chip's energy only"
    )
    sensor.offer(
        "energy_mj", lambda: sum(getattr(soc.get_total_energy_consumption(), part) for part in counted)
    )
    return sensor


class ZeusMeter(SensorMeter):
    """Energy counter, power and temperature of what zeus can see; zeus keeps its library for the life of the process."""

    NAME: ClassVar[str] = "zeus"


def open_meter(plan: MeterPlan, *, devices: Sequence[Device], pid: int | None) -> Meter:
    """The GPUs, or the chip where zeus sees none."""
    if reason := unavailable(devices=devices):
        raise MeterError("zeus meter", found=reason, expected="a device that zeus can read")
    try:
        sensors = gpu_sensors([device.uuid for device in devices]) if devices else [soc_sensor(get_soc())]
    except ZeusBaseError as error:
        raise MeterError("zeus meter", found=str(error), expected="a device that zeus can read") from error
    return ZeusMeter(sensors)


def unavailable(*, devices: Sequence[Device]) -> str | None:
    """Why zeus can read nothing here; a chip is measured whether or not a GPU is used, a GPU only where it is."""
    try:
        get_gpus()
    except ZeusBaseError as gpu_error:
        try:
            get_soc()
        except ZeusBaseError as error:
            return f"{gpu_error} {error}"
    except ValueError as error:
        return str(error)
    else:
        return None if devices else "no GPU is used"
    return None
