"""Joining 64 processes with 100,000 requests: aggregate_results against the same statistics in plain numpy.

Both sides get the same lists of raw values. The peer is what an analyst would write: one concatenation per series, then
mean, median, 95th and 99th percentile, smallest and largest, and the sums of energy, tokens and FLOPs. For scale,
the time is printed as well that numpy takes when the values already lie in arrays.

    python -m benchmarks.aggregate [--requests 100000] [--repeat 5]
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from llem.results import (
    ComputeMetrics,
    DeviceEnergy,
    EnergyMetrics,
    InferenceMetrics,
    LatencyMeasurements,
    RawProcessResult,
    Timestamps,
    aggregate_results,
)

PROCESSES = 64
TOKENS = 16  # output tokens of a request
START = datetime(2026, 1, 1, tzinfo=UTC)
SERIES = ("ttft_ms", "itl_full_ms", "itl_trimmed_ms", "e2e_ms")


def one_process(index: int, *, requests: int, rng: np.random.Generator) -> RawProcessResult:
    """Seeded latencies of the shape that decoding gives: lognormal, a few milliseconds."""
    intervals = rng.lognormal(1.0, 0.3, (requests, TOKENS - 1))
    ttft_ms = rng.lognormal(3.0, 0.5, requests)
    measured = LatencyMeasurements(
        ttft_ms=ttft_ms.tolist(),
        itl_full_ms=intervals.ravel().tolist(),
        itl_trimmed_ms=intervals[:, 1:-1].ravel().tolist(),
        e2e_ms=(ttft_ms + intervals.sum(axis=1)).tolist(),
        request_count=requests,
    )
    energy_j = float(rng.uniform(100, 200))
    return RawProcessResult(
        experiment_id="benchmark",
        process_index=index,
        timestamps=Timestamps.from_times(START, START + timedelta(seconds=60)),
        inference_metrics=InferenceMetrics.from_counts(
            input_tokens=32 * requests,
            output_tokens=TOKENS * requests,
            inference_time_sec=60.0,
            latency_measurements=measured,
        ),
        energy_metrics=EnergyMetrics(total_energy_j=energy_j, duration_sec=60.0),
        compute_metrics=ComputeMetrics(flops_total=float(rng.uniform(1e12, 2e12))),
        devices=[DeviceEnergy(host=f"host-{index // 8}", uuid=f"GPU-{index}", energy_j=energy_j)],
    )


def values(results: Sequence[RawProcessResult], series: str) -> list[list[float]]:
    """One list per process."""
    return [getattr(result.inference_metrics.latency_measurements, series) for result in results]


def in_numpy(results: Sequence[RawProcessResult]) -> dict[str, list[float]]:
    """The same statistics, written by hand."""
    joined = {
        series: np.concatenate([np.array(part) for part in values(results, series)]) for series in SERIES
    }
    sums = [
        sum(result.energy_metrics.total_energy_j or 0.0 for result in results),
        sum(result.inference_metrics.total_tokens for result in results),
        sum(result.compute_metrics.flops_total or 0.0 for result in results),
    ]
    return {series: statistics(array) for series, array in joined.items()} | {"sums": sums}


def statistics(array: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> list[float]:
    """Mean, median, 95th and 99th percentile, smallest, largest."""
    return [array.mean(), *np.percentile(array, (50, 95, 99)), array.min(), array.max()]


def fastest(function: Callable[[], object], repeat: int) -> float:
    """Seconds of the fastest of several runs: the others were disturbed."""
    durations = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        durations.append(time.perf_counter() - began)
    return min(durations)


def agree(results: Sequence[RawProcessResult]) -> None:
    """Stop where the two sides differ: a fast wrong answer is no answer."""
    ours, peer = aggregate_results(results, "benchmark", "hash"), in_numpy(results)
    stats = ours.latency_stats
    assert stats is not None
    names = ("mean", "median", "p95", "p99", "min", "max")
    for series, prefix in zip(SERIES, ("ttft", "itl", "itl_trimmed", "e2e"), strict=True):
        np.testing.assert_allclose([getattr(stats, f"{prefix}_{name}_ms") for name in names], peer[series])
    np.testing.assert_allclose([ours.total_energy_j, ours.total_tokens, ours.total_flops], peer["sums"])


def main() -> None:
    """Measure and print; the last line is for programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    shares = [len(part) for part in np.array_split(np.arange(chosen.requests), PROCESSES)]
    results = [one_process(index, requests=share, rng=rng) for index, share in enumerate(shares)]
    agree(results)
    arrays = [np.concatenate([np.array(part) for part in values(results, series)]) for series in SERIES]
    ours = fastest(lambda: aggregate_results(results, "benchmark", "hash"), chosen.repeat)
    peer = fastest(lambda: in_numpy(results), chosen.repeat)
    bare = fastest(lambda: [statistics(array) for array in arrays], chosen.repeat)
    print(f"{PROCESSES} processes, {chosen.requests} requests, {sum(map(len, arrays))} values")
    print(f"aggregate_results {ours:.4f} s, numpy from the same lists {peer:.4f} s, from arrays {bare:.4f} s")
    line = {
        "benchmark": "aggregate",
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": "s",
        "n": chosen.requests,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
