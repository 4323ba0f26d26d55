"""Joining the processes of an experiment, after all of them have been measured."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec

from llem.errors import AggregationError
from llem.results.consistency import check
from llem.results.energy import EnergyBreakdown, MultiGPUMetrics, adjusted
from llem.results.environment import EnvironmentSnapshot
from llem.results.experiment import ExperimentResult, Methodology
from llem.results.joining import join
from llem.results.metrics import ThermalThrottleInfo, WarmupResult
from llem.results.process import RawProcessResult, Status

REPLACEABLE = frozenset(
    (
        "steady_state_window",
        "baseline_power_w",
        "energy_adjusted_j",
        "energy_per_device_j",
        "energy_breakdown",
        "multi_gpu",
        "environment_snapshot",
        "warmup_excluded_samples",
        "warmup_result",
        "thermal_throttle",
        "timeseries",
        "effective_config",
    )
)


def aggregate_results(
    raw_results: Sequence[RawProcessResult],
    experiment_id: str,
    measurement_config_hash: str,
    measurement_methodology: Methodology = "total",
    steady_state_window: tuple[float, float] | None = None,
    baseline_power_w: float | None = None,
    energy_adjusted_j: float | None = None,
    energy_per_device_j: Sequence[float | None] | None = None,
    energy_breakdown: EnergyBreakdown | None = None,
    multi_gpu: MultiGPUMetrics | None = None,
    environment_snapshot: EnvironmentSnapshot | None = None,
    measurement_warnings: Sequence[str] | None = None,
    warmup_excluded_samples: int | None = None,
    warmup_result: WarmupResult | None = None,
    thermal_throttle: ThermalThrottleInfo | None = None,
    timeseries: str | None = None,
    effective_config: dict[str, Any] | None = None,
    verify_temporal_overlap: bool = True,
    verify_gpu_attribution: bool = True,
    expected_processes: int | None = None,
    completed: Collection[int] | None = None,
    strict: bool = True,
    allow_mixed_backends: bool = False,
) -> ExperimentResult:
    """Join process results into one; what is given here stands in place of what the processes say.

    Energy above a given idle power follows from it unless it is given too, and a missing energy keeps its reason
    beside given warnings. Mixed backends are joined without a word where they are allowed, else refused or warned of.
    `completed` holds the indices of processes that have a completion event; None takes all for complete. Raises
    AggregationError for results that do not belong together or are not all there; with strict=False, warns.
    """
    # The parameters have the names of the fields that they stand for.
    given = {name: value for name, value in locals().items() if name in REPLACEABLE and value is not None}
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
    )
    figures = {**_implied(energy_breakdown, warmup_result), **given}
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
