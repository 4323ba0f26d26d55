"""GPUs of constant power: SIMULATED_ZEUS_WATTS lists the watts of each, in the order in which the driver numbers them.

SIMULATED_ZEUS_POWER=broken lets whoever asks for power meet an error of the system; SIMULATED_ZEUS_TEMPERATURE is what a temperature is
answered with.
"""

import os
import time

from zeus.exception import ZeusBaseError


class AMDGPU:
    """One GPU by the driver's number; its energy counter is exact."""

    def __init__(self, gpu_index: int) -> None:
        self.gpu_index = gpu_index
        self._watts = watts()[gpu_index]

    def get_name(self) -> str:
        return f"AMD Instinct of {self._watts:g} W"

    def get_instant_power_usage(self) -> int:
        if os.environ.get("SIMULATED_ZEUS_POWER") == "broken":
            raise OSError("libamd_smi.so is gone")
        return round(self._watts * 1000)

    def get_average_power_usage(self) -> int:
        raise ZeusBaseError("Average power usage is not supported on this AMD GPU.")

    def get_gpu_temperature(self) -> str:
        return os.environ.get("SIMULATED_ZEUS_TEMPERATURE", "40")

    def get_total_energy_consumption(self) -> int:
        return int(self._watts * time.monotonic() * 1000)


class AMDGPUs:
    """Those that HIP_VISIBLE_DEVICES, or else CUDA_VISIBLE_DEVICES, leaves, in its order."""

    def __init__(self) -> None:
        mask = os.environ.get("HIP_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
        if mask == "":
            raise ZeusBaseError("HIP_VISIBLE_DEVICES or CUDA_VISIBLE_DEVICES is set but empty.")
        indices = range(len(watts())) if mask is None else [int(index) for index in mask.split(",")]
        self.gpus = [AMDGPU(index) for index in indices]


def watts() -> list[float]:
    """Of every GPU; none on a host without a driver."""
    return [float(text) for text in os.environ.get("SIMULATED_ZEUS_WATTS", "").split(",") if text]


def get_gpus() -> AMDGPUs:
    if not watts():
        raise ZeusBaseError("NVML and AMDSMI unavailable. Failed to initialize GPU management library.")
    return AMDGPUs()


def get_soc() -> object:
    raise ZeusBaseError("No observable SoC was found on the current machine.")
