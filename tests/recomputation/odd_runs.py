"""Experiments as odd as they come, from a seed: shared devices, windows of other lengths, missing parts; written by the real writer."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from llem.importing import import_result
from llem.store import Store
from llem_events import Reading, columns
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    Device,
    EnergyEdge,
    Event,
    ExperimentInterrupted,
    MeteredDevice,
    MeterStarted,
    ProcessCompleted,
    ProcessStarted,
    Request,
    RequestsCompleted,
    SamplingCompleted,
    WarmupCompleted,
    WindowClosed,
    WindowOpened,
)
from tests.world import OFFSET_NS, ORIGIN_NS, Dated, at, model, supervisor, write

HZ = 4
HOSTS = {"alpha": 0, "beta": 1_234_567_891}  # how far the host's wall clock is ahead, in nanoseconds


@dataclass(frozen=True)
class OddDevice:
    """A device with a power curve of its own; whatever it lacks, it lacks in every process."""

    device: Device
    base_mj: int
    watts: float
    swing_w: float
    counter: bool
    power: bool
    throttles: bool
    idle_w: float | None

    def counter_mj(self, second: float) -> int:
        """The energy counter, which never falls."""
        swung = self.swing_w * (second - math.sin(second))
        return self.base_mj + round(1000 * (self.watts * second + swung))

    def power_mw(self, second: float) -> int:
        """What the counter's slope is."""
        return round(1000 * (self.watts + self.swing_w * (1 - math.cos(second))))


@dataclass(frozen=True)
class OddProcess:
    """What one worker does, and what of it is missing."""

    index: int
    host: str
    devices: Sequence[OddDevice]
    windows: Sequence[tuple[float, float]]
    wraps_program: bool
    model_known: bool
    baseline: bool
    completed: bool
    unread_edges: bool
    requests: list[Request] = field(default_factory=list)


def write_run(store: Store, seed: int) -> str:
    """One experiment; its id."""
    random = Random(seed)
    experiment_id = f"odd-{seed:04}"
    pool = {host: [_device(random, host, number) for number in range(3)] for host in HOSTS}
    count = random.randint(1, 4)
    expected = count + random.choice((0, 0, 1))
    indices = sorted(random.sample(range(expected), count))
    wraps = random.random() < 0.1
    runs = [_process(random, index, pool, wraps=wraps) for index in indices]
    interrupted = ExperimentInterrupted(reason="Ctrl-C", processes_completed=count, processes_failed=0)
    supervisor(
        store,
        processes=expected,
        experiment_id=experiment_id,
        end=interrupted if random.random() < 0.1 else None,
    )
    for run in runs:
        header = {
            "experiment_id": experiment_id,
            "host": run.host,
            "boot_id": f"boot of {run.host}",
            "wall_ns": ORIGIN_NS + OFFSET_NS + HOSTS[run.host],
        }
        write(store, _worker(random, run), role="worker", index=run.index, seal=run.completed, **header)
        write(store, _sampler(run), role="sampler", index=run.index, **header)
    return experiment_id


def _device(random: Random, host: str, number: int) -> OddDevice:
    memory = random.choice((None, 85_520_809_984, 25_769_803_776))
    kind = random.choice(("gpu", "gpu", "cpu_package"))
    described = Device(
        host=host,
        uuid=f"{kind}-{number}",
        index=number,
        name="NVIDIA H100 80GB HBM3",
        kind=kind,
        memory_bytes=memory,
        power_limit_mw=700_000,
    )
    return OddDevice(
        device=described,
        base_mj=random.randrange(10**12),
        watts=random.uniform(20, 600),
        swing_w=random.uniform(0, 50),
        counter=random.random() < 0.75,
        power=random.random() < 0.9,
        throttles=random.random() < 0.2,
        idle_w=None if random.random() < 0.1 else random.uniform(5, 120),
    )


def _process(random: Random, index: int, pool: dict[str, list[OddDevice]], *, wraps: bool) -> OddProcess:
    host = random.choice(("alpha", "alpha", "alpha", "beta"))
    devices = random.sample(pool[host], random.choice((0, 1, 1, 1, 1, 2)))
    windows = _windows(random)
    run = OddProcess(
        index=index,
        host=host,
        devices=devices,
        windows=windows,
        wraps_program=wraps,
        model_known=random.random() < 0.8,
        baseline=random.random() < 0.9,
        completed=random.random() < 0.9,
        unread_edges=random.random() < 0.2,
    )
    if not wraps:
        run.requests.extend(_requests(random, index, windows))
    return run


def _windows(random: Random) -> list[tuple[float, float]]:
    """One to three, in nanoseconds of any parity, with pauses between them."""
    found, second = [], 10 + random.uniform(0, 3)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        end = second + random.uniform(0.5, 12)
        found.append((second, end))
        second = end + random.uniform(0.1, 4)
    return found


def _requests(random: Random, index: int, windows: Sequence[tuple[float, float]]) -> list[Request]:
    numbers = range(random.choice((0, 3, 10, 25)))
    return [_request(random, 1000 * index + number, random.choice(windows)) for number in numbers]


def _request(random: Random, number: int, window: tuple[float, float]) -> Request:
    """Most within their window, some over its edge; whole, failed, stopped, without times, or in chunks."""
    arrival = random.uniform(window[0], window[1])
    tokens = random.choice((0, 1, 2, 3, 8, 40))
    step = random.uniform(0.001, 0.05)
    times = [at(arrival + 0.02 + step * (place + random.random() / 2)) for place in range(tokens)]
    reason = random.choice(("length", "length", "length", "eos", "stopped", "error"))
    fields: dict[str, Any] = {"token_times_ns": times}
    if tokens and random.random() < 0.15:
        half = tokens // 2
        fields = {
            "chunk_times_ns": [times[0], times[-1]],
            "chunk_tokens": [half, random.choice((None, tokens - half))],
        }
    elif tokens and random.random() < 0.1:
        fields = {"times_reason": "not asked for"}
    return Request(
        request_id=number,
        batch_index=number // 4,
        batch_size=4,
        arrival_ns=at(arrival),
        start_ns=at(arrival),
        first_token_ns=times[0] if times else None,
        end_ns=(times[-1] if times else at(arrival + 0.02)) + random.randrange(10**7),
        input_tokens=random.randint(1, 3000),
        output_tokens=tokens,
        finish_reason=reason,
        error="out of memory" if reason == "error" else None,
        **fields,
    )


def _worker(random: Random, run: OddProcess) -> list[Dated]:
    engine = "command" if run.wraps_program else "transformers"
    started = ProcessStarted(
        process_index=run.index, devices=[each.device for each in run.devices], engine=engine
    )
    found: list[Dated] = [(0.5, started), *_baselines(random, run), *_loading(random, run)]
    for number, (opened, closed) in enumerate(run.windows):
        found += [
            (
                opened,
                WindowOpened(kind="measurement", window_index=number, edges=_edges(run, opened, close=False)),
            ),
            *((closed, event) for event in _work(run, opened, closed)),
            (
                closed,
                WindowClosed(kind="measurement", window_index=number, edges=_edges(run, closed, close=True)),
            ),
        ]
    if run.completed:
        found.append((run.windows[-1][1] + 1, _completed(random, run)))
    return found


def _baselines(random: Random, run: OddProcess) -> list[Dated]:
    if not run.baseline:
        return []
    powers = [
        BaselinePower(
            device_uuid=each.device.uuid,
            mean_power_w=each.idle_w and each.idle_w + random.uniform(-1, 1),
            std_power_w=random.uniform(0.1, 2),
            samples=20,
        )
        for each in run.devices
    ]
    reused = {"reused_from": "earlier", "age_s": 60.5} if random.random() < 0.2 else {}
    measured = BaselineMeasured(position="before", duration_s=3.0, devices=powers, **reused)
    after = BaselineMeasured(position="after", duration_s=3.0, devices=powers)
    return [(4.0, measured), (4.0, after)]


def _loading(random: Random, run: OddProcess) -> list[Dated]:
    found: list[Dated] = [(5.0, model())] if run.model_known and not run.wraps_program else []
    if random.random() < 0.6 and not run.wraps_program:
        latencies_ms = [random.uniform(10, 20) for _ in range(random.randint(1, 5))]
        warmup = WarmupCompleted(
            converged=random.random() < 0.8,
            latencies_ms=latencies_ms,
            coefficient_of_variation=0.02,
            reason="converged",
        )
        found.append((8.0, warmup))
    return found


def _work(run: OddProcess, opened: float, closed: float) -> list[Event]:
    done = [request for request in run.requests if at(opened) <= request.arrival_ns <= at(closed)]
    return [RequestsCompleted(window="measurement", requests=done)] if done else []


def _edges(run: OddProcess, second: float, *, close: bool) -> list[EnergyEdge]:
    return [
        EnergyEdge(
            device_uuid=each.device.uuid,
            at_ns=at(second),
            energy_mj=each.counter_mj(second),
        )
        if each.counter and not (close and run.unread_edges)
        else EnergyEdge(device_uuid=each.device.uuid, at_ns=at(second), reason="no energy counter")
        for each in run.devices
    ]


def _completed(random: Random, run: OddProcess) -> ProcessCompleted:
    worked = [request for request in run.requests if request.finish_reason != "error"]
    return ProcessCompleted(
        process_index=run.index,
        requests=None if run.wraps_program else len(run.requests),
        failed_requests=None if run.wraps_program else len(run.requests) - len(worked),
        input_tokens=None if run.wraps_program else sum(request.input_tokens for request in worked),
        output_tokens=None if run.wraps_program else sum(request.output_tokens for request in worked),
        batches=None if run.wraps_program else len({request.batch_index for request in run.requests}),
        peak_memory_bytes=random.choice((None, 3 * 2**30 + 4096)),
    )


def _sampler(run: OddProcess) -> list[Dated]:
    metered = [
        MeteredDevice(
            device=each.device,
            energy_source="counter" if each.counter or each.power else None,
            counter_tick_ns=20_000_000 if each.counter else None,
            missing={} if each.power else {"power_mw": "no power sensor"},
        )
        for each in run.devices
    ]
    found: list[Dated] = [
        (0.2, MeterStarted(meter="nvml", process_index=run.index, sample_hz=HZ, devices=metered))
    ]
    until = run.windows[-1][1] + 1
    seconds = [9 + number / HZ for number in range(int((until - 9) * HZ))]
    for each in run.devices:
        readings = [_reading(each, second) for second in seconds]
        found.append((until, columns.pack(readings, meter="nvml", device_uuid=each.device.uuid)))
    ended = SamplingCompleted(samples=len(seconds) * len(run.devices), samples_dropped=0, deadlines_missed=0)
    return [*found, (until, ended)]


def _reading(each: OddDevice, second: float) -> Reading:
    return Reading(
        at_ns=at(second),
        power_mw=each.power_mw(second) if each.power else None,
        energy_mj=each.counter_mj(second) if each.counter else None,
        temperature_c=60,
        gpu_utilisation_pct=90,
        memory_used_bytes=2**30,
        throttle_reasons=0x40 if each.throttles and int(second) % 5 == 0 else 0,
    )


def import_run(store: Store, seed: int, folder: Path) -> str:
    """A result of LLenergyMeasure whose figures add up, imported; the id that it got."""
    random = Random(seed)
    start = datetime(2026, 3, 1, 12, 0, 0, random.randrange(10**6), tzinfo=UTC)
    seconds = random.randint(1, 10**8) / 10**6
    end = start + timedelta(seconds=seconds)
    tokens = [random.randint(1, 10**6) for _ in range(2)]
    energy_j, idle_w = random.uniform(1, 10**6), random.uniform(0, 200)
    fields = {
        "schema_version": "2.0",
        "experiment_id": f"theirs-{seed}",
        "measurement_config_hash": "hash",
        "measurement_methodology": "total",
        "start_time": start.replace(tzinfo=None).isoformat(),
        "end_time": end.replace(tzinfo=None).isoformat(),
        "total_tokens": sum(tokens),
        "total_input_tokens": tokens[0],
        "total_output_tokens": tokens[1],
        "total_energy_j": energy_j,
        "total_inference_time_sec": (end - start).total_seconds(),
        "avg_tokens_per_second": sum(tokens) / (end - start).total_seconds(),
        "avg_energy_per_token_j": energy_j / sum(tokens),
        "total_flops": 0.0,
        "baseline_power_w": idle_w,
        "energy_adjusted_j": energy_j - idle_w * (end - start).total_seconds(),
        "latency_stats": {"itl_mean_ms": 2.0, "itl_samples": 1, "itl_full_mean_ms": 3.0},
    }
    path = folder / f"theirs-{seed}.json"
    path.write_text(json.dumps(fields))
    return import_result(path, store).experiment_ids[0]
