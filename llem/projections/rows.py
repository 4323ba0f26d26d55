"""Rows of the derived tables."""

from collections.abc import Callable, Mapping
from typing import Any

import duckdb
import msgspec

from llem.projections.clocks import timestamp
from llem.projections.derive_experiment import Derived
from llem.projections.derive_process import Measured, last_known_ns, process_status
from llem.projections.device_energy import baseline_power_w, device_energy, read_counter
from llem.projections.device_samples import load_samples
from llem.projections.facts import ProcessFacts, Window
from llem.results import RESULTS_VERSION, LatencyStatistics
from llem.results.energy import distinct
from llem.results.ratios import ratio
from llem.units import MW_PER_W, NS_PER_S, seconds
from llem_events.events import MeteredDevice

Rows = list[dict[str, Any]]


def experiments(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    facts, started = derived.facts, derived.facts.started
    supervisor = next((one for one in facts.segments if one.role == "supervisor"), None)
    started_ns = supervisor.wall_ns if supervisor else None
    return [
        {
            "experiment_id": facts.experiment_id,
            "name": started.plan.get("name") if started else None,
            "status": derived.status,
            "problem": _problem(derived),
            "salvaged": any(one.skipped_bytes > 0 for one in facts.segments),
            "expected_processes": started.expected_processes if started else None,
            "labels": started.labels if started else {},
            "plan": started.plan if started else None,
            "command": (started.command or None) if started else None,
            "measurement_config_hash": started.measurement_config_hash if started else None,
            "llem_version": started.llem_version if started else None,
            "started_ns": started_ns,
            "started_time": timestamp(started_ns),
        }
    ]


def _problem(derived: Derived) -> str | None:
    facts = derived.facts
    if facts.refused is not None:
        return f"{facts.refused.file}: {facts.refused.problem}"
    if facts.interrupted is not None:
        return facts.interrupted.reason
    failed = (one.failed for one in facts.processes if one.failed is not None)
    return next((f"{one.stage}: {one.message}" for one in failed), None)


def processes(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    return [_process(derived, process) for process in derived.facts.processes]


def _process(derived: Derived, process: ProcessFacts) -> dict[str, Any]:
    started, model, warmup = process.started, process.model, process.warmup
    meter, sampling = process.meter, process.sampling
    return {
        "experiment_id": derived.facts.experiment_id,
        "process_index": process.process_index,
        "segment_id": process.segment.segment_id,
        "host": process.host,
        "pid": process.segment.pid,
        "status": "running" if _is_running(derived, process) else process_status(process),
        "problem": f"{process.failed.stage}: {process.failed.message}" if process.failed else None,
        "engine": started.engine if started else None,
        "model_name": model.model_name if model else None,
        "weights": model.weights if model else None,
        "dtype": model.dtype if model else None,
        "device": model.device if model else None,
        "parameters": model.parameters if model else None,
        "load_sec": seconds(model.load_time_ns) if model and model.load_time_ns is not None else None,
        "warmup_batches": len(warmup.latencies_ms) if warmup else None,
        "warmup_converged": warmup.converged if warmup else None,
        "prompt_set_sha256": process.prompts.prompt_set_sha256 if process.prompts else None,
        "meter": meter.meter if meter else None,
        "sample_hz": meter.sample_hz if meter else None,
        "samples_dropped": sampling.samples_dropped if sampling else None,
        "deadlines_missed": sampling.deadlines_missed if sampling else None,
        "versions": started.versions if started else {},
        "environment": started.environment if started else None,
    }


def _is_running(derived: Derived, process: ProcessFacts) -> bool:
    return derived.status == "running" and process.completed is None and process.failed is None


def devices(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    return [
        _device(derived, process, metered)
        for process in derived.facts.processes
        for metered in process.devices
    ]


def _device(derived: Derived, process: ProcessFacts, metered: MeteredDevice) -> dict[str, Any]:
    device, before = metered.device, process.baselines.get("before")
    powers = {power.device_uuid: power for power in (before.devices if before else [])}
    power = powers.get(device.uuid)
    tick_ns, limit_mw = metered.counter_tick_ns, device.power_limit_mw
    return {
        "experiment_id": derived.facts.experiment_id,
        "process_index": process.process_index,
        "host": device.host,
        "device_uuid": device.uuid,
        "device_index": device.index,
        "device_name": device.name,
        "kind": device.kind,
        "mig_profile": device.mig_profile,
        "parent_uuid": device.parent_uuid,
        "pci_id": device.pci_id,
        "memory_bytes": device.memory_bytes,
        "power_limit_w": None if limit_mw is None else limit_mw / MW_PER_W,
        "meter": process.meter.meter if process.meter else None,
        "energy_source": metered.energy_source,
        "power_kind": metered.power_kind,
        "counter_tick_sec": None if tick_ns is None else tick_ns / NS_PER_S,
        "baseline_power_w": power.mean_power_w if power else None,
        "baseline_std_w": power.std_power_w if power else None,
        "baseline_age_sec": before.age_s if before else None,
        "baseline_after_w": baseline_power_w(process, device.uuid, "after"),
        "missing": metered.missing,
    }


def windows(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    found: Rows = []
    for process in derived.facts.processes:
        for window in process.windows:
            found += _window(connection, derived, process, window)
    return found


def _window(
    connection: duckdb.DuckDBPyConnection, derived: Derived, process: ProcessFacts, window: Window
) -> Rows:
    facts, segment = derived.facts, process.segment
    span = (window.opened_ns, window.closed_ns or last_known_ns(connection, facts, process, window))
    shared = {
        "experiment_id": facts.experiment_id,
        "process_index": process.process_index,
        "kind": window.opened.kind,
        "window_index": window.opened.window_index,
        "opened_ns": span[0],
        "closed_ns": span[1],
        "closed": window.closed is not None,
        "start_time": timestamp(derived.clocks.wall_ns(segment, span[0])),
        "end_time": timestamp(derived.clocks.wall_ns(segment, span[1])),
        "duration_sec": seconds(span[1] - span[0]),
    }
    figures: Rows = []
    for metered in process.devices:
        samples = load_samples(
            connection,
            experiment_id=facts.experiment_id,
            process_index=process.process_index,
            device_uuid=metered.device.uuid,
            span=span,
        )
        energy = device_energy(process, metered, [samples], [read_counter(window, metered.device.uuid)])
        figures.append(
            {
                "device_uuid": metered.device.uuid,
                "energy_j": energy.energy_j,
                "energy_source": energy.energy_source,
                "counter_energy_j": energy.counter_energy_j,
                "integrated_energy_j": energy.integrated_energy_j,
                "energy_disagreement": energy.disagreement,
                "mean_power_w": ratio(energy.energy_j, samples.duration_sec),
                "samples": samples.count,
                "reason": energy.reason,
            }
        )
    return [shared | figure for figure in figures] or [shared]


def warnings(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    if derived.status == "damaged":
        return []
    by_process: Rows = [
        {"process_index": one.process.process_index, **msgspec.structs.asdict(warning)}
        for one in derived.measured
        for warning in one.result.warnings
    ]
    joined = derived.result.aggregation.warnings if derived.result and derived.result.aggregation else []
    texts = {row["text"] for row in by_process}
    whole: Rows = [{"code": "aggregation", "text": text} for text in joined if text not in texts]
    return [{"experiment_id": derived.facts.experiment_id, **row} for row in [*by_process, *whole]]


def raw_process_results(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    return [] if derived.status == "damaged" else [_raw(derived, one) for one in derived.measured]


def _raw(derived: Derived, one: Measured) -> dict[str, Any]:
    result, segment = one.result, one.process.segment
    inference, compute = result.inference_metrics, result.compute_metrics
    throttle, breakdown, extended = result.thermal_throttle, result.energy_breakdown, result.extended_metrics
    start_ns = derived.clocks.wall_ns(segment, one.spans[0][0])
    end_ns = derived.clocks.wall_ns(segment, one.spans[-1][1])
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
        "start_ns": start_ns,
        "end_ns": end_ns,
        "start_time": timestamp(start_ns),
        "end_time": timestamp(end_ns),
        "inference_time_sec": inference.inference_time_sec,
        "input_tokens": inference.input_tokens,
        "output_tokens": inference.output_tokens,
        "total_tokens": inference.total_tokens,
        "tokens_per_second": inference.tokens_per_second,
        "requests": result.requests,
        "failed_requests": result.failed_requests,
        "total_energy_j": result.energy_metrics.total_energy_j,
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
        "e2e_mean_ms": ratio(sum(e2e_ms), len(e2e_ms)),
        "result": result,
    }


def experiment_results(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    facts, started = derived.facts, derived.facts.started
    plan = started.plan if started else {}
    row = {
        "experiment_id": facts.experiment_id,
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
    return [row | _figures(derived)]


def _figures(derived: Derived) -> dict[str, Any]:
    result = derived.result
    if result is None:
        return {}
    latency = result.latency_stats or LatencyStatistics()
    names = [
        f"{kind}_{what}_ms" for kind in ("ttft", "itl", "e2e") for what in ("mean", "median", "p95", "p99")
    ]
    steady = result.steady_state_window or (None, None)
    throttle, extended = result.thermal_throttle, result.extended_metrics
    same = (
        "model_name",
        "weights",
        "dtype",
        "batch_size",
        "duration_sec",
        "failed_requests",
        "total_tokens",
        "total_energy_j",
        "energy_disagreement",
        "baseline_power_w",
        "energy_adjusted_j",
        "avg_tokens_per_second",
        "tokens_per_second",
        "avg_energy_per_token_j",
        "energy_per_output_token_j",
        "tokens_per_joule",
        "total_flops",
        "flops_method",
        "flops_per_second",
        "total_inference_time_sec",
        "valid",
    )
    return {
        **{name: getattr(result, name) for name in same},
        **{name: getattr(latency, name) for name in names},
        "engine": result.backend,
        "processes": len(result.process_results),
        "start_ns": derived.start_ns,
        "end_ns": derived.end_ns,
        "start_time": timestamp(derived.start_ns),
        "end_time": timestamp(derived.end_ns),
        "requests": result.total_requests,
        "input_tokens": result.total_input_tokens,
        "output_tokens": result.total_output_tokens,
        "energy_source": _source(derived),
        "meter": next((one.process.meter.meter for one in derived.measured if one.process.meter), None),
        "mean_power_w": ratio(result.total_energy_j, result.duration_sec),
        "gpu_utilisation_pct": extended.gpu_utilisation.sm_utilisation_mean if extended else None,
        "peak_memory_mb": extended.memory.peak_memory_mb if extended else None,
        "throttle_detected": throttle.detected if throttle else None,
        "throttle_sec": throttle.throttle_duration_sec if throttle else None,
        "max_temperature_c": throttle.max_temperature_c if throttle else None,
        "steady_state_from_sec": steady[0],
        "steady_state_to_sec": steady[1],
        "invalid_reasons": [reason.text for reason in result.invalid_reasons],
        "result": result,
    }


def _source(derived: Derived) -> str | None:
    """Where the energy comes from; mixed where devices differ, None where any has none."""
    found = distinct([device for one in derived.measured for device in one.result.devices])
    sources = {device.energy_source for device in found}
    if not sources or None in sources:
        return None
    return next(iter(sources)) if len(sources) == 1 else "mixed"


BUILDERS: Mapping[str, Callable[[duckdb.DuckDBPyConnection, Derived], Rows]] = {
    "experiments": experiments,
    "processes": processes,
    "devices": devices,
    "windows": windows,
    "warnings": warnings,
    "raw_process_results": raw_process_results,
    "experiment_results": experiment_results,
}
