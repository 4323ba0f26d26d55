"""Results: what a process measured, what an experiment measured, and how the one follows from the other."""

from llem.errors import AggregationError
from llem.results.aggregate import aggregate_results
from llem.results.completeness import CompletenessReport, validate_process_completeness
from llem.results.efficiency import (
    BatchEfficiencyMetrics,
    ExtendedEfficiencyMetrics,
    GPUUtilisationMetrics,
    KVCacheEfficiencyMetrics,
    MemoryEfficiencyMetrics,
    RequestLatencyMetrics,
)
from llem.results.energy import DeviceEnergy, EnergyBreakdown, EnergyMetrics, MultiGPUMetrics, least_trusted
from llem.results.environment import (
    ContainerEnvironment,
    CPUEnvironment,
    CUDAEnvironment,
    EnvironmentSnapshot,
    GPUEnvironment,
    HardwareEnvironment,
    ThermalEnvironment,
)
from llem.results.experiment import AggregationMetadata, ExperimentResult, judged, measured_facts
from llem.results.latency import LatencyMeasurements, LatencyStatistics, latency_statistics
from llem.results.power import cumulative_energy_j, energy_between_j
from llem.results.process import (
    ComputeMetrics,
    InferenceMetrics,
    RawProcessResult,
    ResultWarning,
    ThermalThrottleInfo,
    Timestamps,
    WarmupResult,
)
from llem.results.steady_state import PowerSamples, SteadyState, find_steady_state
from llem.results.validity import InvalidReason, MeasuredFacts, Verdict, judge
from llem.versions import RESULTS_VERSION, SCHEMA_VERSION

__all__ = [
    "RESULTS_VERSION",
    "SCHEMA_VERSION",
    "AggregationError",
    "AggregationMetadata",
    "BatchEfficiencyMetrics",
    "CPUEnvironment",
    "CUDAEnvironment",
    "CompletenessReport",
    "ComputeMetrics",
    "ContainerEnvironment",
    "DeviceEnergy",
    "EnergyBreakdown",
    "EnergyMetrics",
    "EnvironmentSnapshot",
    "ExperimentResult",
    "ExtendedEfficiencyMetrics",
    "GPUEnvironment",
    "GPUUtilisationMetrics",
    "HardwareEnvironment",
    "InferenceMetrics",
    "InvalidReason",
    "KVCacheEfficiencyMetrics",
    "LatencyMeasurements",
    "LatencyStatistics",
    "MeasuredFacts",
    "MemoryEfficiencyMetrics",
    "MultiGPUMetrics",
    "PowerSamples",
    "RawProcessResult",
    "RequestLatencyMetrics",
    "ResultWarning",
    "SteadyState",
    "ThermalEnvironment",
    "ThermalThrottleInfo",
    "Timestamps",
    "Verdict",
    "WarmupResult",
    "aggregate_results",
    "cumulative_energy_j",
    "energy_between_j",
    "find_steady_state",
    "judge",
    "judged",
    "latency_statistics",
    "least_trusted",
    "measured_facts",
    "validate_process_completeness",
]
