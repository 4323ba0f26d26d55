"""The door to NVML: opening it, and asking it questions that may have no answer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pynvml

from llem.errors import MeterError

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
