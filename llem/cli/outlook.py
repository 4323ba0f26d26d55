"""What a measurement will take, told before it: time, devices, meter and the size of its log."""

import os
from collections.abc import Sequence

from llem.cli.console import counted
from llem.errors import LlemError
from llem.measure import preflight
from llem.measure.time_limit import AROUND_RUN_S, planned_parts
from llem.meters import create_meters, require_meter
from llem.meters.base import default_hz
from llem.plan import Plan
from llem_events.events import MeteredDevice

SAMPLE_BYTES = 13.0  # of one device in the compressed log
DEVICES_SAID = 4
HOUR_S = 3600


def outlook(plan: Plan, command: Sequence[str], *, loads: int = 1) -> list[str]:
    """A line each of time and of what is read on this machine; the second says instead why nothing is."""
    try:
        devices = _devices(plan, command)
    except LlemError as error:
        return [_time(plan, [], bool(command), loads), f"it cannot be measured on this machine: {error}"]
    return [_time(plan, devices, bool(command), loads), _reading(plan, devices)]


def _time(plan: Plan, devices: Sequence[MeteredDevice], is_program: bool, loads: int) -> str:
    parts = planned_parts(plan, devices, is_program=is_program, loads=loads)
    told = ", ".join(f"{name} {seconds:g} s" for name, seconds in parts)
    least = sum(seconds for _, seconds in parts) + loads * AROUND_RUN_S
    unknown = "and the program" if is_program else "and loading"
    warm = "" if is_program else f", a warm-up of at most {plan.windows.warmup_max_s:g} s"
    drain = f", a drain of at most {plan.load.drain_s:g} s" if plan.is_served else ""
    several = f" for {loads} loads" if loads > 1 else ""
    return f"at least {least:.0f} s{several}: {told} {unknown}{warm}{drain}{' each' if loads > 1 else ''}"


def _reading(plan: Plan, devices: Sequence[MeteredDevice]) -> str:
    hz = plan.meter.sample_hz or default_hz(devices)
    names = list(map(_named, devices))
    more = f" and {len(names) - DEVICES_SAID} more" if len(names) > DEVICES_SAID else ""
    megabytes = SAMPLE_BYTES * hz * len(devices) * HOUR_S / 1e6
    return (
        f"{counted(len(devices), 'device')} read {hz:g} times a second: {', '.join(names[:DEVICES_SAID])}{more}; "
        f"an hour of samples is about {megabytes:.1f} MB of log"
    )


def _named(metered: MeteredDevice) -> str:
    """Of a process, which is not begun yet, what it is."""
    if metered.device.kind == "process":
        return "the CPU time of the process, an estimate"
    return f"{metered.device.uuid} ({metered.device.name})"


def _devices(plan: Plan, command: Sequence[str]) -> list[MeteredDevice]:
    """What the meters of the plan would read."""
    placements = preflight.place_server(plan) if plan.is_served else preflight.place(plan, command=command)
    gpus = list({gpu.uuid: gpu for placement in placements for gpu in placement.devices}.values())
    require_meter(plan, devices=gpus)
    meters = create_meters(plan, devices=gpus, pid=os.getpid())
    try:
        return [device for meter in meters for device in meter.devices()]
    finally:
        for meter in meters:
            meter.close()
