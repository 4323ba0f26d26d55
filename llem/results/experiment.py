"""The result of an experiment: all its processes joined, and the facts that its verdict looks at."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from llem.plan import ValidityPlan
from llem.results.energy import EnergyBreakdown, EnergySource, MultiGPUMetrics
from llem.results.environment import EnvironmentSnapshot
from llem.results.intervals import duration
from llem.results.latency import LatencyStatistics
from llem.results.nullable import largest, ratio
from llem.results.phase_split import PhaseSplit
from llem.results.process import (
    ExtendedEfficiencyMetrics,
    RawProcessResult,
    Status,
    ThermalThrottleInfo,
    WarmupResult,
)
from llem.results.serving import ServingMetrics
from llem.results.validity import DEFAULT_THRESHOLDS, InvalidReason, MeasuredFacts, judge
from llem.versions import SCHEMA_VERSION

Methodology = Literal["total", "steady_state", "windowed"]
AGGREGATION_METHOD = "sum_energy_avg_throughput"


class AggregationMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """How the processes were joined, and what is doubtful about it."""

    method: str = AGGREGATION_METHOD
    num_processes: int
    temporal_overlap_verified: bool = False  # all ran together for at least half of the shortest
    gpu_attribution_verified: bool = False  # no device was shared by processes at one time
    warnings: list[str] = []


class ExperimentResult(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a whole experiment; energies in joules, rates per second, None where not measured."""

    schema_version: str = SCHEMA_VERSION
    experiment_id: str
    measurement_config_hash: str
    backend: str = "unknown"  # the engine
    backend_version: str | None = None
    model_name: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    weights: str | None = None  # "random" weights are always labelled
    labels: dict[str, str] = {}
    status: Status = "completed"
    expected_processes: int | None = None
    aggregation: AggregationMetadata | None = None
    measurement_methodology: Methodology = "total"
    steady_state_window: tuple[float, float] | None = None  # seconds from start_time
    start_time: datetime
    end_time: datetime
    total_tokens: int | None  # None: not measured, as of a wrapped program that reports none
    total_input_tokens: int | None = None
    total_output_tokens: int | None = None
    total_requests: int | None = None
    failed_requests: int | None = None
    total_inference_time_sec: float
    measured_sec: float | None = None  # wall clock of the union of all measurement windows
    avg_tokens_per_second: float | None = None  # mean over processes of each one's own rate
    tokens_per_second: float | None = None  # total tokens over measured_sec
    output_tokens_per_second: float | None = None  # output tokens over measured_sec
    total_energy_j: float | None = None
    energy_gpu_j: float | None = None  # of all GPUs, whichever meter read them
    energy_cpu_j: float | None = None
    energy_dram_j: float | None = None
    energy_source: EnergySource | None = None  # the least trusted of all devices
    # the truth lies within this of total_energy_j; None where unknown
    energy_uncertainty_j: float | None = None
    energy_disagreement: float | None = None  # the largest of all devices
    avg_energy_per_token_j: float | None = None
    energy_per_output_token_j: float | None = None
    baseline_power_w: float | None = None  # sum over devices
    energy_adjusted_j: float | None = None  # total_energy_j - baseline_power_w x duration_sec
    energy_per_device_j: list[float | None] | None = None
    energy_breakdown: EnergyBreakdown | None = None
    multi_gpu: MultiGPUMetrics | None = None
    total_flops: float | None = None
    flops_method: str | None = None
    flops_per_output_token: float | None = None
    flops_per_input_token: float | None = None
    flops_per_second: float | None = None
    model_flops_utilisation: float | None = None  # of the devices' peak; None where one is unknown
    latency_stats: LatencyStatistics | None = None
    extended_metrics: ExtendedEfficiencyMetrics | None = None
    phases: PhaseSplit | None = None  # of all processes, where each has devices of its own
    serving: ServingMetrics | None = None  # of the one process that measures a server
    thermal_throttle: ThermalThrottleInfo | None = None
    # what the plan had set on the devices for this run, the lowest of all; None: as they were
    power_limit_set_w: float | None = None
    clocks_locked_mhz: float | None = None
    warmup_result: WarmupResult | None = None  # one that did not converge, else the first process's
    warmup_excluded_samples: int | None = None  # warm-up batches of all processes
    environment_snapshot: EnvironmentSnapshot | None = None
    measurement_warnings: list[str] = []
    reproducibility_notes: str | None = None
    effective_config: dict[str, Any] = {}
    timeseries: str | None = None
    valid: bool | None = None  # None: not judged
    invalid_reasons: list[InvalidReason] = []
    process_results: list[RawProcessResult] = []

    @property
    def num_processes(self) -> int:
        """How many processes measured; an imported result that lists none is of one."""
        return self.aggregation.num_processes if self.aggregation else len(self.process_results) or 1

    @property
    def duration_sec(self) -> float:
        """From the earliest start to the latest end."""
        return (self.end_time - self.start_time).total_seconds()

    @property
    def tokens_per_joule(self) -> float | None:
        """Total tokens over total energy; None where either is unknown or the energy is zero."""
        return ratio(self.total_tokens, self.total_energy_j)

    @property
    def mean_power_w(self) -> float | None:
        """Total energy over duration_sec."""
        return ratio(self.total_energy_j, self.duration_sec)


def measured_facts(result: ExperimentResult) -> MeasuredFacts:
    """The worst of all processes, for every fact."""
    processes = result.process_results
    return MeasuredFacts(
        duration_sec=min((_measured_sec(process) for process in processes), default=result.duration_sec),
        complete=result.status == "completed",
        energy_j=result.total_energy_j,
        energy_source=result.energy_source,
        energy_disagreement=result.energy_disagreement,
        energy_uncertainty=ratio(result.energy_uncertainty_j, result.total_energy_j),
        seen_share=min(
            (
                device.seen_share
                for process in processes
                for device in process.devices
                if device.seen_share is not None
            ),
            default=None,
        ),
        samples=_fewest(process.samples for process in processes),
        max_sample_gap_sec=largest(process.max_sample_gap_sec for process in processes),
        throttled_fraction=largest(
            _throttled(process, is_limited=result.power_limit_set_w is not None) for process in processes
        ),
        temperature_drift_c=largest(process.temperature_drift_c for process in processes),
        requests=result.total_requests,
        failed_requests=result.failed_requests,
        serving=result.serving,
    )


def judged(
    result: ExperimentResult,
    thresholds: ValidityPlan = DEFAULT_THRESHOLDS,
    *,
    breaches: Sequence[InvalidReason] = (),
    ended_by: str | None = None,
) -> ExperimentResult:
    """The same result with its verdict; `breaches` are reasons that its figures alone do not show, `ended_by` is what stopped it."""
    facts = msgspec.structs.replace(measured_facts(result), ended_by=ended_by)
    verdict = judge(facts, thresholds)
    reasons = [*breaches, *verdict.invalid_reasons]
    return msgspec.structs.replace(result, valid=not reasons, invalid_reasons=reasons)


def _measured_sec(process: RawProcessResult) -> float:
    return duration(process.spans).total_seconds()


def _throttled(process: RawProcessResult, *, is_limited: bool) -> float | None:
    """Of the time. A device that keeps to the limit that the plan has set does what was asked."""
    throttling = process.thermal_throttle
    if throttling and is_limited and not (throttling.thermal or throttling.hw_power):
        return 0.0
    return ratio(throttling.throttle_duration_sec, _measured_sec(process)) if throttling else None


def _fewest(counts: Iterable[int | None]) -> int | None:
    return min((count for count in counts if count is not None), default=None)
