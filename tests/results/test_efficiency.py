"""Memory, utilisation, batches and cache of several processes as one."""

import pytest

from llem.results import (
    BatchEfficiencyMetrics,
    ComputeMetrics,
    ExtendedEfficiencyMetrics,
    GPUUtilisationMetrics,
    KVCacheEfficiencyMetrics,
    MemoryEfficiencyMetrics,
    RawProcessResult,
    aggregate_results,
)
from llem.results.merging import precision_factor
from tests.world import latencies, process


def merged(*results: RawProcessResult) -> ExtendedEfficiencyMetrics:
    metrics = aggregate_results(list(results), "run", "hash").extended_metrics
    assert metrics is not None
    return metrics


def test_memory_peak_is_the_largest_and_totals_are_sums() -> None:
    """Two processes with 2 and 6 GB at their peak."""
    memories = [
        MemoryEfficiencyMetrics(
            total_vram_mb=8192, model_memory_mb=1024, peak_memory_mb=2048, kv_cache_mb=512
        ),
        MemoryEfficiencyMetrics(
            total_vram_mb=8192, model_memory_mb=1024, peak_memory_mb=6144, kv_cache_mb=512
        ),
    ]
    parts = [ExtendedEfficiencyMetrics(memory=memory) for memory in memories]
    assert merged(*(process(index, extended_metrics=part) for index, part in enumerate(parts))).memory == (
        MemoryEfficiencyMetrics(
            total_vram_mb=16384,
            model_memory_mb=2048,
            peak_memory_mb=6144,
            kv_cache_mb=1024,
            tokens_per_gb_vram=100.0,
            model_memory_utilisation=0.125,
            kv_cache_memory_ratio=0.125,
        )
    )


@pytest.mark.parametrize(
    ("gpu_ids", "hosts", "vram_mb"),
    [
        ((0, 0), ("h1", "h1"), 8192.0),
        ((0, 1), ("h1", "h1"), 16384.0),
        ((0, 0), ("h1", "h2"), 16384.0),
        ((None, None), ("h1", "h1"), 16384.0),
    ],
)
def test_a_gpu_of_which_only_the_index_is_known_counts_once(
    gpu_ids: tuple[int | None, int | None], hosts: tuple[str, str], vram_mb: float
) -> None:
    """By host and index; a process that names none has one of its own."""
    memory = ExtendedEfficiencyMetrics(memory=MemoryEfficiencyMetrics(total_vram_mb=8192.0))
    parts = [
        process(index, devices=[], gpu_id=gpu_id, host=host, extended_metrics=memory)
        for index, (gpu_id, host) in enumerate(zip(gpu_ids, hosts, strict=True))
    ]
    assert merged(*parts).memory.total_vram_mb == vram_mb


def test_memory_falls_back_to_the_compute_metrics() -> None:
    """A process without extended metrics still says its peak."""
    assert (
        merged(process(compute_metrics=ComputeMetrics(peak_memory_mb=100.0))).memory.peak_memory_mb == 100.0
    )


def test_means_are_weighted() -> None:
    """Batches weigh by batches, utilisation by samples, hit rates by requests."""
    first = ExtendedEfficiencyMetrics(
        batch=BatchEfficiencyMetrics(num_batches=1, effective_batch_size=2.0, padding_overhead=0.5),
        gpu_utilisation=GPUUtilisationMetrics(sm_utilisation_mean=50.0, sm_utilisation_samples=100),
        kv_cache=KVCacheEfficiencyMetrics(
            kv_cache_hit_rate=0.0, kv_cache_blocks_used=3, kv_cache_blocks_total=10
        ),
    )
    second = ExtendedEfficiencyMetrics(
        batch=BatchEfficiencyMetrics(num_batches=3, effective_batch_size=4.0, padding_overhead=0.1),
        gpu_utilisation=GPUUtilisationMetrics(sm_utilisation_mean=100.0, sm_utilisation_samples=300),
        kv_cache=KVCacheEfficiencyMetrics(
            kv_cache_hit_rate=0.8, kv_cache_blocks_used=4, kv_cache_blocks_total=10
        ),
    )
    both = merged(
        process(0, extended_metrics=first, requests=10), process(1, extended_metrics=second, requests=30)
    )
    assert (both.batch.effective_batch_size, both.batch.num_batches) == (3.5, 4)
    assert both.batch.padding_overhead == pytest.approx(0.2)
    assert (both.gpu_utilisation.sm_utilisation_mean, both.gpu_utilisation.sm_utilisation_samples) == (
        87.5,
        400,
    )
    assert both.kv_cache.kv_cache_hit_rate == pytest.approx(0.6)
    assert (both.kv_cache.kv_cache_blocks_used, both.kv_cache.kv_cache_blocks_total) == (7, 20)


def test_a_mean_without_weights_is_unknown() -> None:
    """Rates of several processes whose requests are not counted cannot be joined; the rate of one can."""
    part = ExtendedEfficiencyMetrics(kv_cache=KVCacheEfficiencyMetrics(kv_cache_hit_rate=0.5))
    one, other = process(0, extended_metrics=part), process(1, extended_metrics=part)
    assert merged(one, other).kv_cache.kv_cache_hit_rate is None
    assert merged(one).kv_cache.kv_cache_hit_rate == 0.5


def test_what_no_process_measured_is_none() -> None:
    """Every group is there; every figure without a measurement is None."""
    assert merged(process(flops=None, energy_j=None)) == ExtendedEfficiencyMetrics()


def test_latency_reaches_the_extended_metrics() -> None:
    """TPOT is the mean trimmed inter-token latency; request latency is end to end, over all processes."""
    both = merged(process(0, measured=latencies(1.0)), process(1, measured=latencies(2.0, 6.0)))
    assert both.tpot_ms == 3.0
    assert (both.request_latency.e2e_latency_median_ms, both.request_latency.e2e_latency_samples) == (2.0, 3)


def test_token_efficiency_index() -> None:
    """50 tokens per second times 400 output tokens over 25 J, halved for 8-bit arithmetic."""
    assert merged(process()).token_efficiency_index == 800.0
    narrow = ComputeMetrics(compute_precision="int8")
    assert merged(process(compute_metrics=narrow)).token_efficiency_index == 400.0


@pytest.mark.parametrize(
    ("precision", "factor"),
    [(None, 1.0), ("float32", 1.0), ("bfloat16", 1.0), ("fp8", 0.5), ("float8_e4m3fn", 0.5), ("int4", 0.25)],
)
def test_precision_factor(precision: str | None, factor: float) -> None:
    """The width of the type's name decides; an unknown one counts as 16-bit."""
    assert precision_factor(precision) == factor
