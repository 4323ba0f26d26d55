"""What simulated devices are set to: a file that all processes of a user share, as they share the real ones."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llem_events.events import Device

VARIABLE = "LLEM_SIMULATED_SETTINGS"
RANGES = {"power_limit_w": (1.0, 1000.0), "lock_clocks_mhz": (200.0, 2000.0)}
OWN = {"power_limit_w": 1000.0}
Settings = dict[str, dict[str, float]]  # UUID -> setting -> what is set


def _file() -> Path:
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(tempfile.gettempdir()) / f"llem-simulated-{os.getuid()}.json"


@contextmanager
def driver() -> Iterator[None]:
    """Nothing has to be opened."""
    yield


def range_of(device: Device, setting: str) -> tuple[float, float] | None:
    """The same of every device."""
    return RANGES[setting]


def read(device: Device, setting: str) -> float | None:
    """What is set, or the device's own limit; None of clocks that are not locked."""
    return _settings().get(device.uuid, {}).get(setting, OWN.get(setting))


def write(device: Device, setting: str, value: float | None) -> None:
    """Keep it, beside what other processes set meanwhile."""
    path = _file()
    with open(f"{path}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings = _settings()
        of_device = settings.setdefault(device.uuid, {})
        of_device.pop(setting, None)
        if value not in (None, OWN.get(setting)):
            of_device[setting] = float(value or 0)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(settings))
        unfinished.replace(path)


def _settings() -> Settings:
    try:
        found: Settings = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return found
