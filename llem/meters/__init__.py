"""Meters: what reads power, chosen by name and loaded only when chosen."""

import importlib
from collections.abc import Sequence
from typing import cast

import msgspec

from llem.errors import MeterError, MissingExtraError
from llem.meters.base import Meter, MeterModule, SettingsModule, Vendor
from llem.meters.gpus import DriverState
from llem.plan import Plan
from llem.registry import ENGINES, METERS, SERVERS, install_hint, one_of, ranked_meters
from llem_events.events import Device

__all__ = [
    "DriverState",
    "Meter",
    "MeterChoice",
    "Vendor",
    "choose_meter",
    "create_meter",
    "create_meters",
    "driver_state",
    "require_meter",
    "settings_module",
    "unavailable_meters",
    "vendor_name",
    "vendor_of",
]


class MeterChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The meter taken, and why the better ones were not."""

    name: str
    rejected: dict[str, str] = {}


def _module(name: str) -> MeterModule:
    """The one place that loads a meter: the libraries of vendors stay unloaded until chosen."""
    kind = METERS[name]
    try:
        return cast(MeterModule, importlib.import_module(kind.module))
    except ModuleNotFoundError as error:
        if kind.extra is None:
            raise
        found, hint = f"no package {error.name}", install_hint(kind.extra)
        raise MissingExtraError(f"meter {name}", found=found, hint=hint) from error


def vendor(name: str) -> Vendor:
    """What lists and pins the GPUs that the meter of this name reads."""
    return cast(Vendor, _module(name))


def settings_module(name: str) -> SettingsModule:
    """What sets the GPUs that the meter of this name reads. Raises MeterError where nothing does."""
    module = METERS[name].settings
    if module is None:
        able = [meter for meter, kind in METERS.items() if kind.settings]
        raise MeterError(
            "power limits and clocks", found=f"GPUs of the meter {name}", expected=f"those of {one_of(*able)}"
        )
    return cast(SettingsModule, importlib.import_module(module))


def vendor_of(plan: Plan, *, wraps_program: bool) -> Vendor:
    """The module of whose GPUs the plan means."""
    return vendor(vendor_name(plan, wraps_program=wraps_program))


def vendor_name(plan: Plan, *, wraps_program: bool) -> str:
    """Whose GPUs the plan means: those of a meter of its own that has some, else of the first vendor that has any here."""
    engine = ENGINES[plan.engine.name] if plan.server.kind is None else SERVERS[plan.server.kind]
    runs_on_gpus = engine.uses_gpus and not wraps_program
    for name in plan.meter.names:
        kind = METERS.get(name)
        if kind and (kind.gpus == "real" or (kind.gpus == "made up" and not runs_on_gpus)):
            return name
    names = [name for name in ranked_meters() if METERS[name].gpus == "real"]
    return next(filter(_sees_gpus, names), names[0])


def _sees_gpus(name: str) -> bool:
    try:
        return bool(vendor(name).resolve_gpus(None))
    except (MeterError, MissingExtraError):
        return False


def choose_meter(plan: Plan, *, devices: Sequence[Device]) -> MeterChoice:
    """The meter that the plan names; for "auto" the best that can be read for `devices` (none: the model is on the CPU).

    A meter whose extra is not installed is not among those that "auto" tries.
    """
    if plan.meter.name != "auto":
        return MeterChoice(name=plan.meter.name)
    rejected: dict[str, str] = {}
    *better, last = ranked_meters()
    for name in better:
        try:
            reason = _module(name).unavailable(devices=devices)
        except MissingExtraError:
            continue
        except MeterError as error:
            # its library does not load here
            reason = str(error)
        if reason is None:
            return MeterChoice(name=name, rejected=rejected)
        rejected[name] = reason
    return MeterChoice(name=last, rejected=rejected)


def require_meter(plan: Plan, *, devices: Sequence[Device]) -> MeterChoice:
    """The meter for `devices`. Raises LlemError where the one that the plan names can read nothing: only "auto" takes another."""
    choice = choose_meter(plan, devices=devices)
    for name in (choice.name, *plan.meter.also):
        reason = _module(name).unavailable(devices=devices)
        if reason is not None:
            raise MeterError(
                f"meter {name}", found=reason, expected="a meter that can be read", hint=_hint(name, plan)
            )
    return choice


def _hint(name: str, plan: Plan) -> str:
    alone = [other for other in plan.meter.names if other != name]
    best = f"--meter {alone[0]} goes without it" if alone else "--meter auto takes the best one"
    return f"{best}; `llem doctor` says what can be measured here"


def create_meter(plan: Plan, *, devices: Sequence[Device], pid: int | None) -> Meter:
    """Open the chosen meter on `devices`, none of which there may be for one that reads no GPUs.

    `pid` is the process whose CPU time, children included, the estimate meter counts. Raises MeterError.
    """
    return _open(choose_meter(plan, devices=devices).name, plan, devices, pid)


def create_meters(plan: Plan, *, devices: Sequence[Device], pid: int | None) -> list[Meter]:
    """The chosen meter, then those read beside it, all of them or none. Raises MeterError."""
    meters: list[Meter] = []
    try:
        for name in (choose_meter(plan, devices=devices).name, *plan.meter.also):
            meters.append(_open(name, plan, devices, pid))
    except BaseException:
        for meter in meters:
            meter.close()
        raise
    return meters


def _open(name: str, plan: Plan, devices: Sequence[Device], pid: int | None) -> Meter:
    meter = _module(name).open_meter(plan.meter, devices=devices, pid=pid)
    if not meter.devices():
        meter.close()
        raise MeterError(f"meter {name}", found="no device that it reads", expected="at least one")
    return meter


def unavailable_meters() -> dict[str, str | None]:
    """Every meter and why it cannot be used here, for all GPUs that are visible; None where it can."""
    return {name: _unavailable(name) for name in METERS}


def _unavailable(name: str) -> str | None:
    try:
        devices = vendor(name).resolve_gpus(None) if METERS[name].gpus else []
        return _module(name).unavailable(devices=devices)
    except (MeterError, MissingExtraError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 -- a vendor's library may raise anything, and other meters go on
        return f"{type(error).__name__}: {error}"


def driver_state(meter: str) -> DriverState:
    """The driver of the meter's GPUs and what each is set to. Raises MeterError where it cannot be asked."""
    if METERS[meter].gpus != "real":
        raise MeterError(f"meter {meter}", found="no driver of GPUs")
    return vendor(meter).driver_state()
