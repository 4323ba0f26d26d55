"""Sensors that are calibrated on simulated GPUs: python -m tests.simulated_nvml.calibrated"""

import random
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llem.meters.nvml import NvmlMeter, resolve_gpus
from llem.results.calibration import LoadStep, LoadTrace, SensorCalibration, estimate, load_schedule
from llem.units import MJ_PER_J, MW_PER_W, NS_PER_S
from llem_events.events import Reading
from tests.simulated_nvml.build import Simulation, installed
from tests.simulated_nvml.scenario import Gpu, Scenario, uuid_of

HZ = 200.0
IDLE_W, LOAD_W = 70.0, 520.0


class Sensor(NamedTuple):
    """What is simulated, and what a calibration should say; seconds."""

    gpu: Gpu
    refresh_s: float
    window_s: float
    delay_s: float
    seen_share: float


def averaging(rng: random.Random) -> Sensor:
    """A trailing mean over 0.3 to 2 s, which is all that the device tells."""
    refresh_s, window_s, delay_s = rng.uniform(0.02, 0.25), rng.uniform(0.3, 2.0), rng.uniform(0.0, 0.1)
    device = gpu(refresh=(refresh_s, rng.uniform(0, refresh_s)), average_s=window_s, delay_s=delay_s)
    return Sensor(device, refresh_s, window_s, delay_s, 1.0)


def part_time(rng: random.Random) -> Sensor:
    """An instant power that looks at a share of every period."""
    refresh_s, share, delay_s = rng.uniform(0.05, 0.25), rng.uniform(0.15, 1.0), rng.uniform(0.0, 0.1)
    device = gpu(seen=(share, refresh_s), fields=frozenset({"instant", "energy"}), delay_s=delay_s)
    return Sensor(device, refresh_s, share * refresh_s, delay_s, share)


def low_pass(rng: random.Random) -> Sensor:
    """No mean over a window: it follows exponentially."""
    refresh_s, constant_s, delay_s = rng.uniform(0.02, 0.1), rng.uniform(0.05, 1.0), rng.uniform(0.0, 0.1)
    device = gpu(refresh=(refresh_s, rng.uniform(0, refresh_s)), low_pass_s=constant_s, delay_s=delay_s)
    return Sensor(device, refresh_s, constant_s, delay_s, 1.0)


def gpu(**sensor: object) -> Gpu:
    """One that a program loads, and that tells an averaged power alone, unless something else is said."""
    default = {"uuid": uuid_of(0), "fields": frozenset(), "load_w": (IDLE_W, LOAD_W)}
    return Gpu(**{**default, **sensor})


def traced(gpu: Gpu, *, hz: float = HZ, schedule: Sequence[LoadStep] | None = None) -> LoadTrace:
    """Readings of a GPU that follows a schedule of load."""
    with installed(Scenario(gpus=[gpu])) as nvml:
        meter = NvmlMeter(resolve_gpus(None), clock=nvml.clock)
        readings, busy = _followed(
            nvml, meter, gpu.uuid, schedule or load_schedule(), period_ns=round(NS_PER_S / hz)
        )
        meter.close()
    return LoadTrace(
        times_s=_column(readings, "at_ns", NS_PER_S),
        power_w=_column(readings, "power_mw", MW_PER_W),
        energy_j=_column(readings, "energy_mj", MJ_PER_J),
        busy_s=np.array(busy) / NS_PER_S,
        temperature_c=_column(readings, "temperature_c", 1),
        throttle_reasons=np.array([reading.throttle_reasons or 0 for reading in readings]),
        power_limit_w=gpu.limit_w,
    )


def _followed(
    nvml: Simulation, meter: NvmlMeter, uuid: str, schedule: Sequence[LoadStep], *, period_ns: int
) -> tuple[list[Reading], list[tuple[int, int]]]:
    """All readings, and when the load began and ended."""
    readings: list[Reading] = []
    busy: list[tuple[int, int]] = []
    due_ns = next_ns = nvml.clock.now_ns()
    for level, seconds in schedule:
        begun_ns = nvml.clock.now_ns()
        nvml.set_load(uuid, level)
        due_ns += round(seconds * NS_PER_S)
        while next_ns < due_ns:
            nvml.sleep(max(0, next_ns - nvml.clock.now_ns()) / NS_PER_S)
            readings.append(meter.read()[0])
            next_ns += period_ns
        nvml.sleep(max(0, due_ns - nvml.clock.now_ns()) / NS_PER_S)
        if level:
            busy.append((begun_ns, nvml.clock.now_ns()))
    return readings, busy


def _column(readings: Sequence[Reading], name: str, unit: float) -> np.ndarray:
    values = (getattr(reading, name) for reading in readings)
    return np.array([np.nan if value is None else value / unit for value in values])


def calibrated(sensor: Sensor) -> SensorCalibration:
    """What a calibration says of it."""
    return estimate(traced(sensor.gpu))


def main() -> None:
    """A line for each of some sensors of every kind: what it is, and what was found."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    for kind in (averaging, part_time, low_pass):
        for seed in range(count):
            sensor = kind(random.Random(seed))
            found = calibrated(sensor)
            values = (found.power_refresh_s, found.averaging_window_s, found.delay_s, found.seen_share)
            print(
                kind.__name__,
                found.averages,
                found.reason or "",
                f"{found.explained:.4f}",
                *sensor[1:],
                "|",
                *values,
                found.energy_refresh_s,
            )


if __name__ == "__main__":
    main()
