"""Asking NVML what the driver and every GPU are set to."""

from collections.abc import Callable
from typing import Any

import pynvml

from llem.meters.gpu_state import DriverState, GpuState
from llem.meters.nvml_driver import ask
from llem.meters.nvml_gpus import driver, inventory
from llem.units import MW_PER_W
from llem_events.events import Device

_COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}


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
