"""Two results to export: one with every figure, one with hardly any."""

from datetime import UTC, datetime, timedelta

from llem.results.energy import EnergyBreakdown, EnergyMetrics
from llem.results.environment import (
    ContainerEnvironment,
    CPUEnvironment,
    CUDAEnvironment,
    EnvironmentSnapshot,
    GPUEnvironment,
    HardwareEnvironment,
    ThermalEnvironment,
)
from llem.results.experiment import AggregationMetadata, ExperimentResult
from llem.results.latency import LatencyMeasurements, LatencyStatistics
from llem.results.process import (
    ComputeMetrics,
    ExtendedEfficiencyMetrics,
    GPUUtilisationMetrics,
    InferenceMetrics,
    MemoryEfficiencyMetrics,
    RawProcessResult,
    ThermalThrottleInfo,
    Timestamps,
)
from llem.results.validity import InvalidReason

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
END = START + timedelta(seconds=20.5)
EVIL = '=HYPERLINK("http://example.org")'

ENVIRONMENT = EnvironmentSnapshot(
    hardware=HardwareEnvironment(
        gpu=GPUEnvironment(name="NVIDIA A100-SXM4-80GB", vram_total_mb=81920.0),
        cuda=CUDAEnvironment(version="12.4", driver_version="550.54"),
        thermal=ThermalEnvironment(temperature_c=42.0, power_limit_w=400.0),
        cpu=CPUEnvironment(governor="performance"),
        container=ContainerEnvironment(detected=False),
    ),
    python_version="3.11.7",
)


def process(index: int) -> RawProcessResult:
    """One worker's result; the second has no energy."""
    measured = index == 0
    return RawProcessResult(
        experiment_id="20260301-120000-abcdef",
        backend="transformers",
        process_index=index,
        host="node1",
        gpu_id=index,
        gpu_name="NVIDIA A100-SXM4-80GB",
        model_name=EVIL,
        timestamps=Timestamps.from_times(START, END),
        inference_metrics=InferenceMetrics.from_counts(
            input_tokens=100,
            output_tokens=400,
            inference_time_sec=20.5,
            latency_measurements=LatencyMeasurements(ttft_ms=[10.0, 12.5], e2e_ms=[100.0, 110.0]),
        ),
        energy_metrics=EnergyMetrics(
            total_energy_j=1000.0 if measured else None, cpu_energy_j=0.0, duration_sec=20.5
        ),
        compute_metrics=ComputeMetrics(flops_total=1e15 if measured else None),
        requests=2,
    )


FULL = ExperimentResult(
    experiment_id="20260301-120000-abcdef",
    measurement_config_hash="0123456789abcdef",
    backend="transformers",
    backend_version="4.57.0",
    model_name=EVIL,
    dtype="bfloat16",
    batch_size=8,
    weights="random",
    labels={"site": "lab, room 2", "note": '@"quoted"'},
    aggregation=AggregationMetadata(
        num_processes=2,
        temporal_overlap_verified=True,
        gpu_attribution_verified=False,
        warnings=["process 1 has no energy"],
    ),
    measurement_methodology="steady_state",
    steady_state_window=(2.5, 18.0),
    start_time=START,
    end_time=END,
    total_tokens=1000,
    total_input_tokens=200,
    total_output_tokens=800,
    total_requests=4,
    failed_requests=0,
    total_inference_time_sec=41.0,
    avg_tokens_per_second=24.4,
    tokens_per_second=48.8,
    total_energy_j=0.0,
    energy_source="counter",
    energy_disagreement=0.012,
    energy_uncertainty_j=4.25,
    avg_energy_per_token_j=0.0,
    energy_per_output_token_j=0.0,
    energy_adjusted_j=-12.25,
    energy_breakdown=EnergyBreakdown(
        raw_j=0.0, adjusted_j=-1.0, baseline_power_w=0.6, baseline_method="before and after"
    ),
    total_flops=2e15,
    flops_method="2 x parameters + attention",
    latency_stats=LatencyStatistics(ttft_mean_ms=11.25, ttft_p95_ms=12.4, ttft_samples=4, itl_median_ms=0.0),
    extended_metrics=ExtendedEfficiencyMetrics(
        memory=MemoryEfficiencyMetrics(peak_memory_mb=20480.0),
        gpu_utilisation=GPUUtilisationMetrics(sm_utilisation_mean=0.0),
    ),
    thermal_throttle=ThermalThrottleInfo(detected=False, throttle_duration_sec=0.0, max_temperature_c=61.0),
    environment_snapshot=ENVIRONMENT,
    measurement_warnings=["too few\nsamples"],
    effective_config={"workload": {"source": "synthetic", "path": None}},
    valid=False,
    invalid_reasons=[InvalidReason(code="too_short", text="measured for 20.50 s")],
    process_results=[process(0), process(1)],
)
EMPTY = ExperimentResult(
    experiment_id="-1+2",
    measurement_config_hash="",
    start_time=START,
    end_time=START,
    total_tokens=0,
    total_inference_time_sec=0.0,
)
