"""The doctor's checks of one GPU."""

import os
from collections.abc import Sequence

from llem.errors import LlemError
from llem.measure.check import Check, Status
from llem.meters import create_meter, resolve_gpus
from llem.meters.gpu_state import GpuState
from llem.plan import MeterPlan, Plan
from llem.units import NS_PER_MS
from llem_events.events import MeteredDevice


def gpu_checks(gpu: GpuState) -> list[Check]:
    """What can be read of a GPU, and what on it disturbs a measurement."""
    return [_sensors(gpu), _persistence(gpu), _other_processes(gpu), _clocks(gpu), _power_limit(gpu)]


def _name(gpu: GpuState, what: str) -> str:
    return f"gpu {gpu.device.index} {what}"


def _sensors(gpu: GpuState) -> Check:
    """Open the meter on this GPU alone, as a measurement would."""
    why = "a column that the device does not give is NULL in every result"
    uuids = [instance.uuid for instance in gpu.instances] or [gpu.device.uuid]
    name = _name(gpu, "sensors")
    if not set(uuids) & _visible():
        return Check(name=name, status="skipped", found="hidden by CUDA_VISIBLE_DEVICES", why=why)
    try:
        meter = create_meter(Plan(meter=MeterPlan(name="nvml")), gpus=uuids, pid=None)
    except LlemError as error:
        return Check(
            name=name, status="fail", found=str(error), why=why, fix="nvidia-smi -q, and dmesg | grep -i xid"
        )
    metered = meter.devices()
    meter.close()
    return _sensors_of(gpu, metered, why=why)


def _visible() -> set[str]:
    try:
        return {device.uuid for device in resolve_gpus(None)}
    except LlemError:
        return set()


def _sensors_of(gpu: GpuState, metered: Sequence[MeteredDevice], *, why: str) -> Check:
    first = metered[0]
    denied = "no permission" in first.missing.values()
    found = "; ".join([gpu.device.name, *_names(gpu), *_measured(first)])
    fix = "check the permissions of /dev/nvidia*, or ask the administrator" if denied else None
    return Check(
        name=_name(gpu, "sensors"), status=_trust(first, denied=denied), found=found, why=why, fix=fix
    )


def _trust(metered: MeteredDevice, *, denied: bool) -> Status:
    if metered.energy_source is None:
        return "fail"
    return "warn" if denied or metered.energy_source != "counter" else "ok"


def _names(gpu: GpuState) -> list[str]:
    """What the GPU, or each of its instances, is called by."""
    if not gpu.instances:
        return [gpu.device.uuid]
    names = [f"{instance.mig_profile} {instance.uuid}" for instance in gpu.instances]
    return [*names, "the energy of an instance is its whole GPU's"]


def _measured(metered: MeteredDevice) -> list[str]:
    tick_ns = metered.counter_tick_ns
    tick = "no tick measured" if tick_ns is None else f"ticks every {tick_ns / NS_PER_MS:.0f} ms"
    source, kind = metered.energy_source or "not measured", metered.power_kind or "not measured"
    return [
        f"energy {source} ({tick})",
        f"power {kind}",
        *(f"{name}: {reason}" for name, reason in metered.missing.items()),
    ]


def _persistence(gpu: GpuState) -> Check:
    why = "without it the driver unloads between programs: the energy counter restarts and the first run pays for loading"
    name, fix = _name(gpu, "persistence mode"), f"sudo nvidia-smi -i {gpu.device.index} -pm 1"
    if gpu.persistence_enabled is None:
        return Check(name=name, status="skipped", found="the driver does not say", why=why)
    if gpu.persistence_enabled:
        return Check(name=name, status="ok", found="on", why=why)
    return Check(name=name, status="warn", found="off", why=why, fix=fix)


def _other_processes(gpu: GpuState) -> Check:
    why = "the counter measures the whole GPU: what others use would be counted as this model's"
    name = _name(gpu, "other processes")
    if gpu.process_ids is None:
        return Check(name=name, status="skipped", found="the driver does not say", why=why)
    others = [pid for pid in gpu.process_ids if pid != os.getpid()]
    if not others:
        return Check(name=name, status="ok", found="none", why=why)
    shown = ", ".join(map(str, others))
    return Check(
        name=name,
        status="warn",
        found=f"{len(others)}: pid {shown}",
        why=why,
        fix=f"ps -fp {','.join(map(str, others))}, then stop what is not needed",
    )


def _clocks(gpu: GpuState) -> Check:
    """NVML has no way to ask for a lock; an idle GPU whose clock has fallen is certainly not locked."""
    why = "clocks that follow heat and load make two runs differ; locked clocks make them comparable"
    name, now, most = _name(gpu, "clocks"), gpu.sm_clock_mhz, gpu.sm_clock_max_mhz
    if now is None or most is None:
        return Check(name=name, status="skipped", found="the driver does not say", why=why)
    found = f"SM at {now} of {most} MHz"
    if now < most / 2:
        fix = f"sudo nvidia-smi -i {gpu.device.index} -lgc {round(most * 0.8)}"
        return Check(name=name, status="warn", found=f"{found}: not locked", why=why, fix=fix)
    return Check(
        name=name, status="ok", found=f"{found}; the driver does not say whether they are locked", why=why
    )


def _power_limit(gpu: GpuState) -> Check:
    why = "a lowered limit slows the GPU and changes joules per token; results under it are not the card's"
    name, limit_w, default_w = _name(gpu, "power limit"), gpu.power_limit_w, gpu.default_power_limit_w
    if limit_w is None or default_w is None:
        return Check(name=name, status="skipped", found="the driver does not say", why=why)
    found = f"{limit_w:.0f} W of {default_w:.0f} W"
    if limit_w >= default_w:
        return Check(name=name, status="ok", found=found, why=why)
    return Check(
        name=name,
        status="warn",
        found=found,
        why=why,
        fix=f"sudo nvidia-smi -i {gpu.device.index} -pl {default_w:.0f}",
    )
