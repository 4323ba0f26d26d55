"""Meters: what reads power, chosen by name and loaded only when chosen."""

import importlib
from collections.abc import Sequence
from typing import Any

import msgspec

from llem.errors import MeterError, MissingExtraError
from llem.meters.base import Meter
from llem.meters.gpus import DriverState
from llem.plan import Plan
from llem_events.events import Device

__all__ = [
    "METERS",
    "DriverState",
    "Meter",
    "MeterChoice",
    "choose_meter",
    "create_meter",
    "driver_state",
    "list_gpus",
    "pin",
    "require_meter",
    "resolve_gpus",
    "unavailable_meters",
    "vendor",
]

METERS = ("nvml", "rapl", "zeus", "estimate", "simulated")
NVIDIA = "nvml_driver"
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


def require_meter(plan: Plan, *, gpus: Sequence[str]) -> MeterChoice:
    """The meter for `gpus`. Raises LlemError where the one that the plan names can read nothing: only "auto" takes another."""
    choice = choose_meter(plan, gpus=gpus)
    reason: str | None = _module(choice.name).unavailable(gpus=gpus)
    if reason is not None:
        raise MeterError(
            f"meter {choice.name}",
            found=reason,
            expected="a meter that can be read",
            hint="--meter auto takes the best one; `llem doctor` says what can be measured here",
        )
    return choice


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
    gpus: list[Device] = _module("nvml_driver").list_gpus()
    return gpus


def vendor(plan: Plan, *, wraps_program: bool) -> str:
    """Which module lists and pins the plan's GPUs: that of its meter where it has its own, else NVIDIA's."""
    if plan.meter.name == "zeus":
        return "zeus"
    runs_nothing = wraps_program or plan.engine.name == "simulated"
    return "simulated" if plan.meter.name == "simulated" and runs_nothing else NVIDIA


def resolve_gpus(gpus: Sequence[str] | None, *, vendor: str = NVIDIA) -> list[Device]:
    """The devices meant, in the order of a process that is pinned to them. None: all that are visible.

    Raises MeterError for a GPU that is not there or not visible.
    """
    devices: list[Device] = _module(vendor).resolve_gpus(gpus)
    return devices


def pin(uuids: Sequence[str], *, vendor: str = NVIDIA) -> dict[str, str]:
    """The environment in which a process sees these GPUs alone."""
    variables: dict[str, str] = _module(vendor).pin(uuids)
    return variables


def driver_state() -> DriverState:
    """The NVIDIA driver and what every GPU is set to. Raises MeterError where NVML cannot be opened."""
    state: DriverState = _module("nvml_driver").driver_state()
    return state
