"""Memory of all processes together, each device counted once."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

from llem.results.efficiency import MemoryEfficiencyMetrics
from llem.results.nullable import largest, ratio, total
from llem.results.process import RawProcessResult

MB_PER_GB = 1024


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
