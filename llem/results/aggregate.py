"""Joining the processes of an experiment, after all of them have been measured."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec

from llem.errors import AggregationError
from llem.results.attribution import JoinedEnergy, energy_of_kinds, join_energy, multi_gpu_metrics
from llem.results.completeness import check
from llem.results.energy import (
    CPU_KINDS,
    GPU_KINDS,
    RAM_KINDS,
    EnergyBreakdown,
    MultiGPUMetrics,
    adjusted,
    distinct,
    least_trusted,
)
from llem.results.environment import EnvironmentSnapshot
from llem.results.experiment import AggregationMetadata, ExperimentResult, Methodology
from llem.results.flops import model_flops_utilisation
from llem.results.intervals import Interval, duration, run_together
from llem.results.latency import LatencyStatistics, latency_statistics
from llem.results.merging import merge_efficiency, merge_throttling
from llem.results.nullable import largest, mean, ratio, total
from llem.results.phase_split import PhaseSplit, joined
from llem.results.process import RawProcessResult, Status, ThermalThrottleInfo, WarmupResult

Fact = TypeVar("Fact")
APART = "processes shared less than half of the shortest one's time"
STATUSES: tuple[Status, ...] = ("failed", "interrupted", "incomplete", "completed")  # worst first


class Overrides(TypedDict, total=False):
    """Fields of the result that stand in place of what the processes say; None stands for none."""

    steady_state_window: tuple[float, float] | None
    baseline_power_w: float | None
    energy_adjusted_j: float | None
    energy_per_device_j: Sequence[float | None] | None
    energy_breakdown: EnergyBreakdown | None
    multi_gpu: MultiGPUMetrics | None
    environment_snapshot: EnvironmentSnapshot | None
    warmup_excluded_samples: int | None
    warmup_result: WarmupResult | None
    thermal_throttle: ThermalThrottleInfo | None
    timeseries: str | None
    effective_config: dict[str, Any] | None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums and means over processes, before they are divided by each other."""

    tokens: int | None
    input_tokens: int | None
    output_tokens: int | None
    rate: float | None  # mean of the processes' own rates, total tokens per second
    flops: float | None
    inference_sec: float
    measured_sec: float  # union of all measurement windows
    energy: JoinedEnergy
    latency: LatencyStatistics | None


def join(
    results: Sequence[RawProcessResult],
    *,
    experiment_id: str,
    measurement_config_hash: str,
    problems: Sequence[str],
    measurement_warnings: Sequence[str] | None,
    verify_temporal_overlap: bool,
    verify_gpu_attribution: bool,
    latency_stats: LatencyStatistics | None,
) -> ExperimentResult:
    """Join process results that belong together, in the order of their indices."""
    start_time = min(result.timestamps.start for result in results)
    end_time = max(result.timestamps.end for result in results)
    totals = _totals(
        results, duration_sec=(end_time - start_time).total_seconds(), latency_stats=latency_stats
    )
    energy = totals.energy
    together = not verify_temporal_overlap or run_together([_window(result) for result in results])
    return ExperimentResult(
        experiment_id=experiment_id,
        measurement_config_hash=measurement_config_hash,
        aggregation=AggregationMetadata(
            num_processes=len(results),
            temporal_overlap_verified=verify_temporal_overlap and together,
            gpu_attribution_verified=verify_gpu_attribution
            and energy.attribution_verified
            and not any(result.serving and result.serving.other_processes_on_gpus for result in results),
            warnings=[
                *problems,
                *([] if together else [APART]),
                *energy.unmeasured,
                *(energy.doubts_of_attribution if verify_gpu_attribution else []),
                *_doubts(results),
            ],
        ),
        start_time=start_time,
        end_time=end_time,
        measurement_warnings=_measurement_warnings(results, energy, given=measurement_warnings),
        process_results=list(results),
        **_identity(results),
        **_work_figures(totals),
        **_energy_figures(results, totals),
        **_merged(results, totals, start_time),
    )


def _measurement_warnings(
    results: Sequence[RawProcessResult], energy: JoinedEnergy, *, given: Sequence[str] | None
) -> list[str]:
    """The given doubts or else those of the processes, each once; a missing energy never without its reason."""
    texts = [doubt.text for result in results for doubt in result.warnings] if given is None else given
    return list(dict.fromkeys([*texts, *energy.unmeasured]))


def _window(result: RawProcessResult) -> Interval:
    return result.timestamps.start, result.timestamps.end


def _doubts(results: Sequence[RawProcessResult]) -> list[str]:
    return [
        doubt
        for result in results
        for doubt in (_doubt_of_tokens(result), _doubt_of_energy(result), _doubt_of_idle_power(result))
        if doubt is not None
    ]


def _doubt_of_tokens(result: RawProcessResult) -> str | None:
    inference, who = result.inference_metrics, f"process {result.process_index}"
    if result.is_silent:
        return None
    if inference.total_tokens is None:
        return f"tokens of {who} were not measured, so neither are rates and energies of tokens"
    if inference.tokens_per_second is None:
        return f"tokens per second of {who} are unknown, so the mean is too"
    return None


def _doubt_of_energy(result: RawProcessResult) -> str | None:
    """What the process says itself; of a MIG instance what nobody may miss."""
    if result.energy_measurement_warning or not result.on_mig_instance:
        return result.energy_measurement_warning
    return (
        f"process {result.process_index} ran on a MIG instance: its energy is that of the whole GPU, "
        "other instances included"
    )


def _doubt_of_idle_power(result: RawProcessResult) -> str | None:
    breakdown = result.energy_breakdown
    if breakdown is None or breakdown.baseline_power_w is not None or result.energy_j is None:
        return None
    return f"idle power of process {result.process_index} was not measured, so energy above it is unknown"


def _totals(
    results: Sequence[RawProcessResult], *, duration_sec: float, latency_stats: LatencyStatistics | None
) -> Totals:
    speaking = [result for result in results if not result.is_silent]
    inference = [result.inference_metrics for result in speaking]
    measured = [
        metrics.latency_measurements for metrics in inference if metrics.latency_measurements is not None
    ]
    return Totals(
        tokens=_count([metrics.total_tokens for metrics in inference]),
        input_tokens=_count([metrics.input_tokens for metrics in inference]),
        output_tokens=_count([metrics.output_tokens for metrics in inference]),
        rate=mean(metrics.tokens_per_second for metrics in inference),
        flops=total(result.compute_metrics.flops_total for result in speaking),
        inference_sec=total(metrics.inference_time_sec for metrics in inference) or 0.0,
        measured_sec=duration(span for result in results for span in result.spans).total_seconds(),
        energy=join_energy(results, duration_sec=duration_sec),
        latency=latency_stats or latency_statistics(measured),
    )


def _work_figures(totals: Totals) -> dict[str, Any]:
    return {
        "total_tokens": totals.tokens,
        "total_input_tokens": totals.input_tokens,
        "total_output_tokens": totals.output_tokens,
        "total_inference_time_sec": totals.inference_sec,
        "avg_tokens_per_second": totals.rate,
        "measured_sec": totals.measured_sec,
        "tokens_per_second": ratio(totals.tokens, totals.measured_sec),
        "output_tokens_per_second": ratio(totals.output_tokens, totals.measured_sec),
        "total_flops": totals.flops,
        "flops_per_output_token": ratio(totals.flops, totals.output_tokens),
        "flops_per_input_token": ratio(totals.flops, totals.input_tokens),
        "flops_per_second": ratio(totals.flops, totals.measured_sec),
    }


def _utilisation(results: Sequence[RawProcessResult], totals: Totals) -> float | None:
    devices = {
        (device.host, device.uuid): device.name or "" for result in results for device in result.devices
    }
    return model_flops_utilisation(
        totals.flops,
        duration_s=totals.measured_sec,
        device_names=list(devices.values()),
        dtype=_first(results, lambda result: result.dtype),
    )


def _merged(results: Sequence[RawProcessResult], totals: Totals, start_time: datetime) -> dict[str, Any]:
    return {
        "model_flops_utilisation": _utilisation(results, totals),
        "latency_stats": totals.latency,
        "multi_gpu": multi_gpu_metrics(totals.energy, output_tokens=totals.output_tokens),
        "thermal_throttle": merge_throttling(results, start_time),
        "extended_metrics": merge_efficiency(
            results,
            latency=totals.latency,
            energy_j=totals.energy.total_j,
            output_tokens=totals.output_tokens,
            tokens_per_second=totals.rate,
        ),
    }


def _energy_figures(results: Sequence[RawProcessResult], totals: Totals) -> dict[str, Any]:
    energy, breakdown = totals.energy, totals.energy.breakdown
    devices = [device for result in results for device in result.devices]
    return {
        "total_energy_j": energy.total_j,
        "energy_gpu_j": energy_of_kinds(results, GPU_KINDS),
        "energy_cpu_j": energy_of_kinds(results, CPU_KINDS),
        "energy_dram_j": energy_of_kinds(results, RAM_KINDS),
        "energy_source": least_trusted([result.least_trusted_source for result in results]),
        "energy_uncertainty_j": energy.uncertainty_j,
        "energy_disagreement": largest(device.disagreement for device in devices),
        "avg_energy_per_token_j": ratio(energy.total_j, totals.tokens),
        "energy_per_output_token_j": ratio(energy.total_j, totals.output_tokens),
        "energy_per_device_j": energy.per_device_j,
        "energy_breakdown": breakdown,
        "baseline_power_w": breakdown.baseline_power_w if breakdown else None,
        "energy_adjusted_j": breakdown.adjusted_j if breakdown else None,
    }


def _identity(results: Sequence[RawProcessResult]) -> dict[str, Any]:
    warmups = [result.warmup_result for result in results if result.warmup_result]
    return {
        "backend": results[0].backend,
        "backend_version": _first(results, lambda result: result.backend_version),
        "model_name": _first(results, lambda result: result.model_name),
        "dtype": _first(results, lambda result: result.dtype),
        "batch_size": _first(results, lambda result: result.batch_size),
        "weights": _first(results, lambda result: result.weights),
        "flops_method": _first(results, lambda result: result.compute_metrics.flops_method),
        "warmup_result": next(
            (warmup for warmup in warmups if not warmup.converged), next(iter(warmups), None)
        ),
        "warmup_excluded_samples": sum(warmup.iterations_completed for warmup in warmups)
        if warmups
        else None,
        "environment_snapshot": _first(results, lambda result: result.environment_snapshot),
        "effective_config": _first(results, lambda result: result.effective_config or None) or {},
        "timeseries": _first(results, lambda result: result.timeseries),
        "phases": _phases(results),
        "serving": results[0].serving if len(results) == 1 else None,
        "total_requests": _count([result.requests for result in results]),
        "failed_requests": _count([result.failed_requests for result in results]),
        "status": next(status for status in STATUSES if status in {result.status for result in results}),
    }


def _phases(results: Sequence[RawProcessResult]) -> PhaseSplit | None:
    """Both phases' energy of all processes; a device that several used belongs to none of them alone."""
    if any(result.is_silent for result in results):
        return PhaseSplit(reason="several processes run one model")
    splits = [result.phases for result in results if result.phases is not None]
    if len(splits) < len(results):
        return None
    keys = [device.key for result in results for device in distinct(result.devices)]
    if len(set(keys)) < len(keys):
        return PhaseSplit(reason="several processes used a device")
    return splits[0] if len(splits) == 1 else joined(splits)


def _first(
    results: Sequence[RawProcessResult], fact: Callable[[RawProcessResult], Fact | None]
) -> Fact | None:
    return next((known for known in map(fact, results) if known is not None), None)


def _count(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def aggregate_results(
    raw_results: Sequence[RawProcessResult],
    experiment_id: str,
    measurement_config_hash: str,
    *,
    measurement_methodology: Methodology = "total",
    measurement_warnings: Sequence[str] | None = None,
    verify_temporal_overlap: bool = True,
    verify_gpu_attribution: bool = True,
    expected_processes: int | None = None,
    completed: Collection[int] | None = None,
    strict: bool = True,
    allow_mixed_backends: bool = False,
    latency_stats: LatencyStatistics | None = None,
    **overrides: Unpack[Overrides],
) -> ExperimentResult:
    """Join process results into one; what is given here stands in place of what the processes say.

    Energy above a given idle power follows from it unless it is given too, and a missing energy keeps its reason
    beside given warnings. Mixed backends are joined without a word where they are allowed, else refused or warned of.
    `completed` holds the indices of processes that have a completion event; None takes all for complete. Raises
    AggregationError for results that do not belong together or are not all there; with strict=False, warns.
    """
    if unknown := set(overrides) - set(Overrides.__annotations__):
        raise TypeError(f"aggregate_results() got unexpected keywords {', '.join(sorted(unknown))}")
    if not raw_results:
        raise AggregationError("no process results to join", hint="did any process finish?")
    results = sorted(raw_results, key=_order)
    consistency = check(
        results,
        experiment_id,
        expected_processes=expected_processes,
        completed=completed,
        strict=strict,
        allow_mixed_backends=allow_mixed_backends,
    )
    joined = join(
        results,
        experiment_id=experiment_id,
        measurement_config_hash=measurement_config_hash,
        problems=consistency.problems,
        measurement_warnings=measurement_warnings,
        verify_temporal_overlap=verify_temporal_overlap,
        verify_gpu_attribution=verify_gpu_attribution,
        latency_stats=latency_stats,
    )
    given = {name: value for name, value in overrides.items() if value is not None}
    figures = _implied(overrides.get("energy_breakdown"), overrides.get("warmup_result")) | given
    return msgspec.structs.replace(
        joined,
        measurement_methodology=measurement_methodology,
        expected_processes=expected_processes,
        status=joined.status if consistency.complete else _incomplete(joined.status),
        **figures,
        **_consistent(joined, figures),
    )


def _order(result: RawProcessResult) -> tuple[int, datetime, datetime, str]:
    return result.process_index, result.timestamps.start, result.timestamps.end, result.experiment_id


def _incomplete(status: Status) -> Status:
    return "incomplete" if status == "completed" else status


def _consistent(joined: ExperimentResult, given: dict[str, Any]) -> dict[str, Any]:
    """What has to follow from what is given."""
    if "baseline_power_w" not in given or "energy_adjusted_j" in given:
        return {}
    above_idle_j = adjusted(
        joined.total_energy_j, baseline_w=given["baseline_power_w"], duration_sec=joined.duration_sec
    )
    return {"energy_adjusted_j": above_idle_j}


def _implied(breakdown: EnergyBreakdown | None, warmup: WarmupResult | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if breakdown:
        fields |= {"baseline_power_w": breakdown.baseline_power_w, "energy_adjusted_j": breakdown.adjusted_j}
    if warmup:
        fields["warmup_excluded_samples"] = warmup.iterations_completed
    return fields
