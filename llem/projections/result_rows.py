"""Rows of results: what people filter by as columns, the whole of it as JSON."""

import math
from datetime import datetime
from typing import Any

import msgspec

from llem.projections.clocks import EPOCH, timestamp
from llem.projections.derive.experiment import Derived, log_warnings
from llem.projections.derive.history import Span
from llem.projections.tables import Rows
from llem.results import RESULTS_VERSION, ExperimentResult, LatencyStatistics, RawProcessResult
from llem.results.nullable import ratio

SAME_NAME = (
    "model_name",
    "weights",
    "dtype",
    "batch_size",
    "duration_sec",
    "failed_requests",
    "total_energy_j",
    "energy_disagreement",
    "energy_uncertainty_j",
    "baseline_power_w",
    "energy_adjusted_j",
    "measured_sec",
    "avg_tokens_per_second",
    "tokens_per_second",
    "output_tokens_per_second",
    "tokens_per_joule",
    "mean_power_w",
    "avg_energy_per_token_j",
    "energy_per_output_token_j",
    "total_flops",
    "flops_method",
    "flops_per_second",
    "model_flops_utilisation",
    "total_inference_time_sec",
    "valid",
)
LATENCIES = tuple(
    f"{kind}_{statistic}_ms"
    for kind in ("ttft", "itl", "itl_trimmed", "e2e")
    for statistic in ("mean", "median", "p95", "p99")
)


def warnings(derived: Derived) -> Rows:
    """One row per doubt."""
    of_processes: Rows = [
        {"process_index": measured.process.process_index, **msgspec.structs.asdict(doubt)}
        for measured in derived.measured
        for doubt in measured.result.warnings
    ]
    result = derived.result
    joined = result.aggregation.warnings if result and result.aggregation else []
    imported = result.measurement_warnings if result and not derived.measured else []
    coded = [("aggregation", joined), ("imported", imported)]
    whole: Rows = [{"code": code, "text": text} for code, texts in coded for text in texts]
    of_the_log: Rows = [msgspec.structs.asdict(doubt) for doubt in log_warnings(derived)]
    return [
        {"experiment_id": derived.facts.experiment_id, **row} for row in [*of_processes, *of_the_log, *whole]
    ]


def raw_process_results(derived: Derived) -> Rows:
    """One row per process that measured."""
    if derived.result is None:
        return []
    spans = {
        measured.process.segment.process_index: derived.wall_span(measured) for measured in derived.measured
    }
    return [
        _process(result, spans.get(result.process_index) or _imported_span(result))
        for result in derived.result.process_results
    ]


def _imported_span(result: RawProcessResult | ExperimentResult) -> Span:
    if isinstance(result, ExperimentResult):
        return _wall_ns(result.start_time), _wall_ns(result.end_time)
    return _wall_ns(result.timestamps.start), _wall_ns(result.timestamps.end)


def _wall_ns(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=EPOCH.tzinfo)
    since = aware - EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _process(result: RawProcessResult, span: Span) -> dict[str, Any]:
    inference, compute = result.inference_metrics, result.compute_metrics
    breakdown, throttle, extended = result.energy_breakdown, result.thermal_throttle, result.extended_metrics
    e2e_ms = inference.latency_measurements.e2e_ms if inference.latency_measurements else []
    return {
        "experiment_id": result.experiment_id,
        "process_index": result.process_index,
        "status": result.status,
        "host": result.host,
        "gpu_id": result.gpu_id,
        "gpu_name": result.gpu_name,
        "engine": result.backend,
        "model_name": result.model_name,
        "attention": result.attention,
        "cache": result.cache,
        "quantization": result.quantization,
        **_times(span),
        "inference_time_sec": inference.inference_time_sec,
        **_tokens(inference.input_tokens, inference.output_tokens, inference.total_tokens),
        "tokens_per_second": inference.tokens_per_second,
        "output_tokens_per_second": inference.output_tokens_per_second,
        "requests": result.requests,
        "failed_requests": result.failed_requests,
        "total_energy_j": result.energy_j,
        "energy_source": result.energy_source,
        "baseline_power_w": breakdown.baseline_power_w if breakdown else None,
        "energy_adjusted_j": breakdown.adjusted_j if breakdown else None,
        "flops_total": compute.flops_total,
        "flops_method": compute.flops_method,
        "peak_memory_mb": compute.peak_memory_mb,
        "gpu_utilisation_pct": extended.gpu_utilisation.sm_utilisation_mean if extended else None,
        "max_temperature_c": throttle.max_temperature_c if throttle else None,
        "throttle_sec": throttle.throttle_duration_sec if throttle else None,
        "ttft_mean_ms": inference.time_to_first_token_ms,
        "e2e_mean_ms": ratio(math.fsum(e2e_ms), len(e2e_ms)),
        "result": result,
    }


def experiment_results(derived: Derived) -> Rows:
    """One row, with NULL for every figure where nothing was measured."""
    plan, started = derived.facts.plan, derived.facts.started
    planned = {
        "experiment_id": derived.facts.experiment_id,
        "name": plan.get("name"),
        "status": derived.status,
        "model_name": plan.get("model", {}).get("name"),
        "engine": plan.get("engine", {}).get("name"),
        "batch_size": plan.get("engine", {}).get("batch_size"),
        "processes": 0,
        "expected_processes": started.expected_processes if started else None,
        "invalid_reasons": [],
        "labels": started.labels if started else {},
        "measurement_config_hash": started.measurement_config_hash if started else None,
        "results_version": RESULTS_VERSION,
    }
    return [planned if derived.result is None else planned | _figures(derived, derived.result)]


def _figures(derived: Derived, result: ExperimentResult) -> dict[str, Any]:
    span = (derived.start_ns, derived.end_ns) if derived.measured else _imported_span(result)
    input_tokens, output_tokens = result.total_input_tokens, result.total_output_tokens
    meters = [measured.process.meter.meter for measured in derived.measured if measured.process.meter]
    steady_from_sec, steady_to_sec = result.steady_state_window or (None, None)
    latency = result.latency_stats or LatencyStatistics()
    return {
        **{name: getattr(result, name) for name in SAME_NAME},
        **{name: getattr(latency, name) for name in LATENCIES},
        **_times(span),
        **_tokens(input_tokens, output_tokens, result.total_tokens),
        **_health(result),
        "engine": result.backend,
        "processes": result.num_processes,
        "measurement_config_hash": result.measurement_config_hash,
        "labels": result.labels,
        "requests": result.total_requests,
        "energy_source": result.energy_source,
        "meter": next(iter(meters), None),
        "steady_state_from_sec": steady_from_sec,
        "steady_state_to_sec": steady_to_sec,
        "invalid_reasons": [reason.text for reason in result.invalid_reasons],
        "result": result,
    }


def _times(span: Span) -> dict[str, Any]:
    start_ns, end_ns = span
    return {
        "start_ns": start_ns,
        "end_ns": end_ns,
        "start_time": timestamp(start_ns),
        "end_time": timestamp(end_ns),
    }


def _tokens(
    input_tokens: int | None, output_tokens: int | None, total_tokens: int | None
) -> dict[str, int | None]:
    return {"input_tokens": input_tokens, "output_tokens": output_tokens, "total_tokens": total_tokens}


def _health(result: ExperimentResult) -> dict[str, Any]:
    throttle, extended = result.thermal_throttle, result.extended_metrics
    return {
        "gpu_utilisation_pct": extended.gpu_utilisation.sm_utilisation_mean if extended else None,
        "peak_memory_mb": extended.memory.peak_memory_mb if extended else None,
        "throttle_detected": throttle.detected if throttle else None,
        "throttle_sec": throttle.throttle_duration_sec if throttle else None,
        "max_temperature_c": throttle.max_temperature_c if throttle else None,
    }
