"""What is set on devices for the length of a run, and a file for each device that says what to put back, whatever ends the run."""

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from llem.errors import LlemError, MeasureError, PlanError, StoreError
from llem.meters import settings_module
from llem.meters.base import SettingsModule
from llem_events import boot_id
from llem_events.events import Device, DeviceSettingChanged

NOT_TOLD = "the driver does not tell"
Settings = Mapping[str, float]
Changes = list[DeviceSettingChanged]


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a device was set to before, and by which run; after a boot the driver knows nothing of it any more."""

    device: Device
    meter: str
    experiment_id: str
    boot_id: str
    before: dict[str, float | None]
    asked: dict[str, float]

    def __str__(self) -> str:
        asked = ", ".join(f"{setting} {value:g}" for setting, value in self.asked.items())
        return f"{self.device.name} {self.device.uuid}: {asked} of run {self.experiment_id}"


class PutBack(msgspec.Struct, frozen=True, kw_only=True):
    """What was put back, and what could not be, each with the reason."""

    changes: list[DeviceSettingChanged] = []
    devices: list[str] = []
    problems: list[str] = []


def check_settings(asked: Settings, devices: Sequence[Device], *, meter: str) -> None:
    """Raises LlemError where the devices cannot be set so; whether we may is known when it is tried."""
    if not asked:
        return
    if not devices:
        setting = next(iter(asked))
        raise PlanError(
            f"plan key devices.{setting}",
            found="no GPU that it could be set on",
            expected="at least one",
            hint='name one: --gpu 0, or devices.gpus = ["0"] in the plan',
        )
    module = settings_module(meter)
    with module.driver():
        for device in devices:
            for setting, value in asked.items():
                _check_range(module, device, setting, value)


def _check_range(module: SettingsModule, device: Device, setting: str, value: float) -> None:
    allowed = module.range_of(device, setting)
    if allowed is not None and not allowed[0] <= value <= allowed[1]:
        raise PlanError(
            f"plan key devices.{setting}",
            found=f"{value:g} for GPU {device.index} ({device.name})",
            expected=f"{allowed[0]:g} to {allowed[1]:g}",
        )


class Held:
    """A device's file, locked as long as this process lives, so that nobody puts back what is in use."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        """Raises MeasureError where another living process holds it, StoreError where it cannot be opened or made."""
        self._path = path
        self._fd = self._locked(path, create=create)
        while os.fstat(self._fd).st_nlink == 0:  # another has put back and forgotten it meanwhile
            os.close(self._fd)
            self._fd = self._locked(path, create=create)

    def kept(self) -> Kept | None:
        """What an earlier run left; None where it had not come to setting anything."""
        try:
            return msgspec.json.decode(os.pread(self._fd, 2**20, 0), type=Kept)
        except msgspec.MsgspecError:
            return None

    def keep(self, kept: Kept) -> None:
        """On the disk before anything is set."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, msgspec.json.encode(kept), 0)
        os.fsync(self._fd)

    def forget(self) -> None:
        """Nothing is left to put back, wherever the file is now."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            self._path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """The file stays for the next one."""
        os.close(self._fd)

    @staticmethod
    def _locked(path: Path, *, create: bool) -> int:
        words = {"found": "another run that has set it", "expected": "one run at a time"}
        return locked(path, create=create, device=path.stem, **words)


def locked(path: Path, *, create: bool = True, device: str, found: str, expected: str) -> int:
    """A file of a device that one process holds, until its descriptor is closed or it ends.

    Raises MeasureError, in these words, where another one does, StoreError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        if create:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be written", found=error.strerror) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise MeasureError(f"device {device}", found=found, expected=expected) from error
    return fd


class DeviceSettings:
    """The devices that this process has set. Everything it does is undone by `put_back`, also halfway."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: list[Held] = []

    def change(
        self, asked: Settings, devices: Sequence[Device], *, meter: str, experiment_id: str
    ) -> Changes:
        """Set all of it on every device, and read it back. Raises LlemError; then `put_back` is due."""
        module, changes = settings_module(meter), []
        with module.driver():
            for device in devices:
                held = Held(self._folder / file_name(device.host, device.uuid))
                self._held.append(held)
                _put_back_earlier(held)
                before = {setting: module.read(device, setting) for setting in asked}
                held.keep(
                    Kept(
                        device=device,
                        meter=meter,
                        experiment_id=experiment_id,
                        boot_id=boot_id(),
                        before=before,
                        asked=dict(asked),
                    )
                )
                self._set(module, device, asked)
                changes += [
                    _read_back(module, device, setting, before[setting], value)
                    for setting, value in asked.items()
                ]
        return changes

    def _set(self, module: SettingsModule, device: Device, asked: Settings) -> None:
        """A device that refuses the first of them has nothing to put back."""
        for number, (setting, value) in enumerate(asked.items()):
            try:
                module.write(device, setting, value)
            except LlemError:
                if number == 0:
                    self._held.pop().forget()
                raise

    def put_back(self) -> PutBack:
        """As it was before; a device that refuses keeps its file."""
        held, self._held = self._held, []
        return _put_back(held)


def _read_back(
    module: SettingsModule,
    device: Device,
    setting: str,
    before: float | None,
    asked: float | None,
    *,
    restored: bool = False,
) -> DeviceSettingChanged:
    """What the driver has made of it."""
    read_back = module.read(device, setting)
    return DeviceSettingChanged(
        device_uuid=device.uuid,
        setting=setting,
        before=before,
        asked=asked,
        read_back=read_back,
        reason=NOT_TOLD if read_back is None else None,
        restored=restored,
    )


def _put_back(held: Sequence[Held]) -> PutBack:
    done = PutBack()
    for each in held:
        kept = each.kept()
        try:
            if kept is not None and kept.boot_id == boot_id():
                done.changes.extend(_restored(kept))
                done.devices.append(str(kept))
            each.forget()
        except LlemError as error:
            done.problems.append(f"{kept} is still set: {error}")
            each.release()
    return done


def _restored(kept: Kept) -> Iterator[DeviceSettingChanged]:
    module = settings_module(kept.meter)
    with module.driver():
        for setting, before in kept.before.items():
            now = module.read(kept.device, setting)
            module.write(kept.device, setting, before)
            yield _read_back(module, kept.device, setting, now, before, restored=True)


def _put_back_earlier(held: Held) -> None:
    """What a run that was killed has left would else be taken for the device's own."""
    kept = held.kept()
    if kept is not None and kept.boot_id == boot_id():
        list(_restored(kept))


def file_name(host: str, uuid: str) -> str:
    """Of what is kept of a device."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{host}-{uuid}") + ".json"


def put_back_left(folder: Path) -> PutBack:
    """What runs on this machine have left, those that still run excepted."""
    return _put_back([held for held, _ in _left(folder)])


def left(folder: Path) -> list[Kept]:
    """The same, not yet put back."""
    found = []
    for held, kept in _left(folder):
        held.release()
        found += [kept] if kept.boot_id == boot_id() else []
    return found


def _left(folder: Path) -> Iterator[tuple[Held, Kept]]:
    """Of this boot, whatever the machine is called in this container, and of an earlier one of this machine."""
    for path in sorted(folder.glob("*.json")):
        held = _free(path)
        kept = None if held is None else held.kept()
        if held is not None and kept is not None and _is_here(kept):
            yield held, kept
        elif held is not None:
            held.release()


def _is_here(kept: Kept) -> bool:
    return kept.boot_id == boot_id() or kept.device.host == socket.gethostname()


def _free(path: Path) -> Held | None:
    try:
        return Held(path, create=False)
    except (MeasureError, StoreError):
        return None
