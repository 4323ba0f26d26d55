"""The result of one process, from its events, samples and requests."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import duckdb
import msgspec

from llem.projections.clocks import Clocks, utc
from llem.projections.derive.energy import device_energy, read_counter
from llem.projections.derive.history import ProcessFacts, Span, Window
from llem.projections.derive.requests import (
    Work,
    count_warmup_requests,
    latencies,
    load_requests,
    work_within,
)
from llem.projections.derive.samples import DeviceSamples, load_samples
from llem.projections.doubts import process_doubts
from llem.projections.efficiency import compute_metrics, efficiency, energy_breakdown
from llem.projections.spans import measurement_spans
from llem.projections.thresholds import thresholds
from llem.projections.throttling import throttling
from llem.results import (
    DeviceEnergy,
    EnergyMetrics,
    EnvironmentSnapshot,
    InferenceMetrics,
    RawProcessResult,
    Timestamps,
    WarmupResult,
    least_trusted,
)
from llem.results.energy import GPU_KINDS
from llem.results.nullable import largest
from llem.results.process import Status

Plan = dict[str, Any]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the tables hold of a process in some spans of its host's monotonic clock."""

    process: ProcessFacts
    spans: Sequence[Span]
    samples: Sequence[Sequence[DeviceSamples]]  # per device, per span
    devices: Sequence[DeviceEnergy]
    work: Sequence[Work]
    warmup_requests: int


class Measured(Seen, frozen=True, kw_only=True):
    """The same, and the result of it."""

    result: RawProcessResult


def measure_process(
    connection: duckdb.DuckDBPyConnection,
    process: ProcessFacts,
    clocks: Clocks,
    *,
    plan: Plan,
    chosen: Sequence[Span] | None = None,
) -> Measured | None:
    """Figures of a process over its measurement windows, or over spans chosen within them; None without any."""
    spans = measurement_spans(connection, process) if chosen is None else chosen
    if not spans:
        return None
    samples = [
        [load_samples(connection, process, metered.device.uuid, span) for span in spans]
        for metered in process.devices
    ]
    requests = load_requests(connection, process)
    seen = Seen(
        process=process,
        spans=spans,
        samples=samples,
        devices=_energies(process, samples, process.measurement_windows if chosen is None else None),
        work=[done for request in requests if (done := work_within(request, spans)) is not None],
        warmup_requests=count_warmup_requests(connection, process),
    )
    return Measured(**msgspec.structs.asdict(seen), result=_result(seen, clocks, plan))


def _energies(
    process: ProcessFacts, samples: Sequence[Sequence[DeviceSamples]], windows: Sequence[Window] | None
) -> list[DeviceEnergy]:
    """Energy of every device; `windows` are those whose edges the spans are, None where they are others."""
    energies = []
    for metered, spanned in zip(process.devices, samples, strict=True):
        uuid = metered.device.uuid
        counters = None if windows is None else [read_counter(window, uuid) for window in windows]
        energies.append(device_energy(process, metered, spanned, counters))
    return energies


def _result(seen: Seen, clocks: Clocks, plan: Plan) -> RawProcessResult:
    process, devices, work = seen.process, seen.devices, seen.work
    walls = [
        (utc(clocks.wall_ns(process.segment, start)), utc(clocks.wall_ns(process.segment, end)))
        for start, end in seen.spans
    ]
    duration_sec = sum((end - start for start, end in walls), timedelta()).total_seconds()
    inference = _inference(seen, duration_sec)
    return RawProcessResult(
        experiment_id=process.segment.experiment_id,
        process_index=process.process_index,
        host=process.host,
        timestamps=Timestamps.from_times(walls[0][0], walls[-1][1]),
        windows=walls if len(walls) > 1 else [],
        inference_metrics=inference,
        energy_metrics=EnergyMetrics.from_devices(
            devices, duration_sec=duration_sec, total_tokens=inference.total_tokens
        ),
        compute_metrics=compute_metrics(process, work, inference),
        devices=list(devices),
        energy_source=least_trusted([device.energy_source for device in devices]),
        energy_breakdown=energy_breakdown(process, devices, duration_sec=duration_sec),
        thermal_throttle=throttling(seen.samples, seen.spans),
        extended_metrics=efficiency(process, seen.samples, work, plan=plan),
        warnings=process_doubts(process, devices, max_disagreement=thresholds(plan).max_energy_disagreement),
        requests=None if process.wraps_program else len(work),
        failed_requests=None if process.wraps_program else sum(done.request.failed for done in work),
        status=process_status(process),
        **_sampling(seen.samples),
        **_identity(process, plan),
    )


def process_status(process: ProcessFacts) -> Status:
    """How the process ended."""
    if process.completed is not None:
        return "interrupted" if process.completed.stopped_early else "completed"
    return "failed" if process.failed is not None else "incomplete"


def _inference(seen: Seen, duration_sec: float) -> InferenceMetrics:
    """Tokens and latencies; a wrapped program's are not measured, and no rate of them is."""
    if seen.process.wraps_program:
        return InferenceMetrics(
            total_tokens=None, input_tokens=None, output_tokens=None, inference_time_sec=duration_sec
        )
    return InferenceMetrics.from_counts(
        input_tokens=sum(done.input_tokens for done in seen.work),
        output_tokens=sum(done.output_tokens for done in seen.work),
        inference_time_sec=duration_sec,
        latency_measurements=latencies(seen.work, warmup_requests=seen.warmup_requests),
    )


def _sampling(samples: Sequence[Sequence[DeviceSamples]]) -> dict[str, Any]:
    """How well the devices were watched, by the worst of them."""
    flat = [window for spanned in samples for window in spanned]
    return {
        "samples": min((sum(window.count for window in spanned) for spanned in samples), default=None),
        "max_sample_gap_sec": largest(window.max_gap_sec for window in flat),
        "temperature_drift_c": largest(window.temperature_drift_c for window in flat),
    }


def _identity(process: ProcessFacts, plan: Plan) -> dict[str, Any]:
    started, model = process.started, process.model
    engine = started.engine if started else "unknown"
    gpu = next((metered.device for metered in process.devices if metered.device.kind in GPU_KINDS), None)
    return {
        "backend": engine,
        "backend_version": started.versions.get(engine) if started else None,
        "config_name": plan.get("name"),
        "model_name": model.model_name if model else None,
        "weights": model.weights if model else None,
        "dtype": model.dtype if model else None,
        "attention": model.attention if model else None,
        "cache": model.cache if model else None,
        "quantization": model.quantization if model else None,
        "batch_size": plan.get("engine", {}).get("batch_size"),
        "gpu_id": gpu.index if gpu else None,
        "gpu_name": gpu.name if gpu else None,
        "gpu_is_mig": gpu is not None and gpu.kind == "mig",
        "gpu_mig_profile": gpu.mig_profile if gpu else None,
        "warmup_result": _warmup(process, plan.get("windows", {})),
        "environment_snapshot": _environment(process),
        "effective_config": plan,
    }


def _warmup(process: ProcessFacts, limits: dict[str, Any]) -> WarmupResult | None:
    warmup = process.warmup
    if warmup is None:
        return None
    return WarmupResult(
        converged=warmup.converged,
        final_cv=warmup.coefficient_of_variation,
        iterations_completed=len(warmup.latencies_ms),
        target_cv=limits.get("warmup_cv"),
        max_prompts=limits.get("warmup_max_batches"),
        latencies_ms=warmup.latencies_ms,
        reason=warmup.reason,
        cooldown_sec=warmup.cooldown_s,
        temperature_start_c=warmup.temperature_start_c,
        temperature_end_c=warmup.temperature_end_c,
    )


def _environment(process: ProcessFacts) -> EnvironmentSnapshot | None:
    """The snapshot; None where the worker did not start, or wrote one of another shape."""
    if process.started is None or not process.started.environment:
        return None
    try:
        return msgspec.convert(process.started.environment, EnvironmentSnapshot, strict=False)
    except msgspec.ValidationError:
        return None
