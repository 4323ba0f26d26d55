"""Joining processes: each figure by its own rule."""

import math

import msgspec
import pytest

from llem.results import (
    ExperimentResult,
    RawProcessResult,
    aggregate_results,
)
from tests.world import device_energy, latencies, process, wall_time


def aggregate(*results: RawProcessResult, **options: object) -> ExperimentResult:
    return aggregate_results(list(results), "run", "hash", **options)  # type: ignore[arg-type]


def test_aggregate_single_process() -> None:
    """One process gives its own figures."""
    result = aggregate(process(energy_j=25.0, input_tokens=100, output_tokens=400))
    assert (result.total_energy_j, result.total_tokens, result.total_flops) == (25.0, 500, 1e12)
    assert result.avg_tokens_per_second == result.tokens_per_second == 50.0
    assert result.aggregation is not None
    assert result.aggregation.warnings == []


def test_aggregate_returns_experiment_result() -> None:
    """The result is an ExperimentResult of the experiment that was named."""
    result = aggregate(process())
    assert isinstance(result, ExperimentResult)
    assert result.experiment_id == "run"


def test_aggregate_schema_version() -> None:
    """Results carry schema version 2.0."""
    assert aggregate(process()).schema_version == "2.0"


def test_aggregate_measurement_config_hash() -> None:
    """The configuration's hash is kept as given."""
    assert aggregate(process()).measurement_config_hash == "hash"


def test_aggregate_measurement_methodology() -> None:
    """The methodology is "total" unless another one is given, together with its window."""
    assert aggregate(process()).measurement_methodology == "total"
    windowed = aggregate(process(), measurement_methodology="windowed", steady_state_window=(2.0, 4.0))
    assert (windowed.measurement_methodology, windowed.steady_state_window) == ("windowed", (2.0, 4.0))


def test_aggregate_energy_sum() -> None:
    """Energy is summed over processes: 25 J and 30 J are 55 J."""
    result = aggregate(process(0, energy_j=25.0), process(1, energy_j=30.0))
    assert result.total_energy_j == 55.0
    assert result.energy_per_device_j == [25.0, 30.0]


def test_aggregate_tokens_sum() -> None:
    """Tokens are summed over processes: 500 and 600 are 1100."""
    result = aggregate(
        process(0, input_tokens=100, output_tokens=400), process(1, input_tokens=100, output_tokens=500)
    )
    assert result.total_tokens == 1100
    assert (result.total_input_tokens, result.total_output_tokens) == (200, 900)


def test_aggregate_late_aggregation_latencies() -> None:
    """Percentiles are taken over all values together, not averaged over processes."""
    result = aggregate(process(0, measured=latencies(1.0)), process(1, measured=latencies(2.0, 3.0, 100.0)))
    assert result.latency_stats is not None
    assert result.latency_stats.ttft_mean_ms == 26.5
    assert result.latency_stats.ttft_median_ms == 2.5
    assert result.latency_stats.ttft_samples == 4
    assert result.latency_stats.e2e_p95_ms == pytest.approx(3.0 + 0.85 * 97.0)


def test_aggregate_process_results_embedded() -> None:
    """Every process result is kept inside, in the order of the indices."""
    first, second = process(0), process(1)
    assert aggregate(second, first).process_results == [first, second]


def test_aggregate_metadata_num_processes() -> None:
    """The metadata counts the processes and names the method."""
    metadata = aggregate(process(0), process(1), process(2)).aggregation
    assert metadata is not None
    assert (metadata.num_processes, metadata.method) == (3, "sum_energy_avg_throughput")


def test_aggregate_throughput() -> None:
    """The mean rate is per process; the delivered rate is over the wall clock of all windows."""
    result = aggregate(process(0, span=(0, 10)), process(1, span=(5, 15)))
    assert result.avg_tokens_per_second == 50.0
    assert result.tokens_per_second == pytest.approx(1000 / 15)


def test_aggregate_leaves_pauses_out_of_the_delivered_rate() -> None:
    """Time outside every measurement window is not delivered time."""
    windows = [(wall_time(0), wall_time(2)), (wall_time(8), wall_time(10))]
    assert aggregate(process(windows=windows)).tokens_per_second == 125.0


def test_aggregate_time() -> None:
    """From the earliest start to the latest end; inference times are summed."""
    result = aggregate(process(0, span=(1, 10)), process(1, span=(0, 12)))
    assert (result.start_time, result.end_time, result.duration_sec) == (wall_time(0), wall_time(12), 12.0)
    assert result.total_inference_time_sec == 21.0


def test_aggregate_energy_per_token() -> None:
    """Energy is divided by all tokens and by output tokens, in two fields."""
    result = aggregate(process(energy_j=100.0, input_tokens=100, output_tokens=400))
    assert (result.avg_energy_per_token_j, result.energy_per_output_token_j) == (0.2, 0.25)
    assert result.tokens_per_joule == 5.0


def test_aggregate_flops() -> None:
    """FLOPs are summed, and divided by input tokens, output tokens and wall clock."""
    result = aggregate(process(0), process(1))
    assert result.total_flops == 2e12
    assert (result.flops_per_input_token, result.flops_per_output_token) == (1e10, 2.5e9)
    assert result.flops_per_second == 2e11


def test_model_flops_utilisation_counts_each_device_once() -> None:
    """Two processes on one H100 share its peak; a device whose peak nobody knows makes the share unknown."""
    h100 = device_energy("GPU-0", 25.0, name="NVIDIA H100 80GB HBM3")
    strange = device_energy("GPU-1", 25.0, name="NVIDIA H1000")
    two = [process(n, flops=989.4e12, dtype="bfloat16", devices=[h100]) for n in range(2)]
    assert aggregate(*two).model_flops_utilisation == pytest.approx(0.2)
    assert aggregate(msgspec.structs.replace(two[0], devices=[h100, strange])).model_flops_utilisation is None


def test_unknown_flops_of_one_process_make_the_total_unknown() -> None:
    """A part that is unknown is never taken for zero."""
    result = aggregate(process(0), process(1, flops=None))
    assert (result.total_flops, result.flops_per_output_token) == (None, None)


def test_unmeasured_energy_is_none_and_names_the_process() -> None:
    """A process without energy makes the total None, with a warning that names it."""
    result = aggregate(process(0), process(1, energy_j=None))
    assert (result.total_energy_j, result.avg_energy_per_token_j, result.tokens_per_joule) == (
        None,
        None,
        None,
    )
    assert result.aggregation is not None
    assert result.aggregation.warnings == ["energy of process 1 was not measured, so the total is unknown"]


def test_legal_zero_energy_is_kept() -> None:
    """A measured 0.0 J is 0.0 J."""
    result = aggregate(process(0, energy_j=0.0), process(1, energy_j=0.0))
    assert (result.total_energy_j, result.avg_energy_per_token_j) == (0.0, 0.0)
    assert result.aggregation is not None
    assert result.aggregation.warnings == []


def test_a_placeholder_for_failed_tracking_is_not_an_energy() -> None:
    """0 J of a process whose tracking failed is unknown, as older results need it."""
    result = aggregate(process(energy_j=0.0, energy_tracking_failed=True))
    assert result.total_energy_j is None


def test_no_tokens_are_zero_tokens() -> None:
    """Tokens that are known to be none stay 0, and what is divided by them is None."""
    result = aggregate(process(input_tokens=0, output_tokens=0))
    assert (result.total_tokens, result.avg_tokens_per_second, result.tokens_per_second) == (0, 0.0, 0.0)
    assert result.avg_energy_per_token_j is None


def test_a_process_without_time_has_no_rate() -> None:
    """A rate over no time is None, and so is the mean, with a warning."""
    result = aggregate(process(span=(0, 0)))
    assert (result.avg_tokens_per_second, result.tokens_per_second) == (None, None)
    assert result.aggregation is not None
    assert "tokens per second of process 0" in result.aggregation.warnings[0]


@pytest.mark.parametrize(
    ("second", "together"),
    [
        ((0.0, 10.0), True),
        ((5.0, 15.0), True),
        ((5.1, 15.1), False),
        ((20.0, 30.0), False),
        ((2.0, 3.0), True),
    ],
)
def test_temporal_overlap_is_half_of_the_shortest(second: tuple[float, float], together: bool) -> None:
    """Verified where all share at least half of the shortest process's time, else a warning."""
    metadata = aggregate(process(0, span=(0, 10)), process(1, span=second)).aggregation
    assert metadata is not None
    assert metadata.temporal_overlap_verified is together
    assert any("less than half" in warning for warning in metadata.warnings) is not together


def test_verifications_can_be_left_out() -> None:
    """What is not verified is neither claimed nor warned of."""
    far = process(1, span=(50, 60))
    metadata = aggregate(
        process(0), far, verify_temporal_overlap=False, verify_gpu_attribution=False
    ).aggregation
    assert metadata is not None
    assert (metadata.temporal_overlap_verified, metadata.gpu_attribution_verified) == (False, False)
    assert metadata.warnings == []


def test_results_survive_json() -> None:
    """Both results are the same after a round trip through JSON, tuples and times included."""
    own = process(
        measured=latencies(1.5, math.pi),
        windows=[(wall_time(0), wall_time(1))],
        effective_config={"a": [1, None]},
    )
    result = aggregate(own, steady_state_window=(1.0, 2.0))
    assert msgspec.json.decode(msgspec.json.encode(result), type=ExperimentResult) == result
    assert msgspec.json.decode(msgspec.json.encode(own), type=RawProcessResult) == own
