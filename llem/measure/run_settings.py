"""The settings of one run's devices: what earlier runs have left is put back first, then the plan's are set, and at the end undone."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import msgspec

from llem.measure.device_settings import PutBack, put_back_left
from llem.measure.guardian import Guardian, guardian
from llem.measure.preflight import Placement
from llem.meters import vendor_name
from llem.plan import Plan
from llem.store import Store
from llem.units import MW_PER_W
from llem_events.events import Device, DeviceSettingChanged, Event, WarningRaised

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class RunSettings:
    """`placements` have the devices as they are now set, `events` is what the log has to say of it."""

    placements: Sequence[Placement]
    events: list[Event] = field(default_factory=list)
    guardian: Guardian | None = None

    def put_back(self) -> list[Event]:
        """Events of what was put back, and warnings of what could not be."""
        return [] if self.guardian is None else _told(self.guardian.put_back())


@contextmanager
def devices_set(
    plan: Plan,
    store: Store,
    placements: Sequence[Placement],
    *,
    command: Sequence[str],
    experiment_id: str,
) -> Iterator[RunSettings]:
    """The devices as the plan sets them, for the length of a block. Raises MeasureError where one refuses."""
    asked = plan.devices.settings
    if not asked:
        yield RunSettings(placements)
        return
    devices = {device.uuid: device for placement in placements for device in placement.devices}
    with guardian() as started:
        changes = started.set(
            asked,
            list(devices.values()),
            meter=vendor_name(plan, wraps_program=bool(command)),
            folder=store.settings_path,
            experiment_id=experiment_id,
        )
        yield RunSettings(_as_set(placements, changes), [*changes], started)


def put_back_earlier(store: Store) -> list[Event]:
    """What runs that were killed together with their guardians have left; warnings of what could not be put back."""
    done = put_back_left(store.settings_path)
    for device in done.devices:
        logger.warning("put back what had been left: %s", device)
    return [event for event in _told(done) if isinstance(event, WarningRaised)]


def _told(done: PutBack) -> list[Event]:
    for problem in done.problems:
        logger.warning("%s", problem)
    return [
        *done.changes,
        *(WarningRaised(code="settings_left", text=problem) for problem in done.problems),
    ]


def _as_set(placements: Sequence[Placement], changes: Sequence[DeviceSettingChanged]) -> list[Placement]:
    limits_w = {
        change.device_uuid: change.read_back
        for change in changes
        if change.setting == "power_limit_w" and change.read_back is not None
    }
    return [
        replace(placement, devices=[_limited(device, limits_w) for device in placement.devices])
        for placement in placements
    ]


def _limited(device: Device, limits_w: Mapping[str, float]) -> Device:
    limit_w = limits_w.get(device.uuid)
    return (
        device
        if limit_w is None
        else msgspec.structs.replace(device, power_limit_mw=round(limit_w * MW_PER_W))
    )
