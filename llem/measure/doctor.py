"""The doctor: what can be measured here, what stands in the way of a good figure, and the command that removes it."""

import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from llem.errors import LlemError
from llem.measure.device_settings import Kept, left
from llem.measure.environment import torch_cuda_version, torch_version
from llem.measure.known_calibrations import known
from llem.meters import choose_meter, create_meter, driver_state, unavailable_meters, vendor_of
from llem.meters.gpus import DriverState, GpuState
from llem.plan import MeterPlan, Plan
from llem.registry import METERS, install_hint, one_of
from llem.store import Store
from llem.units import MS_PER_S, NS_PER_MS, duration_in_words
from llem_events.events import Device, MeteredDevice, SensorCalibrated

Status = Literal["ok", "warn", "fail", "skipped"]
SAMPLE_BYTES = 20  # of the log, a sample, compressed: twice what recorded traces take
SAMPLE_HZ = 20
LOG_DAYS = 1
SYNC_LIMIT_S = 0.1  # a block is synced every second; a tenth of it must be enough
SYNC_BYTES = 256 * 1024  # the largest block of a steady measurement
SYNCS = 5
_METER_EXTRAS = [kind.extra for kind in METERS.values() if kind.extra]
NVIDIA = "nvml"  # whose driver says what disturbs a measurement
# display controllers, and processing accelerators
_PCI_CLASSES = ("0x03", "0x12")
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, what was found, why it matters, and what to do about it."""

    name: str
    status: Status
    found: str
    why: str
    fix: str | None = None  # a command where there is one


def gpu_checks(gpu: GpuState) -> list[Check]:
    """What can be read of a GPU, and what on it disturbs a measurement."""
    return [_sensors(gpu), _persistence(gpu), _other_processes(gpu), _clocks(gpu), _power_limit(gpu)]


def _name(gpu: GpuState, what: str) -> str:
    return f"gpu {gpu.device.index} {what}"


def _sensors(gpu: GpuState) -> Check:
    """Open the meter on this GPU alone, as a measurement would."""
    why = "a column that the device does not give is NULL in every result"
    devices = gpu.instances or [gpu.device]
    name = _name(gpu, "sensors")
    if not {device.uuid for device in devices} & {device.uuid for device in _visible(NVIDIA)}:
        return Check(name=name, status="skipped", found="hidden by CUDA_VISIBLE_DEVICES", why=why)
    try:
        meter = create_meter(Plan(meter=MeterPlan(name=NVIDIA)), devices=devices, pid=None)
    except LlemError as error:
        return Check(
            name=name, status="fail", found=str(error), why=why, fix="nvidia-smi -q, and dmesg | grep -i xid"
        )
    metered = meter.devices()
    meter.close()
    return _sensors_of(gpu, metered, why=why)


def _visible(meter: str = "auto") -> list[Device]:
    """The GPUs that a measurement with this meter would take."""
    try:
        return vendor_of(Plan(meter=MeterPlan(name=meter)), wraps_program=False).resolve_gpus(None)
    except LlemError:
        return []


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


def checks(store_path: Path) -> list[Check]:
    """Every check, none of which changes anything but a temporary file beside the store."""
    reasons = unavailable_meters()
    state = _driver_state()
    gpus = state.gpus if isinstance(state, DriverState) else []
    return [
        _driver(state),
        *_other_drivers(reasons),
        *(check for gpu in gpus for check in gpu_checks(gpu)),
        *(_calibration(gpu, state, Store(store_path)) for gpu in gpus if isinstance(state, DriverState)),
        *map(_left_set, left(Store(store_path).settings_path)),
        _torch(state if isinstance(state, DriverState) else None),
        _rapl(reasons["rapl"]),
        _meters(reasons),
        disk_space(store_path, devices=max(1, len(gpus))),
        disk_speed(store_path),
        time_synchronisation(),
    ]


def _calibration(gpu: GpuState, state: DriverState, store: Store) -> Check:
    """What a measurement into this store would rely on, for the GPU and this driver."""
    why = "without it nobody has looked whether its power sensor is as documented, and the bound of an energy holds only if it is"
    name = _name(gpu, "calibration")
    kept = known(store, gpu.device, driver=state.version)
    if kept is None:
        found = f"not calibrated under driver {state.version} in this store: llem calibrate"
        return Check(name=name, status="skipped", found=found, why=why)
    age = duration_in_words(kept.age_s)
    found = "; ".join([f"{age} ago in {kept.experiment_id}", *map(_seen_by, kept.sensors)])
    return Check(name=name, status="ok", found=found, why=why)


def _seen_by(sensor: SensorCalibrated) -> str:
    """The figures that others follow from, as far as they are known."""
    told = (
        ("every", sensor.power_refresh_s, MS_PER_S, "ms"),
        ("averages over", sensor.averaging_window_s, MS_PER_S, "ms"),
        ("late by", sensor.delay_s, MS_PER_S, "ms"),
        ("sees", sensor.seen_share, 100.0, "% of the time"),
        ("counter at", sensor.counter_over_power, 100.0, "% of it"),
    )
    known_figures = [
        f"{name} {estimate.value * factor:.4g} {unit}"
        for name, estimate, factor, unit in told
        if estimate.value is not None
    ]
    return f"{sensor.sensor.removesuffix('_mw').replace('_', ' ')} {', '.join(known_figures)}"


def _left_set(kept: Kept) -> Check:
    return Check(
        name=f"settings of gpu {kept.device.index}",
        status="warn",
        found=f"{kept}, which was killed",
        why="whatever runs on the device now is slowed down; results under these settings are not the card's",
        fix="llem doctor --restore, or the next llem measure",
    )


def _driver_state() -> DriverState | str:
    try:
        return driver_state(NVIDIA)
    except LlemError as error:
        return str(error)


def has_hardware(meter: str, pci: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether a display or compute device of the meter's vendor is on the bus."""
    wanted = METERS[meter].pci_vendor
    return any(
        _word(device / "vendor") == wanted and _word(device / "class").startswith(_PCI_CLASSES)
        for device in pci.glob("*")
    )


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _driver(state: DriverState | str) -> Check:
    why = "GPUs are read through the NVIDIA driver's NVML"
    if isinstance(state, DriverState):
        found = f"driver {state.version}, CUDA up to {state.cuda_version}, {len(state.gpus)} GPU(s)"
        return Check(name="driver", status="ok" if state.gpus else "warn", found=found, why=why)
    if has_hardware(NVIDIA):
        return Check(
            name="driver",
            status="fail",
            found=state,
            why=why,
            fix="install the NVIDIA driver, or start the container with --gpus all",
        )
    return Check(name="driver", status="skipped", found="no NVIDIA GPU on this machine", why=why)


def _other_drivers(reasons: Mapping[str, str | None]) -> list[Check]:
    """A check for each other vendor whose GPUs are on the bus, or whose meter's package is installed."""
    others = [name for name, kind in METERS.items() if kind.pci_vendor and name != NVIDIA]
    return [_vendor_driver(name, reasons[name]) for name in others if has_hardware(name) or not reasons[name]]


def _vendor_driver(meter: str, reason: str | None) -> Check:
    name, why = f"{meter} driver", f"GPUs on this machine are read by the {meter} meter"
    if reason:
        extra = METERS[meter].extra
        fix = install_hint(extra) if extra else None
        return Check(name=name, status="fail", found=reason, why=why, fix=fix)
    names = ", ".join(device.name for device in _visible(meter))
    return Check(name=name, status="ok", found=names, why=why)


def _torch(state: DriverState | None) -> Check:
    why = (
        "the transformers engine runs on torch, and only a CUDA build no newer than the driver can use a GPU"
    )
    version, built_for = torch_version(), torch_cuda_version()
    if version is None:
        return Check(name="torch", status="warn", found="not installed", why=why, fix=install_hint("torch"))
    if built_for is None:
        status: Status = "warn" if state and state.gpus else "ok"
        fix = "install a CUDA build of torch, no newer than the driver" if status == "warn" else None
        return Check(name="torch", status=status, found=f"{version}, without CUDA", why=why, fix=fix)
    found = f"{version} for CUDA {built_for}"
    if state and state.cuda_version and _major(built_for) > _major(state.cuda_version):
        fix = f"update the driver, or install a torch for CUDA {state.cuda_version}"
        return Check(
            name="torch",
            status="fail",
            found=f"{found}, driver runs up to {state.cuda_version}",
            why=why,
            fix=fix,
        )
    return Check(name="torch", status="ok", found=found, why=why)


def _major(version: str) -> int:
    """CUDA's minor versions are compatible with each other."""
    return int(version.partition(".")[0])


def _rapl(reason: str | None) -> Check:
    why = "the CPU's share of the energy is read from RAPL; without it, it is estimated or left out"
    if reason is None:
        return Check(name="rapl", status="ok", found="readable", why=why)
    if "Permission denied" in reason:
        return Check(
            name="rapl",
            status="warn",
            found=reason,
            why=why,
            fix="sudo chmod -R a+r /sys/class/powercap/intel-rapl",
        )
    return Check(name="rapl", status="skipped", found=reason, why=why)


def _meters(reasons: Mapping[str, str | None]) -> Check:
    why = "--meter auto takes the best meter that can be read; an estimate is labelled as one in every result"
    chosen = choose_meter(Plan(), devices=_visible()).name
    usable = [name for name, reason in reasons.items() if reason is None]
    gpus = next((name for name in usable if METERS[name].gpus == "real"), None)
    together = f"; both of GPUs and of the CPU: {gpus},rapl" if gpus and "rapl" in usable else ""
    status: Status = "warn" if chosen == "estimate" else "ok"
    fix = (
        f"a driver, RAPL or the {one_of(*_METER_EXTRAS)} extra would measure (see the lines above)"
        if chosen == "estimate"
        else None
    )
    return Check(
        name="meters",
        status=status,
        found=f"auto takes {chosen}; usable: {', '.join(usable)}{together}",
        why=why,
        fix=fix,
    )


def disk_space(store_path: Path, *, devices: int) -> Check:
    """A day of samples of every device must fit."""
    why = "a full disk ends a measurement"
    needed = SAMPLE_BYTES * SAMPLE_HZ * devices * LOG_DAYS * 86_400
    free = shutil.disk_usage(_existing(store_path)).free
    found = f"{free / 1e9:.1f} GB free, {needed / 1e9:.2f} GB is a day's log of {devices} device(s)"
    if free >= 2 * needed:
        return Check(name="disk space", status="ok", found=found, why=why)
    status: Status = "fail" if free < needed / 24 else "warn"
    return Check(
        name="disk space",
        status=status,
        found=found,
        why=why,
        fix="free some space, or choose another --store",
    )


def disk_speed(store_path: Path) -> Check:
    """Time of syncing a block, the slowest of a few."""
    why = "a block is made durable every second; a slow sync would hold the log up"
    try:
        slowest_s = _slowest_sync_s(_existing(store_path))
    except OSError as error:
        return Check(
            name="disk speed",
            status="fail",
            found=f"{store_path}: {error.strerror}",
            why=why,
            fix="choose a --store that can be written",
        )
    found = f"a block of {SYNC_BYTES // 1024} KiB is durable after {slowest_s * 1000:.1f} ms at worst"
    if slowest_s <= SYNC_LIMIT_S:
        return Check(name="disk speed", status="ok", found=found, why=why)
    return Check(
        name="disk speed",
        status="warn",
        found=found,
        why=why,
        fix="choose a --store on a local disk, or set log.sync=close",
    )


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _slowest_sync_s(folder: Path) -> float:
    block, times_s = os.urandom(SYNC_BYTES), []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            started_s = time.perf_counter()
            file.write(block)
            file.flush()
            os.fdatasync(file.fileno())
            times_s.append(time.perf_counter() - started_s)
    return max(times_s)


def time_synchronisation() -> Check:
    """Ask the kernel whether its clock is disciplined."""
    why = "results of several hosts are put in order by wall-clock time"
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return Check(name="time", status="skipped", found="the system does not say", why=why)
    state = adjtimex(ctypes.create_string_buffer(512))  # struct timex with no mode set: only asks
    if state == _TIME_ERROR:
        return Check(
            name="time",
            status="warn",
            found="the clock is not synchronised",
            why=why,
            fix="sudo timedatectl set-ntp true",
        )
    if state < 0:
        return Check(name="time", status="skipped", found="the system does not say", why=why)
    return Check(name="time", status="ok", found="the clock is synchronised", why=why)
