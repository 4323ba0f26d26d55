"""Experiments with chosen figures on a clock of our own: what supervisor, worker and sampler say, written as segments by the real writer; or results of processes without a log."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from llem.plan import Plan, WindowsPlan
from llem.results import (
    ComputeMetrics,
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    LatencyMeasurements,
    RawProcessResult,
    Timestamps,
)
from llem.store import Store
from llem_events import SCHEMA_VERSION, Reading, SegmentHeader, SegmentWriter, columns
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    Device,
    EnergyEdge,
    Event,
    ExperimentCompleted,
    ExperimentStarted,
    LoadCompleted,
    MeteredDevice,
    MeterStarted,
    ModelLoaded,
    OtherMeter,
    ProcessCompleted,
    ProcessStarted,
    Request,
    RequestsCompleted,
    SamplingCompleted,
    ServerMetricsRead,
    ServerStarted,
    StudyPlace,
    StudyStarted,
    WarningRaised,
    WindowClosed,
    WindowOpened,
)
from llem_events.files import OsFiles

ORIGIN_NS = (
    10**18
)  # monotonic; far from this machine's own clock, so that the writer adds no clock of its own
OFFSET_NS = 7 * 10**17  # wall clock minus monotonic clock
NS = 10**9
EXPERIMENT = "run-1"
HOST = "alpha"
PACKAGE = "rapl-package-0"
OPENED_S, CLOSED_S = 10.0, 30.0  # the measurement window
BEGAN = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)  # of processes without a log
Curve = Callable[[float], float]
Dated = tuple[float, Event]
Batches = Sequence[tuple[float, RequestsCompleted]]


class Unsynced(OsFiles):
    """Files that a power cut may take: no test pulls the plug of this machine, and most of the time would go into waiting for its disk."""

    def sync(self, fd: int) -> None:
        """Not asked for."""

    def sync_directory(self, path: Path) -> None:
        """Neither."""


def at(second: float) -> int:
    """The fake monotonic clock."""
    return ORIGIN_NS + round(second * NS)


def ramp_w(second: float) -> float:
    """50 W when idle; from 100 W at the window's start up to 300 W at its end: 4,000 J in 20 s."""
    return 50.0 if second < 5 else 100.0 + 10.0 * (second - OPENED_S)


def write(
    store: Store,
    events: Sequence[Dated],
    *,
    role: str,
    index: int | None = None,
    experiment_id: str = EXPERIMENT,
    seal: bool = True,
    blocks: int = 1,
    checked: bool = True,
    **header: Any,
) -> Path:
    """One segment with the events spread over so many blocks; unless `checked`, also what our own writer would refuse."""
    told = header_of(role, index=index, experiment_id=experiment_id, **header)
    path = path_of(store, told)
    writer = SegmentWriter(path, told, sync="close", files=Unsynced())
    size = -(-len(events) // blocks)
    for start in range(0, len(events), size):
        for second, event in events[start : start + size]:
            if checked:
                writer.append(event, at_ns=at(second))
            else:
                message = msgspec.msgpack.encode((event.TYPE, event.VERSION, at(second), event))
                writer.append_message(message, at_ns=at(second))
        writer.flush()
    if seal:
        writer.seal()
    writer.close()
    return path


def header_of(
    role: str, *, index: int | None = None, experiment_id: str = EXPERIMENT, **changes: Any
) -> SegmentHeader:
    """The header of a process; the segment's id follows from whose it is."""
    fields: dict[str, Any] = {
        "segment_id": hashlib.sha256(f"{experiment_id}/{_name(role, index)}".encode()).digest()[:16],
        "experiment_id": experiment_id,
        "role": role,
        "process_index": index,
        "host": HOST,
        "boot_id": "boot",
        "pid": 4242,
        "llem_version": "0",
        "schema_version": SCHEMA_VERSION,
        "monotonic_ns": ORIGIN_NS,
        "wall_ns": ORIGIN_NS + OFFSET_NS,
    }
    return SegmentHeader(**fields | changes)


def path_of(store: Store, header: SegmentHeader) -> Path:
    """The segment's place in the folder of its experiment, which is made."""
    folder = store.log_path / header.experiment_id
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = _name(header.role, header.process_index)
    return folder / f"{name}-{header.segment_id.hex()[:8]}.events.zst"


def _name(role: str, index: int | None) -> str:
    return role if index is None else f"{role}-{index}"


def supervisor(
    store: Store,
    *,
    processes: int = 1,
    end: Event | None = None,
    plan: Plan | None = None,
    labels: Mapping[str, str] | None = None,
    study: StudyPlace | None = None,
    found: Sequence[Event] = (),
    **options: Any,
) -> Path:
    """The supervisor's segment; `end` is experiment_completed unless given. It says what was `found` just before."""
    experiment_id = options.get("experiment_id", EXPERIMENT)
    *events, ended = supervisor_events(
        processes, end=end, plan=plan, labels=labels, study=study, experiment_id=experiment_id
    )
    events += [*((39.0, event) for event in found), ended]
    return write(store, events, role="supervisor", **options)


def supervisor_events(
    processes: int = 1,
    *,
    end: Event | None = None,
    plan: Plan | None = None,
    labels: Mapping[str, str] | None = None,
    study: StudyPlace | None = None,
    experiment_id: str = EXPERIMENT,
) -> list[Dated]:
    """What a supervisor writes."""
    chosen = plan or Plan(windows=WindowsPlan(baseline_s=3.0))
    started = ExperimentStarted(
        experiment_id=experiment_id,
        plan=msgspec.to_builtins(chosen),
        measurement_config_hash="hash",
        expected_processes=processes,
        labels=dict(labels or {}),
        llem_version="0",
        study=study,
    )
    ended = end or ExperimentCompleted(processes_completed=processes, processes_failed=0)
    return [(0.0, started), (40.0, ended)]


def device(uuid: str = "GPU-0", *, host: str = HOST, **fields: Any) -> Device:
    """A GPU."""
    return Device(host=host, uuid=uuid, index=0, name="Test GPU", kind="gpu", **fields)


def edges(uuid: str, energy_mj: int | None, second: float) -> list[EnergyEdge]:
    """The counter of one device, read at a window's edge."""
    reason = "no energy counter" if energy_mj is None else None
    return [EnergyEdge(device_uuid=uuid, at_ns=at(second), energy_mj=energy_mj, reason=reason)]


def request(number: int, arrival_s: float, *, tokens: int = 4, **fields: Any) -> Request:
    """A request of 8 input tokens: first token after 0.1 s, the others every 0.05 s, done 0.01 s after the last."""
    times = [at(arrival_s + 0.1 + 0.05 * place) for place in range(tokens)]
    usual: dict[str, Any] = {
        "request_id": number,
        "batch_index": number,
        "batch_size": 1,
        "arrival_ns": at(arrival_s),
        "start_ns": at(arrival_s),
        "first_token_ns": times[0] if times else None,
        "end_ns": at(arrival_s + 0.11 + 0.05 * max(tokens - 1, 0)),
        "input_tokens": 8,
        "output_tokens": tokens,
        "token_times_ns": times,
        "finish_reason": "length",
    }
    return Request(**usual | fields)


def worker_events(
    index: int = 0,
    *,
    uuid: str = "GPU-0",
    counter_j: tuple[float, float] | None = (1_000.0, 5_080.0),
    requests: Sequence[Request] | None = None,
    batches: Batches | None = None,
    warmup: Sequence[Request] | None = None,
    opened_s: float = OPENED_S,
    closed_s: float = CLOSED_S,
    baseline_w: float | None = 50.0,
    host: str = HOST,
) -> list[Dated]:
    """What a worker writes: a model of 1,000 parameters, a baseline, a warm-up request, a measurement of 10 requests, each a batch."""
    if batches is None:
        usual = [request(n, opened_s + 2 * n, request_id=100 * index + n) for n in range(10)]
        batches = one_by_one(usual if requests is None else requests, opened_s=opened_s)
    open_mj, close_mj = (None, None) if counter_j is None else (round(edge * 1000) for edge in counter_j)
    started = ProcessStarted(process_index=index, devices=[device(uuid, host=host)], engine="transformers")
    power = BaselinePower(device_uuid=uuid, mean_power_w=baseline_w, std_power_w=1.0, samples=30)
    warmed = RequestsCompleted(window="warmup", requests=warmup or [request(900, 7.0)])
    return [
        (0.5, started),
        (1.0, WindowOpened(kind="baseline")),
        (4.0, WindowClosed(kind="baseline")),
        (4.0, BaselineMeasured(position="before", duration_s=3.0, devices=[power])),
        (5.0, model()),
        (6.0, WindowOpened(kind="warmup")),
        (7.5, warmed),
        (8.0, WindowClosed(kind="warmup")),
        (opened_s, WindowOpened(kind="measurement", edges=edges(uuid, open_mj, opened_s))),
        *batches,
        (closed_s, WindowClosed(kind="measurement", edges=edges(uuid, close_mj, closed_s))),
        (closed_s + 1, process_completed(index, batches)),
    ]


def server_events() -> list[Dated]:
    """What a worker writes of a server that was drained, with its counters, its load, its idle power and a cache."""

    def asked(number: int, due_s: float, *chunks: tuple[float, int | None], **fields: Any) -> Request:
        moments = [at(second) for second, _ in chunks]
        return request(
            number,
            due_s,
            tokens=0,
            output_tokens=6,
            start_ns=at(due_s + 0.01 * number),
            chunk_times_ns=moments,
            chunk_tokens=[count for _, count in chunks],
            first_token_ns=moments[0],
            end_ns=moments[-1],
            **fields,
        )

    requests = [
        request(0, 11.0, cached_input_tokens=3, usage_input_tokens=8, usage_output_tokens=4),
        asked(1, 12.0, (12.5, 2), (13.0, 4)),
        asked(2, 12.2, (12.6, None), (13.3, None)),
        asked(3, 28.0, (29.5, 4), (30.5, 2)),
        request(4, 15.0, tokens=0, output_tokens=0, first_token_ns=None, finish_reason="error", error="500"),
    ]
    *before, (closed_s, closed), end = worker_events(requests=requests)
    started = ServerStarted(
        kind="simulated",
        managed=True,
        url="http://127.0.0.1:1",
        started_ns=at(0.7),
        first_answer_ns=at(3.2),
        input_tokens_metric="in_total",
        output_tokens_metric="out_total",
    )
    read = ServerMetricsRead(
        names=['in_total{a="1"}', 'in_total{a="2"}', "out_total", "waiting"],
        times_ns=[at(9.0), at(20.0), at(31.0)],
        values=[[1.0, 20.0, 30.0], [None, 2.0, 4.0], [3.0, 5.0, 9.0], [0.0, 1.0, None]],
    )
    load = LoadCompleted(
        process_index=0,
        window="measurement",
        requests=5,
        failed_requests=1,
        input_tokens=40,
        output_tokens=22,
        starts_ns=at(10.0),
        offered_ns=at(28.0),
        ended_ns=at(31.0),
        connections=3,
        stale_connections=0,
        send_lag_p99_ns=2_000_000,
        loop_lag_p99_ns=1_000_000,
        cpu_time_ns=2 * 10**9,
        max_in_flight=2,
    )
    idle = BaselinePower(device_uuid="GPU-0", mean_power_w=70.0, std_power_w=1.0, samples=20)
    drain: list[Dated] = [
        (CLOSED_S + 0.01, WindowOpened(kind="drain", edges=edges("GPU-0", 5_080_000, CLOSED_S + 0.01))),
        (31.5, WindowClosed(kind="drain", edges=edges("GPU-0", 5_300_000, 31.5))),
    ]
    said: list[Dated] = [
        *before,
        (closed_s, closed),
        (33.0, end[1]),
        (0.6, started),
        (7.7, BaselineMeasured(position="server_idle", duration_s=1.0, devices=[idle])),
        (31.6, read),
        (31.7, load),
        (31.8, WarningRaised(code="other_process_on_gpu", text="others", value=2.0)),
        *drain,
    ]
    return sorted(said, key=lambda dated: dated[0])


def one_by_one(requests: Sequence[Request], *, opened_s: float = OPENED_S) -> Batches:
    """Each request as a batch of its own, told every two seconds."""
    return [
        (opened_s + 2 * number + 1.0, RequestsCompleted(window="measurement", requests=[alone]))
        for number, alone in enumerate(requests)
    ]


def process_completed(index: int, batches: Batches) -> ProcessCompleted:
    """The end of a process that did these, with its counts."""
    done = [request for _, batch in batches for request in batch.requests]
    return ProcessCompleted(
        process_index=index,
        requests=len(done),
        failed_requests=sum(request.finish_reason == "error" for request in done),
        input_tokens=sum(request.input_tokens for request in done),
        output_tokens=sum(request.output_tokens for request in done),
        batches=len(batches),
        peak_memory_bytes=512 * 2**20,
    )


def model() -> ModelLoaded:
    """1,000 parameters, 100 of them in the output head; 2 layers of 3 heads of 4."""
    return ModelLoaded(
        model_name="tiny",
        weights="random",
        source="preset",
        dtype="float32",
        non_embedding_parameters=1_000,
        output_head_parameters=100,
        layers=2,
        attention_heads=3,
        head_size=4,
        weights_bytes=4_000,
    )


def sampler_events(
    index: int = 0,
    *,
    uuid: str = "GPU-0",
    power_w: Curve | None = ramp_w,
    counter_j: Curve | None = None,
    temperature_c: Curve | None = lambda _: 60.0,
    throttle: Callable[[float], int] | None = lambda _: 0,
    source: str = "counter",
    until_s: float = 35.0,
    hz: float = 10.0,
    host: str = HOST,
) -> list[Dated]:
    """What a sampler writes: a sample every 1/hz seconds, halfway between the full tenths, in one event per second."""
    missing = {"power_mw": "no power sensor"} if power_w is None else {}
    metered = MeteredDevice(device=device(uuid, host=host), energy_source=source, missing=missing)
    found: list[Dated] = [
        (0.2, MeterStarted(meter="nvml", process_index=index, sample_hz=hz, devices=[metered]))
    ]
    seconds = [0.55 + number / hz for number in range(int((until_s - 0.5) * hz))]
    for start in range(0, len(seconds), int(hz)):
        readings = [
            Reading(
                at_ns=at(second),
                power_mw=None if power_w is None else round(power_w(second) * 1000),
                energy_mj=None if counter_j is None else round(counter_j(second) * 1000),
                temperature_c=None if temperature_c is None else round(temperature_c(second)),
                gpu_utilisation_pct=90,
                memory_used_bytes=2**30,
                throttle_reasons=None if throttle is None else throttle(second),
            )
            for second in seconds[start : start + int(hz)]
        ]
        found.append((start / hz + 1.6, columns.pack(readings, meter="nvml", device_uuid=uuid)))
    ended = SamplingCompleted(samples=len(seconds), samples_dropped=0, deadlines_missed=0)
    return [*found, (until_s, ended)]


def with_package(worker: Sequence[Dated], sampler: Sequence[Dated]) -> tuple[list[Dated], list[Dated]]:
    """The same, with a CPU package read beside the GPU by RAPL: 20 W before anything is loaded, 80 W while it is measured, 1,600 J."""
    *before_end, ended = [(second, _sampled_with_package(event)) for second, event in sampler]
    samples = [
        Reading(at_ns=at(second + 0.5), power_mw=80_000 if second >= 10 else 20_000) for second in range(40)
    ]
    packed = columns.pack(samples, meter="rapl", device_uuid=PACKAGE)
    return (
        [(second, _measured_with_package(event, second)) for second, event in worker],
        [*before_end, (34.9, packed), ended],
    )


def _measured_with_package(event: Event, second: float) -> Event:
    match event:
        case WindowOpened(kind="measurement") | WindowClosed(kind="measurement"):
            counted_mj = 5_000 if isinstance(event, WindowOpened) else 1_605_000
            return msgspec.structs.replace(event, edges=[*event.edges, *edges(PACKAGE, counted_mj, second)])
        case BaselineMeasured():
            idle = BaselinePower(device_uuid=PACKAGE, mean_power_w=20.0, std_power_w=3.0, samples=30)
            return msgspec.structs.replace(event, devices=[*event.devices, idle])
    return event


def _sampled_with_package(event: Event) -> Event:
    package = Device(host=HOST, uuid=PACKAGE, index=0, name="package-0", kind="cpu_package")
    metered = MeteredDevice(device=package, energy_source="counter", power_kind="derived")
    match event:
        case MeterStarted():
            return msgspec.structs.replace(event, beside=[OtherMeter(meter="rapl", devices=[metered])])
        case SamplingCompleted():
            return msgspec.structs.replace(event, samples=event.samples + 40)
    return event


def experiment(
    store: Store,
    *,
    processes: int = 1,
    experiment_id: str = EXPERIMENT,
    worker: Sequence[Dated] | None = None,
    sampler: Sequence[Dated] | None = None,
    **options: Any,
) -> None:
    """A whole experiment: every process has a GPU of its own and the usual figures, or says what is given."""
    supervisor(store, processes=processes, experiment_id=experiment_id, **options)
    for index in range(processes):
        same: dict[str, Any] = {"index": index, "experiment_id": experiment_id}
        uuid = f"GPU-{index}"
        said = worker_events(index, uuid=uuid) if worker is None else worker
        write(store, said, role="worker", blocks=4, **same)
        sampled = sampler_events(index, uuid=uuid) if sampler is None else sampler
        write(store, sampled, role="sampler", blocks=6, **same)


def run_of_energy(store: Store, energy: float, *, source: str = "counter", **options: Any) -> None:
    """A whole experiment of one GPU that took so many times the usual energy, by its counter or by its power."""
    experiment(
        store,
        worker=worker_events(
            counter_j=(1_000.0, 1_000.0 + 4_000.0 * energy) if source == "counter" else None
        ),
        sampler=sampler_events(power_w=lambda second: energy * ramp_w(second), source=source),
        **options,
    )


def begun_study(store: Store, study_id: str, **fields: Any) -> None:
    """A study's own segment, with its beginning alone."""
    (folder := store.studies_path / study_id).mkdir(mode=0o700, parents=True)
    usual: dict[str, Any] = {"plan": {}, "cells": [{}], "schedule": [[0, 0, 0]], "order": "random", "seed": 1}
    started = StudyStarted(study_id=study_id, llem_version="0", **usual | fields)
    writer = SegmentWriter(
        folder / "study.events.zst",
        header_of("study", experiment_id=study_id),
        sync="close",
        files=Unsynced(),
    )
    writer.append(started, at_ns=at(0))
    writer.seal()
    writer.close()


def wall_time(seconds: float) -> datetime:
    """Wall-clock time this long after the start of the experiment."""
    return BEGAN + timedelta(seconds=seconds)


def device_energy(uuid: str, energy_j: float | None, **fields: Any) -> DeviceEnergy:
    """A GPU of host "h1"."""
    return DeviceEnergy(
        **{"host": "h1", "uuid": uuid, "energy_j": energy_j, "energy_source": "counter"} | fields
    )


def latencies(*values_ms: float) -> LatencyMeasurements:
    """The same values for every series, one request each."""
    values = list(values_ms)
    return LatencyMeasurements(
        ttft_ms=values, itl_full_ms=values, itl_trimmed_ms=values, e2e_ms=values, request_count=len(values)
    )


def process(
    index: int = 0,
    *,
    energy_j: float | None = 25.0,
    input_tokens: int = 100,
    output_tokens: int = 400,
    span: tuple[float, float] = (0.0, 10.0),
    flops: float | None = 1e12,
    measured: LatencyMeasurements | None = None,
    **fields: Any,
) -> RawProcessResult:
    """One process that ran in `span` (seconds after the start) on a GPU of its own."""
    seconds = span[1] - span[0]
    inference = InferenceMetrics.from_counts(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        inference_time_sec=seconds,
        latency_measurements=measured,
    )
    compute = ComputeMetrics.from_flops(
        flops, total_tokens=inference.total_tokens, inference_time_sec=seconds
    )
    defaults: dict[str, Any] = {
        "experiment_id": "run",
        "backend": "simulated",
        "gpu_id": index,
        "devices": [device_energy(f"GPU-{index}", energy_j)],
        "energy_metrics": EnergyMetrics(total_energy_j=energy_j, duration_sec=seconds),
        "compute_metrics": compute,
        "energy_source": "counter",
    }
    timestamps = Timestamps.from_times(wall_time(span[0]), wall_time(span[1]))
    return RawProcessResult(
        process_index=index, timestamps=timestamps, inference_metrics=inference, **defaults | fields
    )
