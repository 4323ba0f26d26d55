"""The newest calibration of each device and driver that can be relied on: a file for each device in the store, which the log can write anew."""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llem.errors import StoreError
from llem.measure.device_settings import file_name, locked
from llem.measure.windows import SamplerLink
from llem.store import Store
from llem.units import NS_PER_S
from llem_events import BackgroundWriter
from llem_events.events import Device, SensorCalibrated


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What one experiment found out of a device under one driver."""

    experiment_id: str
    calibrated_ns: int  # since 1970
    sensors: list[SensorCalibrated]

    @property
    def driver(self) -> str | None:
        """Its version."""
        return self.sensors[0].driver

    @property
    def device(self) -> tuple[str, str]:
        """Host and UUID."""
        return self.sensors[0].host, self.sensors[0].device_uuid

    @property
    def age_s(self) -> float:
        """By the wall clock; never negative, whatever was done to that."""
        return max(0.0, (time.time_ns() - self.calibrated_ns) / NS_PER_S)


def keep(store: Store, found: Iterable[SensorCalibrated], *, experiment_id: str, calibrated_ns: int) -> None:
    """Write what an experiment found, in the place of what it said before; the newest of each device and driver stays. Raises StoreError."""
    by_device: dict[tuple[str, str], list[SensorCalibrated]] = {}
    for each in found:
        by_device.setdefault((each.host, each.device_uuid), []).append(each)
    for device, sensors in by_device.items():
        path = store.calibrations_path / file_name(*device)
        usable = [each for each in sensors if each.reason is None]
        new = Kept(experiment_id=experiment_id, calibrated_ns=calibrated_ns, sensors=usable)
        others = [
            old
            for old in _read(path)
            if _is_there(old, store) and (old.experiment_id, old.device) != (experiment_id, device)
        ]
        _write(path, [*others, new] if usable else others)


@contextmanager
def claimed(store: Store, devices: Iterable[Device]) -> Iterator[None]:
    """Nobody else calibrates these devices into the store meanwhile. Raises MeasureError where somebody does, StoreError."""
    with ExitStack() as held:
        for device in devices:
            held.callback(os.close, _claim(store.create(), device))
        yield


def _claim(store: Store, device: Device) -> int:
    """The load of each of two calibrations would be unknown to the other."""
    path = store.path / f".calibrating-{file_name(device.host, device.uuid)}.lock"
    return locked(path, device=device.uuid, found="another llem calibrate of it", expected="one at a time")


def take(store: Store, *, source: Store) -> None:
    """What another store knows of calibrations that are in this one now, and that nothing is known of here. Raises StoreError."""
    here = {kept.experiment_id for kept in _all(store)}
    for kept in _all(source):
        if kept.experiment_id not in here and _is_there(kept, store):
            keep(store, kept.sensors, experiment_id=kept.experiment_id, calibrated_ns=kept.calibrated_ns)


def known(store: Store, device: Device, *, driver: str | None) -> Kept | None:
    """That of this device under this driver, of a MIG instance its GPU's; None where there is none, or its experiment was removed."""
    kept = _read(store.calibrations_path / file_name(device.host, device.parent_uuid or device.uuid))
    return next(
        (each for each in kept if each.driver == driver and _is_of(each, device) and _is_there(each, store)),
        None,
    )


def write_relied_on(
    log: BackgroundWriter, link: SamplerLink, *, experiment: Path, environment: dict[str, Any]
) -> None:
    """Write what the store of an experiment's folder knows of the sampler's devices under today's driver, with its origin and age; the link goes by it."""
    store = Store(experiment.parent.parent)
    version = (environment["hardware"]["cuda"] or {}).get("driver_version")
    for device in (*link.devices, *link.beside):
        kept = known(store, device, driver=version if device.kind in ("gpu", "mig") else None)
        if kept is None:
            continue
        for sensor in kept.sensors:
            told = msgspec.structs.replace(sensor, experiment_id=kept.experiment_id, age_s=kept.age_s)
            log.append(told, at_ns=time.monotonic_ns())
            link.rely_on(told)


def _is_there(kept: Kept, store: Store) -> bool:
    """Whoever removes an experiment wants nothing to rely on it."""
    return (store.log_path / kept.experiment_id).is_dir()


def _is_of(kept: Kept, device: Device) -> bool:
    """Names of files may fall together."""
    sensors_of = device.host, device.parent_uuid or device.uuid
    return all((each.host, each.device_uuid) == sensors_of for each in kept.sensors)


def _all(store: Store) -> list[Kept]:
    return [kept for path in sorted(store.calibrations_path.glob("*.json")) for kept in _read(path)]


def _read(path: Path) -> list[Kept]:
    """Nothing where there is no file, or one that nobody here wrote: the log can write it anew."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[Kept])
    except (OSError, msgspec.MsgspecError):
        return []
    return [each for each in found if each.sensors]


def _write(path: Path, found: Iterable[Kept]) -> None:
    """The newest of each device and driver: all of it or nothing, readable by its owner alone; no file for nothing."""
    by_age = sorted(found, key=lambda kept: kept.calibrated_ns)
    newest = {(kept.device, kept.driver): kept for kept in by_age}
    try:
        if not newest:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(list(newest.values())))
        Path(unfinished).replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written", found=error.strerror) from error
