"""The result of one process, before anything is joined: what it measured of time, tokens, energy, computation and efficiency."""

from datetime import datetime
from typing import Any, Literal, Self

import msgspec

from llem.results.energy import DeviceEnergy, EnergyBreakdown, EnergyMetrics, EnergySource, least_trusted
from llem.results.environment import EnvironmentSnapshot
from llem.results.latency import LatencyMeasurements
from llem.results.nullable import ratio
from llem.results.phase_split import PhaseSplit
from llem.results.serving import ServingMetrics
from llem.versions import SCHEMA_VERSION

Status = Literal["completed", "interrupted", "incomplete", "failed"]


class MemoryEfficiencyMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Device memory in MB (1024 * 1024 bytes)."""

    total_vram_mb: float | None = None
    model_memory_mb: float | None = None
    peak_memory_mb: float | None = None
    kv_cache_mb: float | None = None
    tokens_per_gb_vram: float | None = None  # output tokens over the peak memory of every process
    model_memory_utilisation: float | None = None  # model memory over total memory, 0 to 1
    kv_cache_memory_ratio: float | None = None  # cache over peak memory, 0 to 1


class GPUUtilisationMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Share of time in which the device was busy, in percent."""

    sm_utilisation_mean: float | None = None
    sm_utilisation_samples: int = 0
    memory_bandwidth_utilisation: float | None = None


class BatchEfficiencyMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """How full the batches were."""

    effective_batch_size: float | None = None
    batch_utilisation: float | None = None  # effective over configured, 0 to 1
    padding_overhead: float | None = None  # padding over all positions, 0 to 1
    num_batches: int | None = None


class KVCacheEfficiencyMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Prefix cache of engines that have one."""

    kv_cache_hit_rate: float | None = None  # 0 to 1
    kv_cache_blocks_used: int | None = None
    kv_cache_blocks_total: int | None = None


class RequestLatencyMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """End-to-end latency of requests."""

    e2e_latency_mean_ms: float | None = None
    e2e_latency_median_ms: float | None = None
    e2e_latency_p95_ms: float | None = None
    e2e_latency_p99_ms: float | None = None
    e2e_latency_samples: int = 0


class ExtendedEfficiencyMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """All groups; a figure that cannot be computed is None."""

    tpot_ms: float | None = None  # mean trimmed inter-token latency
    token_efficiency_index: float | None = None
    memory: MemoryEfficiencyMetrics = MemoryEfficiencyMetrics()
    gpu_utilisation: GPUUtilisationMetrics = GPUUtilisationMetrics()
    batch: BatchEfficiencyMetrics = BatchEfficiencyMetrics()
    kv_cache: KVCacheEfficiencyMetrics = KVCacheEfficiencyMetrics()
    request_latency: RequestLatencyMetrics = RequestLatencyMetrics()


class Timestamps(msgspec.Struct, frozen=True, kw_only=True):
    """When it ran, on the wall clock (UTC)."""

    start: datetime
    end: datetime
    duration_sec: float

    @classmethod
    def from_times(cls, start: datetime, end: datetime) -> Self:
        """A span and its length."""
        return cls(start=start, end=end, duration_sec=(end - start).total_seconds())


class InferenceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and speed of one process; padding and tokens after end-of-sequence are not tokens.

    Counts are None where tokens are not measured, as of a wrapped program that reports none.
    """

    total_tokens: int | None  # input and output
    input_tokens: int | None
    output_tokens: int | None
    inference_time_sec: float
    tokens_per_second: float | None = None  # total tokens over inference time
    output_tokens_per_second: float | None = None  # output tokens over inference time
    latency_per_token_ms: float | None = None  # inference time over output tokens
    time_to_first_token_ms: float | None = None  # mean over requests
    latency_measurements: LatencyMeasurements | None = None

    @classmethod
    def from_counts(
        cls,
        *,
        input_tokens: int,
        output_tokens: int,
        inference_time_sec: float,
        latency_measurements: LatencyMeasurements | None = None,
    ) -> Self:
        """Token counts and what follows from them; a rate is None where the time is zero."""
        return cls(
            total_tokens=input_tokens + output_tokens,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            inference_time_sec=inference_time_sec,
            tokens_per_second=ratio(input_tokens + output_tokens, inference_time_sec),
            output_tokens_per_second=ratio(output_tokens, inference_time_sec),
            latency_per_token_ms=ratio(1000 * inference_time_sec, output_tokens),
            time_to_first_token_ms=latency_measurements.ttft_mean_ms if latency_measurements else None,
            latency_measurements=latency_measurements,
        )

    @classmethod
    def from_reports(
        cls,
        *,
        total_tokens: int | None,
        input_tokens: int | None,
        output_tokens: int | None,
        inference_time_sec: float,
    ) -> Self:
        """What a wrapped program counted itself; it may know the sum and not its parts."""
        return cls(
            total_tokens=total_tokens,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            inference_time_sec=inference_time_sec,
            tokens_per_second=ratio(total_tokens, inference_time_sec),
            output_tokens_per_second=ratio(output_tokens, inference_time_sec),
            latency_per_token_ms=ratio(1000 * inference_time_sec, output_tokens),
        )


class ComputeMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """FLOPs and memory of one process; the method says how the FLOPs were counted."""

    flops_total: float | None = None
    flops_per_token: float | None = None
    flops_per_second: float | None = None
    peak_memory_mb: float | None = None
    model_memory_mb: float | None = None
    flops_method: str | None = None
    flops_confidence: str | None = None
    compute_precision: str | None = None

    @classmethod
    def from_flops(
        cls,
        flops_total: float | None,
        *,
        total_tokens: int | None,
        inference_time_sec: float,
        peak_memory_mb: float | None = None,
        model_memory_mb: float | None = None,
        flops_method: str | None = None,
        flops_confidence: str | None = None,
        compute_precision: str | None = None,
    ) -> Self:
        """A count of FLOPs and what follows from it."""
        return cls(
            flops_total=flops_total,
            flops_per_token=ratio(flops_total, total_tokens),
            flops_per_second=ratio(flops_total, inference_time_sec),
            peak_memory_mb=peak_memory_mb,
            model_memory_mb=model_memory_mb,
            flops_method=flops_method,
            flops_confidence=flops_confidence,
            compute_precision=compute_precision,
        )


class ThermalThrottleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a device slowed itself down; a flag is None where the driver does not tell."""

    detected: bool | None = None
    thermal: bool | None = None
    power: bool | None = None
    sw_thermal: bool | None = None
    hw_thermal: bool | None = None
    hw_power: bool | None = None
    throttle_duration_sec: float | None = None  # elapsed time between samples that report it
    max_temperature_c: float | None = None
    throttle_timestamps: list[float] = []  # seconds from the process's, or experiment's, start


class WarmupResult(msgspec.Struct, frozen=True, kw_only=True):
    """Whether latency settled before the measurement window opened."""

    converged: bool
    final_cv: float | None = None
    iterations_completed: int
    target_cv: float | None = None
    max_prompts: int | None = None
    latencies_ms: list[float] = []
    reason: str | None = None  # what ended the warm-up
    cooldown_sec: float | None = None
    temperature_start_c: float | None = None
    temperature_end_c: float | None = None


class ResultWarning(msgspec.Struct, frozen=True, kw_only=True):
    """A doubt about a figure."""

    code: str
    text: str
    value: float | None = None
    threshold: float | None = None
    device_uuid: str | None = None


class RawProcessResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one process measured. `windows` are its measurement windows where they are more than its timestamps."""

    schema_version: str = SCHEMA_VERSION
    experiment_id: str
    backend: str = "unknown"  # the engine
    backend_version: str | None = None
    process_index: int
    host: str | None = None
    group_id: str | None = None  # of processes that run one copy of the model together
    group_rank: int | None = None  # within the group; tokens count on rank 0 only
    gpu_id: int | None = None
    gpu_name: str | None = None
    gpu_is_mig: bool = False
    gpu_mig_profile: str | None = None
    energy_measurement_warning: str | None = None
    energy_tracking_failed: bool = False
    config_name: str | None = None
    model_name: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    weights: str | None = None  # "random" weights are always labelled
    attention: str | None = None  # the implementation that was used
    cache: str | None = None  # "none" where every step computed all tokens again
    quantization: str | None = None  # "none" for weights in a plain type
    timestamps: Timestamps
    windows: list[tuple[datetime, datetime]] = []
    inference_metrics: InferenceMetrics
    energy_metrics: EnergyMetrics
    compute_metrics: ComputeMetrics = ComputeMetrics()
    devices: list[DeviceEnergy] = []
    beside: list[DeviceEnergy] = []  # of the meters beside the first, no part of its energy
    energy_source: EnergySource | None = None
    energy_breakdown: EnergyBreakdown | None = None
    thermal_throttle: ThermalThrottleInfo | None = None
    warmup_result: WarmupResult | None = None
    extended_metrics: ExtendedEfficiencyMetrics | None = None
    phases: PhaseSplit | None = None  # None: of a wrapped program, which has none
    serving: ServingMetrics | None = None  # None: an engine in the process itself, or a program
    environment_snapshot: EnvironmentSnapshot | None = None
    effective_config: dict[str, Any] = {}
    requests: int | None = None
    failed_requests: int | None = None
    status: Status = "completed"
    samples: int | None = None  # the fewest of its devices
    max_sample_gap_sec: float | None = None  # the longest of its devices
    temperature_drift_c: float | None = None  # the largest of its devices
    warnings: list[ResultWarning] = []
    timeseries: str | None = None

    @property
    def is_silent(self) -> bool:
        """Whether another process of its group says what the model did: of this one only energy and devices count."""
        return bool(self.group_rank)

    @property
    def spans(self) -> list[tuple[datetime, datetime]]:
        """Its measurement windows on the wall clock."""
        return self.windows or [(self.timestamps.start, self.timestamps.end)]

    @property
    def every_device(self) -> list[DeviceEnergy]:
        """The devices of all its meters."""
        return [*self.devices, *self.beside]

    @property
    def on_mig_instance(self) -> bool:
        """Whether any of its devices is a part of a GPU."""
        return self.gpu_is_mig or any(device.kind == "mig" for device in self.devices)

    @property
    def energy_j(self) -> float | None:
        """Its energy; None where it was not measured or is a placeholder."""
        return None if self.energy_tracking_failed else self.energy_metrics.total_energy_j

    @property
    def least_trusted_source(self) -> EnergySource | None:
        """Where its energy comes from; of several devices, the least trusted."""
        return self.energy_source or least_trusted([device.energy_source for device in self.devices])
