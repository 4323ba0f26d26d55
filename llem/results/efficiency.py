"""Efficiency beyond energy: memory, utilisation, batches, cache and request latency."""

import msgspec


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
