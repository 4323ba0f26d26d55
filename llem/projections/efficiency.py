"""Computation, memory, utilisation and energy above idle of one process."""

from collections.abc import Sequence
from typing import Any

from llem.projections.derive.history import ProcessFacts
from llem.projections.derive.requests import Work, work_flops
from llem.projections.derive.samples import DeviceSamples
from llem.results import (
    BatchEfficiencyMetrics,
    ComputeMetrics,
    DeviceEnergy,
    EnergyBreakdown,
    ExtendedEfficiencyMetrics,
    GPUUtilisationMetrics,
    InferenceMetrics,
    MemoryEfficiencyMetrics,
)
from llem.results.flops import FLOPS_METHOD, model_shape
from llem.results.nullable import largest, ratio, root_of_squares, total
from llem.units import BYTES_PER_MB


def compute_metrics(
    process: ProcessFacts, work: Sequence[Work], inference: InferenceMetrics
) -> ComputeMetrics:
    """FLOPs of the work done, and the memory that the model's process held."""
    shape = model_shape(process.model) if process.model else None
    return ComputeMetrics.from_flops(
        work_flops(shape, work),
        total_tokens=inference.total_tokens,
        inference_time_sec=inference.inference_time_sec,
        peak_memory_mb=_mebibytes(process.completed.peak_memory_bytes if process.completed else None),
        model_memory_mb=_mebibytes(process.model.weights_bytes if process.model else None),
        flops_method=FLOPS_METHOD if shape else None,
        compute_precision=process.model.dtype if process.model else None,
    )


def efficiency(
    process: ProcessFacts,
    samples: Sequence[Sequence[DeviceSamples]],
    work: Sequence[Work],
    *,
    plan: dict[str, Any],
) -> ExtendedEfficiencyMetrics:
    """What the devices' samples and the batches say; memory in use is the whole device's."""
    memory_bytes = [metered.device.memory_bytes for metered in process.devices]
    used_bytes = [largest(in_span.largest("memory_used_bytes") for in_span in spanned) for spanned in samples]
    return ExtendedEfficiencyMetrics(
        memory=MemoryEfficiencyMetrics(
            total_vram_mb=_mebibytes(total(memory_bytes)),
            model_memory_mb=_mebibytes(process.model.weights_bytes if process.model else None),
            peak_memory_mb=_peak_mb(process, used_bytes),
        ),
        gpu_utilisation=_utilisation(samples),
        batch=_batches(work, planned=plan.get("engine", {}).get("batch_size")),
    )


def _peak_mb(process: ProcessFacts, used_bytes: Sequence[float | None]) -> float | None:
    """What the engine says of its own process, else what was in use on its devices."""
    own = process.completed.peak_memory_bytes if process.completed else None
    return _mebibytes(total(used_bytes) if own is None else own)


def _utilisation(samples: Sequence[Sequence[DeviceSamples]]) -> GPUUtilisationMetrics:
    busy = [
        percent
        for spanned in samples
        for in_span in spanned
        for percent in in_span.values("gpu_utilisation_pct")
    ]
    memory = [
        percent
        for spanned in samples
        for in_span in spanned
        for percent in in_span.values("memory_utilisation_pct")
    ]
    return GPUUtilisationMetrics(
        sm_utilisation_mean=_mean(busy),
        sm_utilisation_samples=len(busy),
        memory_bandwidth_utilisation=_mean(memory),
    )


def _batches(work: Sequence[Work], *, planned: int | None) -> BatchEfficiencyMetrics:
    sizes = list({done.request.batch_index: done.request.batch_size for done in work}.values())
    mean = _mean(sizes)
    return BatchEfficiencyMetrics(
        effective_batch_size=mean, batch_utilisation=ratio(mean, planned), num_batches=len(sizes) or None
    )


def energy_breakdown(
    process: ProcessFacts, devices: Sequence[DeviceEnergy], *, duration_sec: float
) -> EnergyBreakdown | None:
    """Energy with and without the idle power that was measured before loading; None without devices."""
    before, after = process.baselines.get("before"), process.baselines.get("after")
    if not devices:
        return None
    method = None if before is None else "reused" if before.reused_from else "measured"
    return EnergyBreakdown.from_devices(
        devices,
        duration_sec=duration_sec,
        baseline_method=method,
        baseline_cache_age_sec=before.age_s if before is not None and before.reused_from else None,
        baseline_std_w=root_of_squares(power.std_power_w for power in before.devices) if before else None,
        baseline_after_w=total(power.mean_power_w for power in after.devices) if after else None,
    )


def _mean(values: Sequence[float]) -> float | None:
    return ratio(float(sum(values)), len(values))


def _mebibytes(count: float | None) -> float | None:
    return None if count is None else count / BYTES_PER_MB
