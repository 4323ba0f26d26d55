"""The AMD meter: GPUs through amdsmi, the Python face of AMD's own library. Written after its documentation; it never ran on hardware."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from llem.errors import MeterError
from llem.meters.base import Meter
from llem.meters.gpus import DriverState, Gpu, GpuState, select, visible
from llem.meters.sensors import Sensor, SensorMeter
from llem.plan import MeterPlan
from llem.units import MW_PER_W
from llem_events.events import Device

try:
    # It prints to stdout where it does not find the library below it.
    with contextlib.redirect_stdout(None):
        import amdsmi
except (OSError, AttributeError, KeyError) as error:
    raise MeterError(
        "amd meter",
        found=f"amdsmi, which cannot be loaded: {type(error).__name__} {error}",
        expected="libamd_smi.so of the same version",
        hint="install ROCm, set ROCM_PATH, and give amdsmi the version of ROCm",
    ) from error

UJ_PER_MJ = 1_000
UW_PER_MW = 1_000
# What a device does not tell is an error, "N/A", or a key that is not there.
_NO_ANSWER = (amdsmi.AmdSmiException, LookupError, TypeError, ValueError)
# The runtime applies the first; HIP then counts along what it left.
_ROCR, _HIP, _CUDA, _UNSUPPORTED = (
    "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
)  # fmt: skip


@contextmanager
def _driver() -> Iterator[None]:
    _open_driver()
    try:
        yield
    finally:
        _close_driver()


def _open_driver() -> None:
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException as error:
        raise MeterError(
            "AMD SMI", found=str(error), expected="AMD's driver", hint="try: sudo modprobe amdgpu"
        ) from error


def _close_driver() -> None:
    with contextlib.suppress(amdsmi.AmdSmiException):
        amdsmi.amdsmi_shut_down()


def _answer(function: Callable[..., Any], *arguments: Any) -> Any:
    """None for what a device does not tell."""
    try:
        return function(*arguments)
    except _NO_ANSWER:
        return None


def _inventory() -> list[tuple[Device, Any]]:
    """Every GPU that HIP could use and its handle, in HIP's order."""
    try:
        handles = list(amdsmi.amdsmi_get_processor_handles())
    except amdsmi.AmdSmiException as error:
        raise MeterError("AMD SMI", found=str(error), expected="a list of GPUs") from error
    answers = [(_answer(_device, handle), handle) for handle in handles]
    return sorted(((device, handle) for device, handle in answers if device), key=lambda gpu: gpu[0].index)


def _device(handle: Any) -> Device:
    order = amdsmi.amdsmi_get_gpu_enumeration_info(handle)
    vram = amdsmi.AmdSmiMemoryType.VRAM
    return Device(
        host=socket.gethostname(),
        uuid=order["hip_uuid"],
        index=int(order["hip_id"]),
        name=(_answer(amdsmi.amdsmi_get_gpu_asic_info, handle) or {}).get("market_name") or "unknown GPU",
        kind="gpu",
        pci_id=_answer(amdsmi.amdsmi_get_gpu_device_bdf, handle),
        memory_bytes=_answer(amdsmi.amdsmi_get_gpu_memory_total, handle, vram),
        power_limit_mw=_answer(_power_limit_mw, handle),
    )


def _power_limit_mw(handle: Any) -> int:
    return int(amdsmi.amdsmi_get_power_cap_info(handle)["power_cap"]) // UW_PER_MW


def resolve_gpus(gpus: Sequence[str] | None) -> list[Device]:
    """The GPUs meant by HIP's indices or by UUIDs; for None all that ROCR_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES leave.

    Raises MeterError for one that is not there, and where there is none at all.
    """
    if _UNSUPPORTED in os.environ:
        hint = f"unset {_UNSUPPORTED}, and use {_ROCR}"
        raise MeterError(_UNSUPPORTED, found=os.environ[_UNSUPPORTED], expected=_ROCR, hint=hint)
    with _driver():
        seen = [device for device, _ in _inventory()]
    masks = [name for name in (_ROCR, _HIP if _HIP in os.environ else _CUDA) if name in os.environ]
    for name in masks:
        left = [Gpu(device) for device in seen]
        seen = visible(left, mask=os.environ[name], order="PCI_BUS_ID", variable=name)
    chosen = select(seen, gpus, masked=bool(masks), variable=" or ".join(masks) or _ROCR)
    if not chosen:
        masked = ", ".join(f"{name}={os.environ[name]!r}" for name in masks)
        raise MeterError(
            "no GPU to measure", found=masked or "no GPU of AMD", expected="at least one visible GPU"
        )
    return chosen


def pin(devices: Sequence[Device]) -> dict[str, str]:
    """The variables under which a process sees these GPUs alone, in this order; a number given to HIP before means another now."""
    numbers = ",".join(map(str, range(len(devices))))
    return {_ROCR: ",".join(device.uuid for device in devices), _HIP: numbers, _CUDA: numbers}


def driver_state() -> DriverState:
    """The driver and what every GPU is set to. Raises MeterError where it cannot be opened."""
    with _driver():
        gpus = _inventory()
        drivers = [_answer(amdsmi.amdsmi_get_gpu_driver_info, handle) or {} for _, handle in gpus]
        states = [_state(device, handle) for device, handle in gpus]
    versions = filter(None, (driver.get("driver_version") for driver in drivers))
    return DriverState(version=next(versions, None), cuda_version=None, gpus=states)


def _state(device: Device, handle: Any) -> GpuState:
    return GpuState(
        device=device,
        sm_clock_mhz=_answer(_clock_mhz, handle, amdsmi.AmdSmiClkType.GFX),
        memory_clock_mhz=_answer(_clock_mhz, handle, amdsmi.AmdSmiClkType.MEM),
        power_limit_w=None if device.power_limit_mw is None else device.power_limit_mw / MW_PER_W,
    )


def _clock_mhz(handle: Any, kind: Any) -> int:
    return int(amdsmi.amdsmi_get_clock_info(handle, kind)["clk"])


def _energy_mj(handle: Any) -> int:
    """The accumulator counts in units of its resolution, in microjoules."""
    count = amdsmi.amdsmi_get_energy_count(handle)
    return int(count["energy_accumulator"] * count["counter_resolution"] / UJ_PER_MJ)


def _temperature_c(handle: Any, kind: Any) -> int:
    return int(amdsmi.amdsmi_get_temp_metric(handle, kind, amdsmi.AmdSmiTemperatureMetric.CURRENT))


def _sensor(device: Device, handle: Any) -> Sensor:
    sensor = Sensor(device, library="amdsmi", no_answer=_NO_ANSWER)
    _offer_power(sensor, handle)
    sensor.offer("energy_mj", lambda: _energy_mj(handle))
    kinds = amdsmi.AmdSmiTemperatureType
    # The edge is what others call the GPU's temperature; the newest have only a hot spot.
    if not sensor.offer("temperature_c", lambda: _temperature_c(handle, kinds.EDGE)):
        sensor.offer("temperature_c", lambda: _temperature_c(handle, kinds.HOTSPOT))
    sensor.offer("gpu_utilisation_pct", lambda: amdsmi.amdsmi_get_gpu_activity(handle)["gfx_activity"])
    sensor.offer("memory_utilisation_pct", lambda: amdsmi.amdsmi_get_gpu_activity(handle)["umc_activity"])
    vram = amdsmi.AmdSmiMemoryType.VRAM
    sensor.offer("memory_used_bytes", lambda: amdsmi.amdsmi_get_gpu_memory_usage(handle, vram))
    sensor.offer("sm_clock_mhz", lambda: _clock_mhz(handle, amdsmi.AmdSmiClkType.GFX))
    sensor.offer("memory_clock_mhz", lambda: _clock_mhz(handle, amdsmi.AmdSmiClkType.MEM))
    sensor.offer("power_limit_mw", lambda: _power_limit_mw(handle))
    return sensor


def _offer_power(sensor: Sensor, handle: Any) -> None:
    """Watts: the newest GPUs give the present power, the others an average over a time that is not documented."""

    def ask(name: str) -> Callable[[], int]:
        return lambda: int(amdsmi.amdsmi_get_power_info(handle)[name]) * MW_PER_W

    averaged = sensor.offer("power_average_mw", ask("average_socket_power"))
    if not sensor.offer("power_mw", ask("current_socket_power")) and averaged:
        sensor.offer("power_mw", ask("average_socket_power"))
        sensor.power_kind = "average"


class AmdMeter(SensorMeter):
    """Energy counter, power, temperature, clocks, use and memory of AMD's GPUs."""

    NAME: ClassVar[str] = "amd"

    def __init__(self, devices: Sequence[Device], **options: Any) -> None:
        _open_driver()
        self._open = True
        try:
            handles = {device.uuid: handle for device, handle in _inventory()}
            sensors = [_sensor(device, _handle(handles, device)) for device in dict.fromkeys(devices)]
        except MeterError:
            self.close()
            raise
        super().__init__(sensors, **options)

    def close(self) -> None:
        """Give the driver back."""
        if self._open:
            self._open = False
            _close_driver()


def _handle(handles: dict[str, Any], device: Device) -> Any:
    if device.uuid not in handles:
        raise MeterError(f"GPU {device.uuid}", found="no such GPU of AMD", expected="a GPU that answers")
    return handles[device.uuid]


def open_meter(plan: MeterPlan, *, devices: Sequence[Device], pid: int | None) -> Meter:
    """The GPUs among `devices`."""
    if reason := unavailable(devices=devices):
        raise MeterError("amd meter", found=reason, expected="a GPU of AMD")
    return AmdMeter(devices)


def unavailable(*, devices: Sequence[Device]) -> str | None:
    """Why the GPUs cannot be read here."""
    if not devices:
        return "no GPU is used"
    try:
        resolve_gpus(list(dict.fromkeys(device.uuid for device in devices)))
    except MeterError as error:
        return str(error)
    return None
