"""The result of one process, from its events, samples and requests."""

from collections.abc import Sequence
from typing import Any

import duckdb
import msgspec

from llem.projections.clocks import Clocks, utc
from llem.projections.device_energy import device_energy, read_counter
from llem.projections.device_samples import DeviceSamples, Span, load_samples
from llem.projections.facts import ExperimentFacts, ProcessFacts, Window
from llem.projections.process_requests import Work, latencies, load_requests, work_flops, work_within
from llem.projections.throttling import throttling
from llem.results import (
    BatchEfficiencyMetrics,
    ComputeMetrics,
    DeviceEnergy,
    EnergyBreakdown,
    EnergyMetrics,
    EnvironmentSnapshot,
    ExtendedEfficiencyMetrics,
    GPUUtilisationMetrics,
    InferenceMetrics,
    MemoryEfficiencyMetrics,
    RawProcessResult,
    ResultWarning,
    Timestamps,
    WarmupResult,
)
from llem.results.energy import GPU_KINDS, least_trusted
from llem.results.flops import FLOPS_METHOD, model_shape
from llem.results.ratios import largest, ratio
from llem.results.raw import Status
from llem.units import seconds

MIB = 2**20
MAX_DISAGREEMENT = 0.05


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A process's result, and the samples and work that it comes from."""

    process: ProcessFacts
    spans: list[Span]
    result: RawProcessResult
    samples: list[list[DeviceSamples]]  # per device, per span
    work: list[Work]


def measurement_spans(
    connection: duckdb.DuckDBPyConnection, experiment: ExperimentFacts, process: ProcessFacts
) -> list[tuple[Window, Span]]:
    """Measurement windows of a process and when they were open."""
    return [
        (
            window,
            (window.opened_ns, window.closed_ns or last_known_ns(connection, experiment, process, window)),
        )
        for window in process.windows
        if window.opened.kind == "measurement"
    ]


def last_known_ns(
    connection: duckdb.DuckDBPyConnection,
    experiment: ExperimentFacts,
    process: ProcessFacts,
    window: Window,
) -> int:
    """The end of the last request that a killed worker reported in a window, or else its opening."""
    kind = window.opened.kind
    found = connection.execute(
        "SELECT max(end_ns) FROM requests WHERE experiment_id = ? AND segment_id = ? AND window_kind = ? AND end_ns >= ?",
        [experiment.experiment_id, process.segment.segment_id, kind, window.opened_ns],
    ).fetchall()
    return int(found[0][0] or window.opened_ns)


def measure_process(
    connection: duckdb.DuckDBPyConnection,
    experiment: ExperimentFacts,
    process: ProcessFacts,
    clocks: Clocks,
    chosen: Sequence[Span] | None = None,
) -> Measured | None:
    """Figures of a process over its measurement windows, or over spans chosen after the fact; None without any."""
    windows = measurement_spans(connection, experiment, process)
    spans = [span for _, span in windows] if chosen is None else list(chosen)
    if not spans:
        return None
    samples = [
        [
            load_samples(
                connection,
                experiment_id=experiment.experiment_id,
                process_index=process.process_index,
                device_uuid=metered.device.uuid,
                span=span,
            )
            for span in spans
        ]
        for metered in process.devices
    ]
    work = _work(connection, experiment, process, spans)
    devices = [
        device_energy(
            process,
            metered,
            found,
            None
            if chosen is not None
            else [read_counter(window, metered.device.uuid) for window, _ in windows],
        )
        for metered, found in zip(process.devices, samples, strict=True)
    ]
    warmup = load_requests(
        connection,
        experiment_id=experiment.experiment_id,
        segment_id=process.segment.segment_id or "",
        window_kind="warmup",
    )
    result = _result(experiment, process, clocks, spans, samples, work, devices, warmup_requests=len(warmup))
    return Measured(process=process, spans=spans, result=result, samples=samples, work=work)


def _work(
    connection: duckdb.DuckDBPyConnection,
    experiment: ExperimentFacts,
    process: ProcessFacts,
    spans: Sequence[Span],
) -> list[Work]:
    requests = load_requests(
        connection,
        experiment_id=experiment.experiment_id,
        segment_id=process.segment.segment_id or "",
        window_kind="measurement",
    )
    start_ns, end_ns = min(start for start, _ in spans), max(end for _, end in spans)
    touched = [one for one in requests if one.arrival_ns <= end_ns and one.end_ns >= start_ns]
    return [work_within(request, spans) for request in touched]


def _result(
    experiment: ExperimentFacts,
    process: ProcessFacts,
    clocks: Clocks,
    spans: Sequence[Span],
    samples: Sequence[Sequence[DeviceSamples]],
    work: Sequence[Work],
    devices: Sequence[DeviceEnergy],
    *,
    warmup_requests: int,
) -> RawProcessResult:
    walls = [
        (utc(clocks.wall_ns(process.segment, start)), utc(clocks.wall_ns(process.segment, end)))
        for start, end in spans
    ]
    duration_sec = sum(seconds(end - start) for start, end in spans)
    inference = InferenceMetrics.from_counts(
        input_tokens=sum(one.input_tokens for one in work),
        output_tokens=sum(one.output_tokens for one in work),
        inference_time_sec=duration_sec,
        latency_measurements=latencies(work, warmup_requests=warmup_requests),
    )
    return RawProcessResult(
        experiment_id=experiment.experiment_id,
        process_index=process.process_index,
        host=process.host,
        timestamps=Timestamps.from_times(walls[0][0], walls[-1][1]),
        windows=walls if len(walls) > 1 else [],
        inference_metrics=inference,
        energy_metrics=EnergyMetrics.from_devices(
            devices, duration_sec=duration_sec, total_tokens=inference.total_tokens
        ),
        compute_metrics=_compute(process, work, inference, duration_sec),
        devices=list(devices),
        energy_source=least_trusted([device.energy_source for device in devices]),
        energy_breakdown=_breakdown(process, devices, duration_sec),
        thermal_throttle=throttling([each for spanned in samples for each in spanned]),
        extended_metrics=_efficiency(process, samples, work),
        warnings=_warnings(process, devices),
        requests=len(work),
        failed_requests=sum(one.request.failed for one in work),
        status=process_status(process),
        **_sampling(samples),
        **_identity(experiment, process),
    )


def _sampling(samples: Sequence[Sequence[DeviceSamples]]) -> dict[str, Any]:
    """How well the devices were watched, by the worst of them."""
    flat = [each for spanned in samples for each in spanned]
    return {
        "samples": min((sum(each.count for each in spanned) for spanned in samples), default=None),
        "max_sample_gap_sec": largest(each.max_gap_sec for each in flat),
        "temperature_drift_c": largest(each.temperature_drift_c for each in flat),
    }


def process_status(process: ProcessFacts) -> Status:
    """How the process ended."""
    if process.completed is not None:
        return "interrupted" if process.completed.stopped_early else "completed"
    return "failed" if process.failed is not None else "incomplete"


def _identity(experiment: ExperimentFacts, process: ProcessFacts) -> dict[str, Any]:
    plan = experiment.started.plan if experiment.started else {}
    engine = process.started.engine if process.started else "unknown"
    gpu = next((each.device for each in process.devices if each.device.kind in GPU_KINDS), None)
    return {
        "backend": engine,
        "backend_version": process.started.versions.get(engine) if process.started else None,
        "config_name": plan.get("name"),
        "model_name": process.model.model_name if process.model else None,
        "weights": process.model.weights if process.model else None,
        "dtype": process.model.dtype if process.model else None,
        "batch_size": plan.get("engine", {}).get("batch_size"),
        "gpu_id": gpu.index if gpu else None,
        "gpu_name": gpu.name if gpu else None,
        "gpu_is_mig": gpu is not None and gpu.kind == "mig",
        "gpu_mig_profile": gpu.mig_profile if gpu else None,
        "warmup_result": _warmup(process, plan),
        "environment_snapshot": _environment(process),
        "effective_config": plan,
    }


def _warmup(process: ProcessFacts, plan: dict[str, Any]) -> WarmupResult | None:
    warmup = process.warmup
    if warmup is None:
        return None
    windows = plan.get("windows", {})
    return WarmupResult(
        converged=warmup.converged,
        final_cv=warmup.coefficient_of_variation,
        iterations_completed=len(warmup.latencies_ms),
        target_cv=windows.get("warmup_cv"),
        max_prompts=windows.get("warmup_max_batches"),
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


def _compute(
    process: ProcessFacts, work: Sequence[Work], inference: InferenceMetrics, duration_sec: float
) -> ComputeMetrics:
    shape = model_shape(process.model) if process.model else None
    peak_bytes = process.completed.peak_memory_bytes if process.completed else None
    model_bytes = process.model.weights_bytes if process.model else None
    return ComputeMetrics.from_flops(
        work_flops(shape, work),
        total_tokens=inference.total_tokens,
        inference_time_sec=duration_sec,
        peak_memory_mb=None if peak_bytes is None else peak_bytes / MIB,
        model_memory_mb=None if model_bytes is None else model_bytes / MIB,
        flops_method=FLOPS_METHOD if shape else None,
        compute_precision=process.model.dtype if process.model else None,
    )


def _breakdown(
    process: ProcessFacts, devices: Sequence[DeviceEnergy], duration_sec: float
) -> EnergyBreakdown | None:
    before, after = process.baselines.get("before"), process.baselines.get("after")
    if not devices:
        return None
    deviations = [power.std_power_w for power in before.devices] if before else []
    known = [deviation for deviation in deviations if deviation is not None]
    return EnergyBreakdown.from_devices(
        devices,
        duration_sec=duration_sec,
        baseline_method=None if before is None else "reused" if before.reused_from else "measured",
        baseline_cache_age_sec=before.age_s if before and before.reused_from else None,
        baseline_std_w=sum(each**2 for each in known) ** 0.5 if known else None,
        baseline_after_w=_mean_power_w(after.devices) if after else None,
    )


def _mean_power_w(powers: Sequence[Any]) -> float | None:
    known = [power.mean_power_w for power in powers if power.mean_power_w is not None]
    return sum(known) if known and len(known) == len(powers) else None


def _efficiency(
    process: ProcessFacts, samples: Sequence[Sequence[DeviceSamples]], work: Sequence[Work]
) -> ExtendedEfficiencyMetrics:
    flat = [each for spanned in samples for each in spanned]
    utilisation = [value for each in flat for value in each.values("gpu_utilisation_pct")]
    bandwidth = [value for each in flat for value in each.values("memory_utilisation_pct")]
    batches = {one.request.batch_index: one.request.batch_size for one in work}
    vram = [each.device.memory_bytes for each in process.devices if each.device.memory_bytes is not None]
    return ExtendedEfficiencyMetrics(
        memory=MemoryEfficiencyMetrics(total_vram_mb=sum(vram) / MIB if vram else None),
        gpu_utilisation=GPUUtilisationMetrics(
            sm_utilisation_mean=ratio(sum(utilisation), len(utilisation)),
            sm_utilisation_samples=len(utilisation),
            memory_bandwidth_utilisation=ratio(sum(bandwidth), len(bandwidth)),
        ),
        batch=BatchEfficiencyMetrics(
            effective_batch_size=ratio(sum(batches.values()), len(batches)), num_batches=len(batches)
        ),
    )


def _warnings(process: ProcessFacts, devices: Sequence[DeviceEnergy]) -> list[ResultWarning]:
    raised = [
        ResultWarning(
            code=warning.code,
            text=warning.text,
            value=warning.value,
            threshold=warning.threshold,
            device_uuid=warning.device_uuid,
        )
        for warning in process.warnings
    ]
    unmeasured = [
        ResultWarning(
            code="energy_not_measured",
            text=f"energy of {device.uuid} was not measured: {device.reason}",
            device_uuid=device.uuid,
        )
        for device in devices
        if device.energy_j is None
    ]
    disagreeing = [
        ResultWarning(
            code="energy_disagreement",
            text=f"energy counter and integrated power of {device.uuid} differ by {device.disagreement:.1%}",
            value=device.disagreement,
            threshold=MAX_DISAGREEMENT,
            device_uuid=device.uuid,
        )
        for device in devices
        if device.disagreement is not None and device.disagreement > MAX_DISAGREEMENT
    ]
    return [*raised, *unmeasured, *disagreeing]
