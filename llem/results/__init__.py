"""Results: what a process measured, what an experiment measured, and how the one follows from the other."""

from typing import TYPE_CHECKING

from llem.errors import AggregationError as AggregationError
from llem.versions import RESULTS_VERSION as RESULTS_VERSION
from llem.versions import SCHEMA_VERSION as SCHEMA_VERSION
from llem_events.lazy import root_of

if TYPE_CHECKING:
    from llem.results.aggregate import aggregate_results as aggregate_results
    from llem.results.completeness import CompletenessReport as CompletenessReport
    from llem.results.completeness import validate_process_completeness as validate_process_completeness
    from llem.results.energy import DeviceEnergy as DeviceEnergy
    from llem.results.energy import EnergyBreakdown as EnergyBreakdown
    from llem.results.energy import EnergyMetrics as EnergyMetrics
    from llem.results.energy import MultiGPUMetrics as MultiGPUMetrics
    from llem.results.energy import least_trusted as least_trusted
    from llem.results.environment import ContainerEnvironment as ContainerEnvironment
    from llem.results.environment import CPUEnvironment as CPUEnvironment
    from llem.results.environment import CUDAEnvironment as CUDAEnvironment
    from llem.results.environment import EnvironmentSnapshot as EnvironmentSnapshot
    from llem.results.environment import GPUEnvironment as GPUEnvironment
    from llem.results.environment import HardwareEnvironment as HardwareEnvironment
    from llem.results.environment import ThermalEnvironment as ThermalEnvironment
    from llem.results.experiment import AggregationMetadata as AggregationMetadata
    from llem.results.experiment import ExperimentResult as ExperimentResult
    from llem.results.experiment import judged as judged
    from llem.results.experiment import measured_facts as measured_facts
    from llem.results.latency import LatencyMeasurements as LatencyMeasurements
    from llem.results.latency import LatencyStatistics as LatencyStatistics
    from llem.results.latency import latency_statistics as latency_statistics
    from llem.results.power import cumulative_energy_j as cumulative_energy_j
    from llem.results.power import energy_between_j as energy_between_j
    from llem.results.process import BatchEfficiencyMetrics as BatchEfficiencyMetrics
    from llem.results.process import ComputeMetrics as ComputeMetrics
    from llem.results.process import ExtendedEfficiencyMetrics as ExtendedEfficiencyMetrics
    from llem.results.process import GPUUtilisationMetrics as GPUUtilisationMetrics
    from llem.results.process import InferenceMetrics as InferenceMetrics
    from llem.results.process import KVCacheEfficiencyMetrics as KVCacheEfficiencyMetrics
    from llem.results.process import MemoryEfficiencyMetrics as MemoryEfficiencyMetrics
    from llem.results.process import RawProcessResult as RawProcessResult
    from llem.results.process import RequestLatencyMetrics as RequestLatencyMetrics
    from llem.results.process import ResultWarning as ResultWarning
    from llem.results.process import ThermalThrottleInfo as ThermalThrottleInfo
    from llem.results.process import Timestamps as Timestamps
    from llem.results.process import WarmupResult as WarmupResult
    from llem.results.steady_state import PowerSamples as PowerSamples
    from llem.results.steady_state import SteadyState as SteadyState
    from llem.results.steady_state import find_steady_state as find_steady_state
    from llem.results.validity import InvalidReason as InvalidReason
    from llem.results.validity import MeasuredFacts as MeasuredFacts
    from llem.results.validity import Verdict as Verdict
    from llem.results.validity import judge as judge

# Whoever needs one formula waits for no other.
__all__, __getattr__, __dir__ = root_of(
    __name__,
    {
        "aggregate": "aggregate_results",
        "completeness": "CompletenessReport validate_process_completeness",
        "energy": "DeviceEnergy EnergyBreakdown EnergyMetrics MultiGPUMetrics least_trusted",
        "environment": "ContainerEnvironment CPUEnvironment CUDAEnvironment EnvironmentSnapshot GPUEnvironment HardwareEnvironment ThermalEnvironment",
        "experiment": "AggregationMetadata ExperimentResult judged measured_facts",
        "latency": "LatencyMeasurements LatencyStatistics latency_statistics",
        "power": "cumulative_energy_j energy_between_j",
        "process": "BatchEfficiencyMetrics ComputeMetrics ExtendedEfficiencyMetrics GPUUtilisationMetrics InferenceMetrics KVCacheEfficiencyMetrics MemoryEfficiencyMetrics RawProcessResult RequestLatencyMetrics ResultWarning ThermalThrottleInfo Timestamps WarmupResult",
        "steady_state": "PowerSamples SteadyState find_steady_state",
        "validity": "InvalidReason MeasuredFacts Verdict judge",
    },
    loaded=["AggregationError", "RESULTS_VERSION", "SCHEMA_VERSION"],
)
