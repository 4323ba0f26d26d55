"""The result of one process, before anything is joined."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from llem.results.efficiency import ExtendedEfficiencyMetrics
from llem.results.energy import DeviceEnergy, EnergyBreakdown, EnergyMetrics, EnergySource, least_trusted
from llem.results.environment import EnvironmentSnapshot
from llem.results.metrics import (
    ComputeMetrics,
    InferenceMetrics,
    ThermalThrottleInfo,
    Timestamps,
    WarmupResult,
)
from llem.versions import SCHEMA_VERSION

Status = Literal["completed", "interrupted", "incomplete", "failed"]


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
    energy_source: EnergySource | None = None
    energy_breakdown: EnergyBreakdown | None = None
    thermal_throttle: ThermalThrottleInfo | None = None
    warmup_result: WarmupResult | None = None
    extended_metrics: ExtendedEfficiencyMetrics | None = None
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
    def spans(self) -> list[tuple[datetime, datetime]]:
        """Its measurement windows on the wall clock."""
        return self.windows or [(self.timestamps.start, self.timestamps.end)]

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
