"""The result of one process, from its events, samples and requests: work, energy, efficiency and throttling."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import groupby, islice
from typing import Any

import msgspec

from llem.plan import ValidityPlan
from llem.projections.derive.clocks import Clocks, utc
from llem.projections.derive.doubts import process_doubts
from llem.projections.derive.energy import device_energy, read_counter
from llem.projections.derive.history import ProcessFacts, Window
from llem.projections.derive.phase_split import phase_split
from llem.projections.derive.request_shares import RequestShares, request_shares
from llem.projections.derive.requests import Requests, Work, work_of
from llem.projections.derive.samples import DeviceSamples, Throttling, load_samples
from llem.projections.derive.serving import Drain, serving_doubts, serving_metrics
from llem.projections.derive.source import Source, Span
from llem.projections.derive.spans import measurement_spans, window_span
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
    InvalidReason,
    MemoryEfficiencyMetrics,
    RawProcessResult,
    ThermalThrottleInfo,
    Timestamps,
    WarmupResult,
    least_trusted,
)
from llem.results.energy import GPU_KINDS, distinct
from llem.results.flops import FLOPS_METHOD, model_shape
from llem.results.nullable import largest, ratio, root_of_squares, total
from llem.results.process import Status
from llem.results.throttling import ANY_REASON, HW_POWER, HW_THERMAL, SW_POWER, SW_THERMAL
from llem.units import BYTES_PER_MB, seconds
from llem_events.events import MeteredDevice, WorkReported

MAX_TIMESTAMPS = 100  # the first ones; the samples have all
Plan = dict[str, Any]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the tables hold of a process in some spans of its host's monotonic clock."""

    process: ProcessFacts
    spans: Sequence[Span]
    is_whole: bool  # whether these are all of its measurement
    samples: Sequence[Sequence[DeviceSamples]]  # per device, per span
    devices: Sequence[DeviceEnergy]
    beside: Sequence[DeviceEnergy]  # of the other meters
    requests: Requests
    work: Work
    drain: Drain | None = None  # after the spans, where these are the whole measurement of a server


class Measured(Seen, frozen=True, kw_only=True):
    """The same, and the result of it; `shares` of a server's requests, where its energy is known."""

    result: RawProcessResult
    shares: RequestShares | None = None


def measure_process(
    source: Source,
    process: ProcessFacts,
    clocks: Clocks,
    *,
    plan: Plan,
    chosen: Sequence[Span] | None = None,
) -> Measured | None:
    """Figures of a process over its measurement windows, or over spans chosen within them; None without any."""
    spans = measurement_spans(source, process) if chosen is None else chosen
    if not spans:
        return None
    others = [metered for other in process.beside for metered in other.devices]
    samples, samples_beside = (
        [[load_samples(source, process, metered.device.uuid, span) for span in spans] for metered in devices]
        for devices in (process.devices, others)
    )
    windows = process.measurement_windows if chosen is None else None
    requests = Requests(source, process, spans)
    work = work_of(requests, shape=model_shape(process.model) if process.model else None)
    seen = Seen(
        process=process,
        spans=spans,
        is_whole=chosen is None,
        samples=samples,
        devices=_energies(process, process.devices, samples, windows),
        beside=_energies(process, others, samples_beside, windows),
        requests=requests,
        work=work,
        drain=None if windows is None else _drain(source, process, requests, work, spans[-1][1]),
    )
    shares = request_shares(requests, spans, samples, seen.devices) if process.server else None
    phases = phase_split(process, requests, work, spans, samples)
    result = msgspec.structs.replace(_result(seen, clocks, plan, shares), phases=phases)
    return Measured(**msgspec.structs.asdict(seen), result=result, shares=shares)


def _drain(
    source: Source, process: ProcessFacts, requests: Requests, work: Work, measured_until_ns: int
) -> Drain | None:
    """What was done after the measurement for requests that were due in it; None where it went on until its last answer."""
    windows = process.drain_windows
    if not windows:
        return None
    spans = [window_span(source, process, window) for window in windows]
    samples = [
        [load_samples(source, process, metered.device.uuid, span) for span in spans]
        for metered in process.devices
    ]
    devices = _energies(process, process.devices, samples, windows)
    return Drain(
        duration_sec=sum(seconds(end - start) for start, end in spans),
        energy_j=total(device.energy_j for device in distinct(devices)),
        requests=requests.answered_after(measured_until_ns),
        output_tokens=requests.usage().streamed_output_tokens - work.output_tokens,
    )


def _energies(
    process: ProcessFacts,
    devices: Sequence[MeteredDevice],
    samples: Sequence[Sequence[DeviceSamples]],
    windows: Sequence[Window] | None,
) -> list[DeviceEnergy]:
    """Energy of every device; `windows` are those whose edges the spans are, None where they are others."""
    energies = []
    for metered, spanned in zip(devices, samples, strict=True):
        uuid = metered.device.uuid
        counters = None if windows is None else [read_counter(window, uuid) for window in windows]
        energies.append(device_energy(process, metered, spanned, counters))
    return energies


def _result(seen: Seen, clocks: Clocks, plan: Plan, shares: RequestShares | None) -> RawProcessResult:
    process, devices, work = seen.process, seen.devices, seen.work
    walls = [
        (utc(clocks.wall_ns(process.segment, start)), utc(clocks.wall_ns(process.segment, end)))
        for start, end in seen.spans
    ]
    duration_sec = sum((end - start for start, end in walls), timedelta()).total_seconds()
    work_reported = process.work if process.wraps_program and seen.is_whole else None
    inference = _inference(seen, duration_sec, work_reported)
    serving = serving_metrics(
        process, seen.requests, drain=seen.drain, idle_energy_j=shares.idle_j if shares else None
    )
    return RawProcessResult(
        experiment_id=process.segment.experiment_id,
        process_index=process.process_index,
        host=process.host,
        group_id=process.started.group_id if process.started else None,
        group_rank=process.started.group_rank if process.started else None,
        timestamps=Timestamps.from_times(walls[0][0], walls[-1][1]),
        windows=walls if len(walls) > 1 else [],
        inference_metrics=inference,
        energy_metrics=EnergyMetrics.from_devices(
            devices, beside=seen.beside, duration_sec=duration_sec, total_tokens=inference.total_tokens
        ),
        compute_metrics=compute_metrics(process, work, inference),
        devices=list(devices),
        beside=list(seen.beside),
        energy_source=least_trusted([device.energy_source for device in devices]),
        energy_breakdown=energy_breakdown(process, devices, duration_sec=duration_sec),
        thermal_throttle=throttling(seen.samples, seen.spans),
        serving=serving,
        extended_metrics=efficiency(process, seen.samples, work, plan=plan),
        warnings=[
            *process_doubts(
                process,
                [*devices, *seen.beside],
                max_disagreement=thresholds(plan).max_energy_disagreement,
            ),
            *serving_doubts(serving),
        ],
        requests=_told(work_reported, "requests") if process.wraps_program else work.requests,
        failed_requests=None if process.wraps_program else work.failed_requests,
        status=process_status(process),
        # of sums nobody knows how they were sampled
        **({} if _has_sums_only(seen) else _sampling(seen.samples)),
        **_identity(process, plan),
    )


def process_status(process: ProcessFacts) -> Status:
    """How the process ended."""
    if process.completed is not None:
        return "interrupted" if process.completed.stopped_early else "completed"
    return "failed" if process.failed is not None else "incomplete"


def _inference(seen: Seen, duration_sec: float, reported: WorkReported | None) -> InferenceMetrics:
    """Tokens and latencies; a wrapped program has the tokens that it reported, and nothing else is known of it."""
    if seen.process.wraps_program:
        return InferenceMetrics.from_reports(
            total_tokens=_told(reported, "tokens"),
            input_tokens=_told(reported, "input_tokens"),
            output_tokens=_told(reported, "output_tokens"),
            inference_time_sec=duration_sec,
        )
    return InferenceMetrics.from_counts(
        input_tokens=seen.work.input_tokens,
        output_tokens=seen.work.output_tokens,
        inference_time_sec=duration_sec,
        latency_measurements=seen.work.measured,
    )


def _told(work: WorkReported | None, name: str) -> int | None:
    count: int | None = getattr(work, name, None)
    return count


def _has_sums_only(seen: Seen) -> bool:
    """Whether another program wrote what it counted, and none of its samples."""
    return seen.process.is_imported and not any(each.count for spanned in seen.samples for each in spanned)


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
    gpus = (metered.device for _, metered in process.every_device if metered.device.kind in GPU_KINDS)
    gpu = next(gpus, None)
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
        "batch_size": _planned_batch(process, plan),
        "gpu_id": gpu.index if gpu else None,
        "gpu_name": gpu.name if gpu else None,
        "gpu_is_mig": gpu is not None and gpu.kind == "mig",
        "gpu_mig_profile": gpu.mig_profile if gpu else None,
        "warmup_result": _warmup(process, plan.get("windows", {})),
        "environment_snapshot": _environment(process),
        "effective_config": plan,
    }


def _planned_batch(process: ProcessFacts, plan: Plan) -> int | None:
    """A server batches as it likes."""
    planned: int | None = None if process.server else plan.get("engine", {}).get("batch_size")
    return planned


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


def compute_metrics(process: ProcessFacts, work: Work, inference: InferenceMetrics) -> ComputeMetrics:
    """FLOPs of the work done, and the memory that the model's process held."""
    return ComputeMetrics.from_flops(
        work.flops,
        total_tokens=inference.total_tokens,
        inference_time_sec=inference.inference_time_sec,
        peak_memory_mb=_mebibytes(process.completed.peak_memory_bytes if process.completed else None),
        model_memory_mb=_mebibytes(process.model.weights_bytes if process.model else None),
        flops_method=None if work.flops is None else FLOPS_METHOD,
        compute_precision=process.model.dtype if process.model else None,
    )


def efficiency(
    process: ProcessFacts,
    samples: Sequence[Sequence[DeviceSamples]],
    work: Work,
    *,
    plan: dict[str, Any],
) -> ExtendedEfficiencyMetrics:
    """What the devices' samples and the batches say; memory in use is the whole device's."""
    memory_bytes = [metered.device.memory_bytes for metered in process.devices]
    used_bytes = [largest(in_span.largest("memory_used_bytes") for in_span in spanned) for spanned in samples]
    return ExtendedEfficiencyMetrics(
        memory=MemoryEfficiencyMetrics(
            total_vram_mb=_mebibytes(total(memory_bytes)),
            model_memory_mb=_mebibytes(process.model.weights_bytes if process.model else None),
            peak_memory_mb=_peak_mb(process, used_bytes),
        ),
        gpu_utilisation=_utilisation(samples),
        batch=_batches(work, planned=_planned_batch(process, plan)),
    )


def _peak_mb(process: ProcessFacts, used_bytes: Sequence[float | None]) -> float | None:
    """What the engine says of its own process, else what was in use on its devices."""
    own = process.completed.peak_memory_bytes if process.completed else None
    return _mebibytes(total(used_bytes) if own is None else own)


def _utilisation(samples: Sequence[Sequence[DeviceSamples]]) -> GPUUtilisationMetrics:
    flat = [in_span for spanned in samples for in_span in spanned]
    busy_pct, count = _mean_of(flat, "gpu_utilisation_pct")
    memory_pct, _ = _mean_of(flat, "memory_utilisation_pct")
    return GPUUtilisationMetrics(
        sm_utilisation_mean=busy_pct, sm_utilisation_samples=count, memory_bandwidth_utilisation=memory_pct
    )


def _mean_of(samples: Sequence[DeviceSamples], column: str) -> tuple[float | None, int]:
    """Over all known values, and how many they are."""
    sums, counts = zip(*(in_span.sum_of(column) for in_span in samples), strict=True) if samples else ((), ())
    return ratio(float(sum(sums)), sum(counts)), sum(counts)


def _batches(work: Work, *, planned: int | None) -> BatchEfficiencyMetrics:
    return BatchEfficiencyMetrics(
        effective_batch_size=work.mean_batch_size,
        batch_utilisation=ratio(work.mean_batch_size, planned),
        num_batches=work.batch_count or None,
    )


def energy_breakdown(
    process: ProcessFacts, devices: Sequence[DeviceEnergy], *, duration_sec: float
) -> EnergyBreakdown | None:
    """Energy with and without the idle power that was measured before loading; None without devices."""
    before = process.baselines.get("before")
    if not devices:
        return None
    here = "imported" if process.is_imported else "measured"
    method = None if before is None else "reused" if before.reused_from else here
    return EnergyBreakdown.from_devices(
        devices,
        duration_sec=duration_sec,
        baseline_method=method,
        baseline_cache_age_sec=before.age_s if before is not None and before.reused_from else None,
        baseline_std_w=root_of_squares(power.std_power_w for power in process.idle_powers("before")),
        baseline_after_w=total(power.mean_power_w for power in process.idle_powers("after")),
    )


def _mebibytes(count: float | None) -> float | None:
    return None if count is None else count / BYTES_PER_MB


def throttling(
    devices: Sequence[Sequence[DeviceSamples]], spans: Sequence[Span]
) -> ThermalThrottleInfo | None:
    """What the samples of each device in each span say; the duration is that of the device with most.

    Moments are in seconds from the start of the first span. None without devices.
    """
    flat = [samples for spanned in devices for samples in spanned]
    if not flat:
        return None
    moments = {
        moment
        for spanned in devices
        for samples, span in zip(spanned, spans, strict=True)
        if samples.throttling is not None
        for moment in _first_moments(samples.throttling, seconds(span[0] - spans[0][0]))
    }
    temperatures = [hottest for samples in flat if (hottest := samples.largest("temperature_c")) is not None]
    return ThermalThrottleInfo(
        detected=_reported(flat, ANY_REASON),
        thermal=_reported(flat, SW_THERMAL | HW_THERMAL),
        power=_reported(flat, SW_POWER | HW_POWER),
        sw_thermal=_reported(flat, SW_THERMAL),
        hw_thermal=_reported(flat, HW_THERMAL),
        hw_power=_reported(flat, HW_POWER),
        throttle_duration_sec=largest(_duration(spanned) for spanned in devices),
        max_temperature_c=max(temperatures, default=None),
        throttle_timestamps=sorted(moments)[:MAX_TIMESTAMPS],
    )


def _first_moments(throttling: Throttling, shift_sec: float) -> Iterator[float]:
    """Each once, to the millisecond."""
    rounded = (round(shift_sec + float(at_sec), 3) for at_sec in throttling.starts_sec)
    return islice((moment for moment, _ in groupby(rounded)), MAX_TIMESTAMPS)


def _duration(spanned: Sequence[DeviceSamples]) -> float | None:
    throttlings = [samples.throttling for samples in spanned]
    return total(None if throttling is None else throttling.duration_sec for throttling in throttlings)


def _reported(spans: Sequence[DeviceSamples], mask: int) -> bool | None:
    """Whether any device reports a reason in `mask`; None where no driver tells."""
    told = [samples.throttling for samples in spans if samples.throttling is not None]
    return any(throttling.reasons & mask for throttling in told) if told else None


def thresholds(plan: dict[str, Any]) -> ValidityPlan:
    """Those of the plan; one that another llem called otherwise, or that cannot be read, is left at its default."""
    return _read(plan)[0]


def unreadable_thresholds(plan: dict[str, Any]) -> InvalidReason | None:
    """Why the verdict is by other thresholds than were asked for; None where it is not."""
    problem = _read(plan)[1]
    if problem is None:
        return None
    return InvalidReason(
        code="thresholds_unreadable",
        text=f"the plan's thresholds cannot be read, so the defaults stand: {problem}",
    )


def _read(plan: dict[str, Any]) -> tuple[ValidityPlan, str | None]:
    asked = plan.get("validity", {})
    if not isinstance(asked, dict):
        return ValidityPlan(), f"found {type(asked).__name__}, expected a table"
    known = {name: value for name, value in asked.items() if name in ValidityPlan.__struct_fields__}
    try:
        return msgspec.convert(known, ValidityPlan), None
    except msgspec.ValidationError as error:
        return ValidityPlan(), str(error)
