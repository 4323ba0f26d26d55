"""The columns of a reading and the NVML calls that fill them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pynvml

Values = dict[str, int | None]

ENERGY, POWER, AVERAGE = "energy_mj", "power_mw", "power_average_mw"
FIELDS = {
    POWER: pynvml.NVML_FI_DEV_POWER_INSTANT,
    AVERAGE: pynvml.NVML_FI_DEV_POWER_AVERAGE,
    ENERGY: pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION,
}


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
