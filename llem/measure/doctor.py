"""The doctor: what can be measured here, what stands in the way of a good figure, and the command that removes it."""

import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from llem.errors import LlemError
from llem.measure.check import Check, Status
from llem.measure.gpu_checks import gpu_checks
from llem.measure.torch_build import torch_cuda_version, torch_version
from llem.meters import choose_meter, driver_state, unavailable_meters
from llem.meters.gpu_state import DriverState
from llem.plan import Plan

SAMPLE_BYTES = 20  # of the log, a sample, compressed: twice what recorded traces take
SAMPLE_HZ = 20
LOG_DAYS = 1
SYNC_LIMIT_S = 0.1  # a block is synced every second; a tenth of it must be enough
SYNC_BYTES = 256 * 1024  # the largest block of a steady measurement
SYNCS = 5
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def checks(store_path: Path) -> list[Check]:
    """Every check, none of which changes anything but a temporary file beside the store."""
    reasons = unavailable_meters()
    state = _driver_state()
    gpus = state.gpus if isinstance(state, DriverState) else []
    return [
        _driver(state),
        *(check for gpu in gpus for check in gpu_checks(gpu)),
        _torch(state if isinstance(state, DriverState) else None),
        _rapl(reasons["rapl"]),
        _meters(reasons),
        disk_space(store_path, devices=max(1, len(gpus))),
        disk_speed(store_path),
        time_synchronisation(),
    ]


def _driver_state() -> DriverState | str:
    try:
        return driver_state()
    except LlemError as error:
        return str(error)


def has_nvidia_hardware(pci: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether a display or compute device of NVIDIA (0x10de) is on the bus."""
    return any(
        _word(device / "vendor") == "0x10de" and _word(device / "class").startswith("0x03")
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
    if has_nvidia_hardware():
        return Check(
            name="driver",
            status="fail",
            found=state,
            why=why,
            fix="install the NVIDIA driver, or start the container with --gpus all",
        )
    return Check(name="driver", status="skipped", found="no NVIDIA GPU on this machine", why=why)


def _torch(state: DriverState | None) -> Check:
    why = (
        "the transformers engine runs on torch, and only a CUDA build no newer than the driver can use a GPU"
    )
    version, built_for = torch_version(), torch_cuda_version()
    if version is None:
        return Check(
            name="torch", status="warn", found="not installed", why=why, fix="pip install 'llem[torch]'"
        )
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
    chosen = choose_meter(Plan()).name
    usable = ", ".join(name for name, reason in reasons.items() if reason is None)
    status: Status = "warn" if chosen == "estimate" else "ok"
    fix = (
        "a driver, RAPL or the zeus extra would measure (see the lines above)"
        if chosen == "estimate"
        else None
    )
    return Check(
        name="meters", status=status, found=f"auto takes {chosen}; usable: {usable}", why=why, fix=fix
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
