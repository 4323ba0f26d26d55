"""The result of an experiment: all its processes joined."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from llem.results.efficiency import ExtendedEfficiencyMetrics
from llem.results.energy import EnergyBreakdown, EnergySource, MultiGPUMetrics
from llem.results.environment import EnvironmentSnapshot
from llem.results.latency import LatencyStatistics
from llem.results.metrics import ThermalThrottleInfo, WarmupResult
from llem.results.nullable import ratio
from llem.results.process import RawProcessResult, Status
from llem.results.validity import InvalidReason
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
    total_tokens: int | None  # None: not measured, as of a wrapped program
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
    thermal_throttle: ThermalThrottleInfo | None = None
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
