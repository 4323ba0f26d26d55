"""A stand-in of AMD's amdsmi package: what llem calls of it, after its documentation, over GPUs of constant power.

SIMULATED_AMD_WATTS lists the watts of each in the order in which the library gives its handles, SIMULATED_AMD_HIP the number that HIP gives
each; SIMULATED_AMD_KIND=mi200 makes GPUs that know an average power only, and SIMULATED_AMD_BROKEN names functions that fail.
"""

import os
import time
from enum import Enum, auto
from functools import wraps


class AmdSmiException(Exception):  # noqa: N818 -- its name in amdsmi
    """The root of what amdsmi raises."""


class AmdSmiLibraryException(AmdSmiException):
    """An error code of the library."""


class AmdSmiTemperatureType(Enum):
    EDGE = auto()
    HOTSPOT = auto()


class AmdSmiTemperatureMetric(Enum):
    CURRENT = auto()


class AmdSmiClkType(Enum):
    GFX = auto()
    MEM = auto()


class AmdSmiMemoryType(Enum):
    VRAM = auto()


clock_ns = time.monotonic_ns  # a test may put another clock in its place
_opened = [0]


def _listed(name):
    return [text for text in os.environ.get(name, "").split(",") if text]


def _of_open_library(function):
    @wraps(function)
    def called(*arguments):
        if not _opened[0]:
            raise AmdSmiLibraryException("AMDSMI_STATUS_NOT_INIT - Device not initialized")
        if function.__name__ in _listed("SIMULATED_AMD_BROKEN"):
            raise AmdSmiLibraryException("AMDSMI_STATUS_NOT_SUPPORTED - Feature not supported")
        return function(*arguments)

    return called


def amdsmi_init():
    if not _listed("SIMULATED_AMD_WATTS"):
        raise AmdSmiLibraryException("AMDSMI_STATUS_DRIVER_NOT_LOADED - Driver not loaded")
    _opened[0] += 1


@_of_open_library
def amdsmi_shut_down():
    _opened[0] -= 1


@_of_open_library
def amdsmi_get_processor_handles():
    return list(range(len(_listed("SIMULATED_AMD_WATTS"))))


@_of_open_library
def amdsmi_get_gpu_enumeration_info(handle):
    numbers = _listed("SIMULATED_AMD_HIP") or [str(index) for index in amdsmi_get_processor_handles()]
    return {"hip_id": int(numbers[handle]), "hip_uuid": f"GPU-{handle + 10:016x}", "drm_card": handle}


@_of_open_library
def amdsmi_get_gpu_asic_info(handle):
    return {"market_name": f"AMD Instinct of {_watts(handle):g} W"}


@_of_open_library
def amdsmi_get_gpu_device_bdf(handle):
    return f"0000:{handle + 1:02x}:00.0"


@_of_open_library
def amdsmi_get_gpu_driver_info(handle):
    return {"driver_name": "amdgpu", "driver_version": "6.12.12"}


@_of_open_library
def amdsmi_get_power_info(handle):
    """Watts; the older GPUs know an average, the newer ones the present power, and "N/A" stands for the other."""
    watts, is_old = int(_watts(handle)), os.environ.get("SIMULATED_AMD_KIND") == "mi200"
    return {
        "current_socket_power": "N/A" if is_old else watts,
        "average_socket_power": watts if is_old else "N/A",
    }


@_of_open_library
def amdsmi_get_energy_count(handle):
    """The accumulator counts in units of the resolution, in microjoules."""
    resolution_uj = 15.259
    energy_uj = _watts(handle) * clock_ns() / 1000
    return {"energy_accumulator": int(energy_uj / resolution_uj), "counter_resolution": resolution_uj}


@_of_open_library
def amdsmi_get_temp_metric(handle, sensor_type, metric):
    if sensor_type is AmdSmiTemperatureType.EDGE:
        raise AmdSmiLibraryException("AMDSMI_STATUS_NOT_SUPPORTED - Feature not supported")
    return 41


@_of_open_library
def amdsmi_get_gpu_activity(handle):
    return {"gfx_activity": 90, "umc_activity": 30, "mm_activity": "N/A"}


@_of_open_library
def amdsmi_get_gpu_memory_total(handle, memory_type):
    return 192 * 2**30


@_of_open_library
def amdsmi_get_gpu_memory_usage(handle, memory_type):
    return 3 * 2**30


@_of_open_library
def amdsmi_get_clock_info(handle, clock_type):
    return {"clk": 2100 if clock_type is AmdSmiClkType.GFX else 1300, "min_clk": 132, "max_clk": 2100}


@_of_open_library
def amdsmi_get_power_cap_info(handle):
    """In microwatts."""
    return {"power_cap": 750_000_000, "power_cap_default": 750_000_000}


def _watts(handle):
    return float(_listed("SIMULATED_AMD_WATTS")[handle])
