"""What several processes say of throttling, efficiency and memory, as one; each device counted once."""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from llem.results.latency import LatencyStatistics
from llem.results.nullable import any_true, largest, ratio, total, total_count, weighted_mean
from llem.results.process import (
    BatchEfficiencyMetrics,
    ExtendedEfficiencyMetrics,
    GPUUtilisationMetrics,
    KVCacheEfficiencyMetrics,
    MemoryEfficiencyMetrics,
    RawProcessResult,
    RequestLatencyMetrics,
    ThermalThrottleInfo,
)

MB_PER_GB = 1024
Part = TypeVar("Part")


def merge_throttling(results: Sequence[RawProcessResult], start_time: datetime) -> ThermalThrottleInfo | None:
    """Flags of any process; the longest duration and the highest temperature; moments from the experiment's start."""
    parts = [result.thermal_throttle for result in results if result.thermal_throttle]
    if not parts:
        return None
    return ThermalThrottleInfo(
        detected=any_true([part.detected for part in parts]),
        thermal=any_true([part.thermal for part in parts]),
        power=any_true([part.power for part in parts]),
        sw_thermal=any_true([part.sw_thermal for part in parts]),
        hw_thermal=any_true([part.hw_thermal for part in parts]),
        hw_power=any_true([part.hw_power for part in parts]),
        throttle_duration_sec=largest(part.throttle_duration_sec for part in parts),
        max_temperature_c=largest(part.max_temperature_c for part in parts),
        throttle_timestamps=sorted({at for result in results for at in _throttled_at(result, start_time)}),
    )


def _throttled_at(result: RawProcessResult, start_time: datetime) -> list[float]:
    offset_sec = (result.timestamps.start - start_time).total_seconds()
    moments = result.thermal_throttle.throttle_timestamps if result.thermal_throttle else []
    return [round(offset_sec + at_sec, 6) for at_sec in moments]


def merge_efficiency(
    results: Sequence[RawProcessResult],
    *,
    latency: LatencyStatistics | None,
    energy_j: float | None,
    output_tokens: int | None,
    tokens_per_second: float | None,
) -> ExtendedEfficiencyMetrics:
    """Peaks as maxima, totals as sums, means weighted by what they are means of."""
    return ExtendedEfficiencyMetrics(
        tpot_ms=latency.itl_trimmed_mean_ms if latency else None,
        token_efficiency_index=token_efficiency_index(
            tokens_per_second=tokens_per_second,
            output_tokens=output_tokens,
            energy_j=energy_j,
            precision=results[0].compute_metrics.compute_precision,
        ),
        memory=merge_memory(results, output_tokens),
        gpu_utilisation=_utilisation([part.gpu_utilisation for part in _parts(results)]),
        batch=_batches([part.batch for part in _parts(results)]),
        kv_cache=_cache(results),
        request_latency=request_latency(latency),
    )


def token_efficiency_index(
    *,
    tokens_per_second: float | None,
    output_tokens: int | None,
    energy_j: float | None,
    precision: str | None,
) -> float | None:
    """Mean rate of a process times output tokens per joule, times 1/2 for 8-bit and 1/4 for 4-bit arithmetic."""
    tokens_per_joule = ratio(output_tokens, energy_j)
    if tokens_per_second is None or tokens_per_joule is None:
        return None
    return tokens_per_second * tokens_per_joule * precision_factor(precision)


def precision_factor(precision: str | None) -> float:
    """Work of one operation against that of a 16-bit one, after LLenergyMeasure: wider ones count the same."""
    bits = re.search(r"\d+", precision or "")
    return {"8": 0.5, "4": 0.25}.get(bits.group(), 1.0) if bits else 1.0


def request_latency(latency: LatencyStatistics | None) -> RequestLatencyMetrics:
    """The end-to-end figures of the latency statistics."""
    if latency is None:
        return RequestLatencyMetrics()
    return RequestLatencyMetrics(
        e2e_latency_mean_ms=latency.e2e_mean_ms,
        e2e_latency_median_ms=latency.e2e_median_ms,
        e2e_latency_p95_ms=latency.e2e_p95_ms,
        e2e_latency_p99_ms=latency.e2e_p99_ms,
        e2e_latency_samples=latency.e2e_samples,
    )


def _parts(results: Sequence[RawProcessResult]) -> list[ExtendedEfficiencyMetrics]:
    return [result.extended_metrics or ExtendedEfficiencyMetrics() for result in results]


def _utilisation(parts: Sequence[GPUUtilisationMetrics]) -> GPUUtilisationMetrics:
    weights = [part.sm_utilisation_samples for part in parts]
    return GPUUtilisationMetrics(
        sm_utilisation_mean=_mean(parts, weights, lambda part: part.sm_utilisation_mean),
        sm_utilisation_samples=sum(weights),
        memory_bandwidth_utilisation=_mean(parts, weights, lambda part: part.memory_bandwidth_utilisation),
    )


def _batches(parts: Sequence[BatchEfficiencyMetrics]) -> BatchEfficiencyMetrics:
    weights = [part.num_batches for part in parts]
    return BatchEfficiencyMetrics(
        effective_batch_size=_mean(parts, weights, lambda part: part.effective_batch_size),
        batch_utilisation=_mean(parts, weights, lambda part: part.batch_utilisation),
        padding_overhead=_mean(parts, weights, lambda part: part.padding_overhead),
        num_batches=total_count(weights),
    )


def _cache(results: Sequence[RawProcessResult]) -> KVCacheEfficiencyMetrics:
    parts = [part.kv_cache for part in _parts(results)]
    return KVCacheEfficiencyMetrics(
        kv_cache_hit_rate=_mean(
            parts, [result.requests for result in results], lambda part: part.kv_cache_hit_rate
        ),
        kv_cache_blocks_used=total_count(part.kv_cache_blocks_used for part in parts),
        kv_cache_blocks_total=total_count(part.kv_cache_blocks_total for part in parts),
    )


def _mean(
    parts: Sequence[Part], weights: Sequence[int | None], value: Callable[[Part], float | None]
) -> float | None:
    return weighted_mean((value(part), weight) for part, weight in zip(parts, weights, strict=True))


def merge_memory(results: Sequence[RawProcessResult], output_tokens: int | None) -> MemoryEfficiencyMetrics:
    """What processes hold is summed, what devices have or hold counts once; the peak is that of a process."""
    memories = [_memory(result) for result in results]
    model_mb = total(
        _first_known(memory.model_memory_mb, result.compute_metrics.model_memory_mb)
        for memory, result in zip(memories, results, strict=True)
    )
    vram_mb = _once(pair for result in results for pair in _device_memories(result))
    cache_mb = total(memory.kv_cache_mb for memory in memories)
    used_mb = _once(map(_peak, results))
    return MemoryEfficiencyMetrics(
        total_vram_mb=vram_mb,
        model_memory_mb=model_mb,
        peak_memory_mb=largest(peak_mb for _, peak_mb in map(_peak, results)),
        kv_cache_mb=cache_mb,
        tokens_per_gb_vram=ratio(None if output_tokens is None else output_tokens * MB_PER_GB, used_mb),
        model_memory_utilisation=ratio(model_mb, vram_mb),
        kv_cache_memory_ratio=ratio(cache_mb, used_mb),
    )


def _memory(result: RawProcessResult) -> MemoryEfficiencyMetrics:
    return result.extended_metrics.memory if result.extended_metrics else MemoryEfficiencyMetrics()


def _device_memories(result: RawProcessResult) -> Iterator[tuple[Hashable, float | None]]:
    """Memory of each device by what it is known by; of all together where the devices do not say theirs."""
    if result.devices and all(device.memory_mb is not None for device in result.devices):
        yield from (((device.host, device.uuid), device.memory_mb) for device in result.devices)
    else:
        yield _devices_of(result), _memory(result).total_vram_mb


def _peak(result: RawProcessResult) -> tuple[Hashable, float | None]:
    """Peak memory of the process itself, or of its devices, which several processes may share."""
    own_mb, seen_mb = result.compute_metrics.peak_memory_mb, _memory(result).peak_memory_mb
    key: Hashable = _devices_of(result) if own_mb is None else result.process_index
    return key, _first_known(seen_mb, own_mb)


def _devices_of(result: RawProcessResult) -> Hashable:
    if result.devices:
        return frozenset((device.host, device.uuid) for device in result.devices)
    return result.process_index if result.gpu_id is None else (result.host, f"index {result.gpu_id}")


def _once(memories: Iterator[tuple[Hashable, float | None]]) -> float | None:
    """Sum over keys of the largest; None where any key has none."""
    by_key: defaultdict[Hashable, list[float | None]] = defaultdict(list)
    for key, memory_mb in memories:
        by_key[key].append(memory_mb)
    return total(map(largest, by_key.values()))


def _first_known(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
