"""What follows from the counts of one process."""

from llem.results import ComputeMetrics, InferenceMetrics, LatencyMeasurements, Timestamps
from tests.world import wall_time


def test_rates_follow_from_counts() -> None:
    """600 tokens, 400 of them output, in 20 s."""
    measured = LatencyMeasurements(ttft_ms=[10.0, 30.0])
    metrics = InferenceMetrics.from_counts(
        input_tokens=200, output_tokens=400, inference_time_sec=20.0, latency_measurements=measured
    )
    assert (metrics.total_tokens, metrics.tokens_per_second) == (600, 30.0)
    assert (metrics.latency_per_token_ms, metrics.time_to_first_token_ms) == (50.0, 20.0)


def test_rates_without_tokens_or_latencies_are_none() -> None:
    """No output token has no latency; no first token has no time."""
    metrics = InferenceMetrics.from_counts(input_tokens=200, output_tokens=0, inference_time_sec=20.0)
    assert (metrics.tokens_per_second, metrics.latency_per_token_ms, metrics.time_to_first_token_ms) == (
        10.0,
        None,
        None,
    )


def test_flops_by_token_and_second() -> None:
    """Unknown FLOPs leave both unknown."""
    known = ComputeMetrics.from_flops(1e9, total_tokens=1000, inference_time_sec=10.0)
    assert (known.flops_per_token, known.flops_per_second) == (1e6, 1e8)
    unknown = ComputeMetrics.from_flops(None, total_tokens=1000, inference_time_sec=10.0)
    assert (unknown.flops_per_token, unknown.flops_per_second) == (None, None)


def test_timestamps_know_their_length() -> None:
    """Seconds from start to end."""
    assert Timestamps.from_times(wall_time(1.5), wall_time(4.0)).duration_sec == 2.5
