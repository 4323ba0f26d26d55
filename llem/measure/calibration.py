"""Calibrates the power sensors of devices: an experiment whose load is known, and what its log says of the sensors."""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from llem.errors import LlemError, MeasureError
from llem.measure import preflight
from llem.measure.calibration_load import LOADS, MODULE, simulated_driver, simulated_work
from llem.measure.known_calibrations import claimed, keep
from llem.measure.outcome import Outcome
from llem.measure.supervisor import Progress, measure
from llem.meters import DriverState, MeterChoice, driver_state, require_meter
from llem.plan import Plan
from llem.plan_file import resolve_plan
from llem.registry import METERS, install_hint, one_of
from llem.results.calibration import REGION, LoadTrace, SensorCalibration, estimate, load_schedule
from llem.store import SEGMENT_SUFFIX, Store
from llem.units import MJ_PER_J, MW_PER_W
from llem_events import LogError, SegmentReader, columns, unpack
from llem_events.events import (
    Device,
    Estimated,
    Event,
    MeteredDevice,
    MeterStarted,
    Region,
    RegionsReported,
    SamplesTaken,
    SensorCalibrated,
    WarningRaised,
)

DEFAULT_S = 60.0
SHORTEST_S, LONGEST_S = 5, 600
SAMPLE_HZ = 100.0  # as often as a sampler can
SENSORS = ("power_mw", "power_average_mw")
NAME = "calibration"
ESTIMATING = Progress(
    stage="finding out what the sensors saw",
    detail="",
    output_tokens=0,
    requests=0,
    tokens_per_second=None,
    output_tokens_per_second=None,
    power_w=None,
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to calibrate, and how."""

    gpus: list[str] | None = None
    meter: str = "auto"
    load: str = "torch"
    seconds: float = DEFAULT_S

    @property
    def plan(self) -> Plan:
        """An experiment that reads as often as it can, and does nothing but what the schedule says. Raises PlanError."""
        options = {
            "name": NAME,
            "devices.gpus": self.gpus,
            "meter.name": self.meter,
            "meter.sample_hz": SAMPLE_HZ,
            "windows.baseline_s": 0.0,
            "windows.guard_s": 0.0,
        }
        return resolve_plan(None, options=options)

    def command(self, devices: Sequence[Device] = ()) -> list[str]:
        """The program that is their load."""
        uuids = [device.uuid for device in devices]
        return [sys.executable, "-m", MODULE, self.load, f"{self.seconds:g}", *uuids]

    @property
    def duration_s(self) -> float:
        """Of the load."""
        return sum(step.seconds for step in load_schedule(self.seconds))


def check(wanted: Wanted) -> Sequence[Device]:
    """The devices that would be calibrated. Raises LlemError where that would say nothing."""
    _check_load(wanted)
    preflight.check_plan(wanted.plan, command=wanted.command())
    places = preflight.place(wanted.plan, command=wanted.command())
    devices = [device for each in places for device in each.devices]
    if require_meter(wanted.plan, devices=devices).name == "estimate":
        raise MeasureError(
            "nothing to calibrate",
            found="an estimate, which reads no sensor",
            expected="a meter that reads one",
        )
    if instance := next((device for device in devices if device.kind == "mig"), None):
        raise MeasureError(
            f"the sensors of MIG instance {instance.uuid} are its GPU's",
            found="a load on a part of that",
            expected="whole GPUs",
            hint="calibrate it with MIG off",
        )
    if busy := busy_devices(devices):
        device, pids = next(iter(busy.items()))
        raise MeasureError(
            f"{device} is in use, so that its power is not that of a known load",
            found=f"process {', '.join(map(str, pids))}",
            expected="nobody on it",
            hint="`llem doctor` names who is there; --gpu takes others",
        )
    if wanted.load == "simulated":
        # It says now what cannot be loaded.
        simulated_work([device.uuid for device in devices])
    return devices


def _check_load(wanted: Wanted) -> None:
    if wanted.load not in LOADS:
        raise MeasureError("load", found=repr(wanted.load), expected=one_of(*LOADS))
    if wanted.load == "torch" and importlib.util.find_spec("torch") is None:
        raise MeasureError("load torch", found="no package torch", hint=install_hint("torch"))
    if wanted.load == "simulated":
        simulated_driver()


def calibrate(
    wanted: Wanted,
    store: Store,
    *,
    on_start: Callable[[str, MeterChoice], None] = lambda experiment_id, meter: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Run the load beside the sampler, write what it says of the sensors, and keep what later runs may rely on.

    Raises LlemError, or KeyboardInterrupt for a signal, before anything is started.
    """
    devices = check(wanted)
    found: list[SensorCalibrated] = []

    def conclude(folder: Path) -> Sequence[Event]:
        on_progress(ESTIMATING)
        try:
            found.extend(conclusions(folder))
        except (LogError, OSError) as error:
            return [WarningRaised(code="not_calibrated", text=f"the log cannot be read: {error}")]
        return found

    with claimed(store, devices):
        outcome = measure(
            wanted.plan,
            store,
            command=wanted.command(devices),
            on_start=on_start,
            on_progress=on_progress,
            conclude=conclude,
        )
    if outcome.folder is not None and outcome.is_success:
        keep(store, found, experiment_id=outcome.experiment_id, calibrated_ns=time.time_ns())
    return outcome


def busy_devices(devices: Sequence[Device]) -> dict[str, list[int]]:
    """UUID -> processes that have the GPU open; nothing of one whose driver does not say."""
    wanted = {device.uuid for device in devices}
    return {
        gpu.device.uuid: gpu.process_ids
        for state in _drivers(devices)
        for gpu in state.gpus
        if gpu.process_ids and gpu.device.uuid in wanted
    }


def _drivers(devices: Sequence[Device]) -> Iterator[DriverState]:
    """Those of GPUs, as far as they answer."""
    for name, kind in METERS.items():
        if kind.gpus == "real" and any(device.kind == "gpu" for device in devices):
            with contextlib.suppress(LlemError):
                yield driver_state(name)


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What the segments of a calibration hold."""

    devices: list[MeteredDevice] = []
    samples: dict[str, list[SamplesTaken]] = {}  # by UUID
    loads: dict[int, Region] = {}  # when the load was on; what is said last of one holds

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Of all segments in the folder. Raises LogError, OSError."""
        found = cls()
        for path in sorted(folder.glob(f"*{SEGMENT_SUFFIX}")):
            with SegmentReader(path) as reader:
                for block in reader.blocks():
                    for envelope in reader.events(block):
                        found._take(unpack(envelope))
        return found

    def _take(self, event: object) -> None:
        match event:
            case MeterStarted(devices=devices):
                self.devices.extend(devices)
            case SamplesTaken(device_uuid=uuid):
                self.samples.setdefault(uuid, []).append(event)
            case RegionsReported(regions=regions):
                self.loads.update((region.index, region) for region in regions if region.name == REGION)

    @property
    def busy_ns(self) -> list[tuple[int, int]]:
        """Each time that the load was on."""
        return [(load.began_ns, load.ended_ns) for load in self.loads.values() if load.ended_ns is not None]


def conclusions(folder: Path) -> list[SensorCalibrated]:
    """What the log of a calibration says of every power sensor of its devices. Raises LogError, OSError."""
    log = Log.of(folder)
    devices = [metered.device for metered in log.devices]
    busy = busy_devices(devices)
    drivers = {gpu.device.uuid: state.version for state in _drivers(devices) for gpu in state.gpus}
    return [
        _told(
            SensorCalibrated(
                host=metered.device.host,
                device_uuid=metered.device.uuid,
                driver=drivers.get(metered.device.uuid),
                sensor=sensor,
                others_busy=trace.others_busy,
            ),
            estimate(trace),
        )
        for metered in log.devices
        for sensor, trace in _traces(log, metered, others_busy=metered.device.uuid in busy)
    ]


def _traces(log: Log, metered: MeteredDevice, *, others_busy: bool) -> Iterator[tuple[str, LoadTrace]]:
    """Each column of power that was read, with the load beside it."""
    read = columns.unpack_all(log.samples.get(metered.device.uuid, []))
    at_ns = read["at_ns"].values
    order = np.argsort(at_ns, kind="stable")
    floats = {name: column.floats()[order] for name, column in read.items()}
    for sensor in SENSORS:
        if not np.isnan(floats[sensor]).all():
            trace = LoadTrace.of(
                at_ns[order],
                power_w=floats[sensor] / MW_PER_W,
                energy_j=floats["energy_mj"] / MJ_PER_J,
                temperature_c=floats["temperature_c"],
                throttle_reasons=floats["throttle_reasons"],
                busy_ns=log.busy_ns,
                others_busy=others_busy,
                power_limit_mw=metered.device.power_limit_mw,
            )
            yield sensor, trace


def _told(about: SensorCalibrated, found: SensorCalibration) -> SensorCalibrated:
    estimates = {
        name: Estimated(value=each.value, low=each.low, high=each.high, reason=each.reason)
        for name, each in found.estimates.items()
    }
    return msgspec.structs.replace(
        about, reason=found.reason, averages=found.averages, explained=found.explained, **estimates
    )
