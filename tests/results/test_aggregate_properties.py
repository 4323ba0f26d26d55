"""What holds for every set of processes."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.results import (
    BatchEfficiencyMetrics,
    ExperimentResult,
    ExtendedEfficiencyMetrics,
    LatencyMeasurements,
    LatencyStatistics,
    RawProcessResult,
    aggregate_results,
)
from tests.world import device_energy, process, wall_time

energies = st.none() | st.floats(min_value=0, max_value=1e9)
series = st.lists(st.floats(min_value=0.001, max_value=1e5), max_size=20)


@st.composite
def measured(draw: st.DrawFn) -> LatencyMeasurements:
    ttft_ms = draw(series)
    return LatencyMeasurements(
        ttft_ms=ttft_ms,
        itl_full_ms=draw(series),
        itl_trimmed_ms=draw(series),
        e2e_ms=draw(series),
        request_count=len(ttft_ms),
    )


@st.composite
def processes(draw: st.DrawFn) -> list[RawProcessResult]:
    """Up to five processes with spans and energies of their own, some on a common device."""
    count = draw(st.integers(1, 5))
    return [draw(one_process(index)) for index in range(count)]


@st.composite
def one_process(draw: st.DrawFn, index: int) -> RawProcessResult:
    start = draw(st.integers(0, 20))
    energy_j = draw(energies)
    return process(
        index,
        energy_j=energy_j,
        input_tokens=draw(st.integers(0, 10**6)),
        output_tokens=draw(st.integers(0, 10**6)),
        span=(start, start + draw(st.integers(0, 20))),
        flops=draw(energies),
        measured=draw(measured()),
        devices=[device_energy(draw(st.sampled_from(["GPU-a", "GPU-b"])), energy_j)],
        requests=draw(st.none() | st.integers(0, 100)),
    )


def aggregate(results: list[RawProcessResult]) -> ExperimentResult:
    return aggregate_results(results, "run", "hash")


@given(processes(), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_the_order_of_processes_never_matters(results: list[RawProcessResult], random: object) -> None:
    """Every permutation gives the same result, to the last bit."""
    shuffled = list(results)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert aggregate(shuffled) == aggregate(results)


@given(processes())
@pytest.mark.slow
def test_a_total_is_unknown_exactly_when_a_part_is(results: list[RawProcessResult]) -> None:
    """None is neither skipped nor counted as zero."""
    joined = aggregate(results)
    assert (joined.total_energy_j is None) == any(
        one.energy_metrics.total_energy_j is None for one in results
    )
    assert (joined.total_flops is None) == any(one.compute_metrics.flops_total is None for one in results)


@given(processes())
@pytest.mark.slow
def test_a_shared_device_never_adds_energy(results: list[RawProcessResult]) -> None:
    """Counting once gives no more than the sum over processes, and no less than the mean part."""
    parts = [one.energy_metrics.total_energy_j for one in results]
    joined = aggregate(results).total_energy_j
    if joined is not None:
        known = [part for part in parts if part is not None]
        assert sum(known) * (1 - 1e-9) / len(known) <= joined <= sum(known) * (1 + 1e-9)


def split(whole: RawProcessResult, *, energy_j: float, tokens: int, requests: int) -> list[RawProcessResult]:
    """The process as two that ran one after the other on its device, divided at these amounts."""
    inference, latency = whole.inference_metrics, whole.inference_metrics.latency_measurements
    assert latency is not None
    assert whole.energy_metrics.total_energy_j is not None
    halves = (slice(None, requests), slice(requests, None))
    middle = (whole.timestamps.end - whole.timestamps.start) / timedelta(seconds=2)
    return [
        process(
            index,
            energy_j=(energy_j, whole.energy_metrics.total_energy_j - energy_j)[index],
            input_tokens=(0, inference.input_tokens)[index],
            output_tokens=(tokens, inference.output_tokens - tokens)[index],
            span=((0.0, middle), (middle, 2 * middle))[index],
            measured=LatencyMeasurements(
                ttft_ms=latency.ttft_ms[half],
                itl_full_ms=latency.itl_full_ms[half],
                itl_trimmed_ms=latency.itl_trimmed_ms[half],
                e2e_ms=latency.e2e_ms[half],
            ),
            extended_metrics=batches((requests, 20 - requests)[index]),
        )
        for index, half in enumerate(halves)
    ]


def batches(count: int) -> ExtendedEfficiencyMetrics:
    return ExtendedEfficiencyMetrics(
        batch=BatchEfficiencyMetrics(num_batches=count, effective_batch_size=3.5)
    )


def percentiles(statistics: LatencyStatistics | None) -> dict[str, float | None]:
    assert statistics is not None
    fields = {name: getattr(statistics, name) for name in statistics.__struct_fields__}
    return {name: value for name, value in fields.items() if "mean" not in name}


@given(measured(), st.floats(0, 1), st.integers(0, 1000), st.integers(0, 20))
def test_one_process_split_in_two_is_the_same_experiment(
    latency: LatencyMeasurements, share: float, tokens: int, requests: int
) -> None:
    """Same totals, same percentiles to the last bit, same means."""
    whole = process(energy_j=100.0, output_tokens=1000, measured=latency, extended_metrics=batches(20))
    parts = split(whole, energy_j=100.0 * share, tokens=tokens, requests=requests)
    one, two = aggregate([whole]), aggregate(parts)
    assert two.total_energy_j == pytest.approx(one.total_energy_j)
    assert (two.total_tokens, two.total_inference_time_sec) == (
        one.total_tokens,
        one.total_inference_time_sec,
    )
    assert (two.tokens_per_second, two.start_time, two.end_time) == (
        one.tokens_per_second,
        wall_time(0),
        wall_time(10),
    )
    assert percentiles(two.latency_stats) == percentiles(one.latency_stats)
    assert one.latency_stats is not None
    assert two.latency_stats is not None
    assert two.latency_stats.itl_mean_ms == pytest.approx(one.latency_stats.itl_mean_ms)
    assert two.extended_metrics is not None
    assert two.extended_metrics.batch == batches(20).batch
