"""Process results to aggregate: two GPUs on one host unless told otherwise."""

from datetime import UTC, datetime, timedelta
from typing import Any

from llem.results import (
    ComputeMetrics,
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    LatencyMeasurements,
    RawProcessResult,
    Timestamps,
)

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Wall-clock time this long after the start of the experiment."""
    return START + timedelta(seconds=seconds)


def device(uuid: str, energy_j: float | None, **fields: Any) -> DeviceEnergy:
    """A GPU of host "h1"."""
    return DeviceEnergy(
        **{"host": "h1", "uuid": uuid, "energy_j": energy_j, "energy_source": "counter"} | fields
    )


def latencies(*values_ms: float) -> LatencyMeasurements:
    """The same values for every series, one request each."""
    values = list(values_ms)
    return LatencyMeasurements(
        ttft_ms=values, itl_full_ms=values, itl_trimmed_ms=values, e2e_ms=values, request_count=len(values)
    )


def process(
    index: int = 0,
    *,
    energy_j: float | None = 25.0,
    input_tokens: int = 100,
    output_tokens: int = 400,
    span: tuple[float, float] = (0.0, 10.0),
    flops: float | None = 1e12,
    measured: LatencyMeasurements | None = None,
    **fields: Any,
) -> RawProcessResult:
    """One process that ran in `span` (seconds after the start) on a GPU of its own."""
    seconds = span[1] - span[0]
    inference = InferenceMetrics.from_counts(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        inference_time_sec=seconds,
        latency_measurements=measured,
    )
    compute = ComputeMetrics.from_flops(
        flops, total_tokens=inference.total_tokens, inference_time_sec=seconds
    )
    defaults: dict[str, Any] = {
        "experiment_id": "run",
        "backend": "simulated",
        "gpu_id": index,
        "devices": [device(f"GPU-{index}", energy_j)],
        "energy_metrics": EnergyMetrics(total_energy_j=energy_j, duration_sec=seconds),
        "compute_metrics": compute,
        "energy_source": "counter",
    }
    timestamps = Timestamps.from_times(at(span[0]), at(span[1]))
    return RawProcessResult(
        process_index=index, timestamps=timestamps, inference_metrics=inference, **defaults | fields
    )
