"""What a calibration of one GPU leaves in the log: its load as regions, and readings of a sensor that looks for 25 ms of every 101 ms."""

from functools import lru_cache

import numpy as np

from llem.results.calibration import REGION, load_schedule
from llem.results.sensor_response import Load
from llem_events import columns
from llem_events.events import (
    MeteredDevice,
    MeterStarted,
    ProcessCompleted,
    ProcessStarted,
    Reading,
    Region,
    RegionsReported,
    SamplingCompleted,
    WindowClosed,
    WindowOpened,
)
from tests.world import Dated, at, device, edges

HZ = 100.0
BEGAN_S, LASTS_S, ENDED_S = 10.2, 15.0, 26.0
IDLE_W, LOAD_W = 76.5, 512.3
REFRESH_S, LOOKS_S, LATE_S = 0.101, 0.025, 0.004
TICK_S, COUNTS = 0.1, 1.034  # of the counter, and how much it counts of what the power tells
FOREIGN_S = 0.5  # the average is of something that changes so often by itself


@lru_cache(1)
def loads() -> list[tuple[float, float]]:
    """When the load was on."""
    ends_s = BEGAN_S + np.cumsum([step.seconds for step in load_schedule(LASTS_S)])
    return [
        (float(end_s - step.seconds), float(end_s))
        for step, end_s in zip(load_schedule(LASTS_S), ends_s, strict=True)
        if step.level
    ]


def worker() -> list[Dated]:
    """The load program, as it is wrapped."""
    regions = [
        Region(index=index, name=REGION, process="4243-1", began_ns=at(began_s), ended_ns=at(ended_s))
        for index, (began_s, ended_s) in enumerate(loads())
    ]
    return [
        (0.5, ProcessStarted(process_index=0, devices=[device()], engine="command")),
        (10.0, WindowOpened(kind="measurement", edges=edges("GPU-0", 1_000_000, 10.0))),
        (ENDED_S, RegionsReported(regions=regions)),
        (ENDED_S, WindowClosed(kind="measurement", edges=edges("GPU-0", 5_080_000, ENDED_S))),
        (30.0, ProcessCompleted(process_index=0, exit_status=0)),
    ]


@lru_cache(1)
def sampler() -> list[Dated]:
    """Its samples, in one event a second."""
    at_s = np.arange(BEGAN_S - 0.15, BEGAN_S + LASTS_S + 1.0, 1 / HZ)
    rng, load = np.random.default_rng(1), Load.of(loads())
    looked_s = np.floor(at_s / REFRESH_S) * REFRESH_S
    noise_w = rng.normal(0, 0.4, int(at_s[-1] / REFRESH_S) + 1)[(at_s / REFRESH_S).astype(int)]
    power_w = IDLE_W + noise_w + (LOAD_W - IDLE_W) * load.mean(looked_s, LOOKS_S, LATE_S)
    ticked_s = np.floor(at_s / TICK_S) * TICK_S
    busy_s = np.interp(ticked_s, load.at_sec, load.busy_sec)
    energy_j = COUNTS * (IDLE_W * ticked_s + (LOAD_W - IDLE_W) * busy_s)
    foreign_w = rng.uniform(60, 600, int(at_s[-1] / FOREIGN_S) + 1)[(at_s / FOREIGN_S).astype(int)]
    heat_c = 80 - 40 * np.exp(-np.maximum(at_s - loads()[0][0], 0) / 60)
    readings = [
        Reading(
            at_ns=at(float(at_s[row])),
            power_mw=round(1e3 * power_w[row]),
            power_average_mw=round(1e3 * foreign_w[row]),
            energy_mj=round(1e3 * energy_j[row]),
            temperature_c=round(heat_c[row]),
            throttle_reasons=0,
        )
        for row in range(len(at_s))
    ]
    packed = [
        (
            11.0 + start / HZ,
            columns.pack(readings[start : start + int(HZ)], meter="nvml", device_uuid="GPU-0"),
        )
        for start in range(0, len(readings), int(HZ))
    ]
    metered = MeteredDevice(device=device(), energy_source="counter", counter_tick_ns=10**8)
    ended = SamplingCompleted(samples=len(readings), samples_dropped=0, deadlines_missed=0)
    started = MeterStarted(meter="nvml", process_index=0, sample_hz=HZ, devices=[metered])
    return [(0.2, started), *packed, (ENDED_S, ended)]
