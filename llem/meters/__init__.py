"""Meters: what reads power, chosen by name and loaded only when chosen."""

import importlib
from collections.abc import Sequence
from typing import Any

import msgspec

from llem.errors import MissingExtraError
from llem.meters.base import Meter
from llem.meters.gpu_state import DriverState
from llem.plan import Plan
from llem_events.records import Device

__all__ = [
    "METERS",
    "DriverState",
    "Meter",
    "MeterChoice",
    "choose_meter",
    "create_meter",
    "driver_state",
    "list_gpus",
    "resolve_gpus",
    "unavailable_meters",
]

METERS = ("nvml", "rapl", "zeus", "estimate", "simulated")
_BEST_FIRST = ("nvml", "rapl")  # before falling back on the estimate


class MeterChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The meter taken, and why the better ones were not."""

    name: str
    rejected: dict[str, str] = {}


def _module(name: str) -> Any:
    """The one place that loads a meter: pynvml and zeus stay unloaded until chosen."""
    try:
        return importlib.import_module(f"llem.meters.{name}")
    except ModuleNotFoundError as error:
        hint = f"pip install 'llem[{name}]'"
        raise MissingExtraError(f"meter {name}", found=f"no package {error.name}", hint=hint) from error


def _unavailable(name: str, gpus: Sequence[str] | None) -> str | None:
    try:
        reason: str | None = _module(name).unavailable(gpus=gpus)
    except MissingExtraError as error:
        return str(error)
    return reason


def choose_meter(plan: Plan, *, gpus: Sequence[str] | None = None) -> MeterChoice:
    """The meter that the plan names; for "auto" the best that can be read for `gpus` (empty: the model is on the CPU)."""
    if plan.meter.name != "auto":
        return MeterChoice(name=plan.meter.name)
    wanted = [] if plan.engine.device == "cpu" else gpus
    rejected: dict[str, str] = {}
    for name in _BEST_FIRST:
        reason = _unavailable(name, wanted)
        if reason is None:
            return MeterChoice(name=name, rejected=rejected)
        rejected[name] = reason
    return MeterChoice(name="estimate", rejected=rejected)


def create_meter(plan: Plan, *, gpus: Sequence[str] | None, pid: int | None) -> Meter:
    """Open the chosen meter on `gpus` (indices, UUIDs or MIG UUIDs; None: all visible ones).

    `pid` is the process whose CPU time, children included, the estimate meter counts. Raises MeterError.
    """
    name = choose_meter(plan, gpus=gpus).name
    meter: Meter = _module(name).open_meter(plan.meter, gpus=gpus, pid=pid)
    return meter


def unavailable_meters() -> dict[str, str | None]:
    """Every meter and why it cannot be used here, None where it can."""
    return {name: _unavailable(name, None) for name in METERS}


def list_gpus() -> list[Device]:
    """Every NVIDIA device of this host, in the driver's order. Raises MeterError where NVML cannot be opened."""
    gpus: list[Device] = _module("nvml_gpus").list_gpus()
    return gpus


def resolve_gpus(gpus: Sequence[str] | None) -> list[Device]:
    """The devices meant, seen through CUDA_VISIBLE_DEVICES; pin a worker to one with CUDA_VISIBLE_DEVICES=<uuid>.

    Raises MeterError for a GPU that is not there or not visible.
    """
    found: list[Device] = _module("nvml_gpus").resolve_gpus(gpus)
    return found


def driver_state() -> DriverState:
    """The NVIDIA driver and what every GPU is set to. Raises MeterError where NVML cannot be opened."""
    state: DriverState = _module("nvml_state").driver_state()
    return state
