"""What one process measured, what follows from its counts, and what it is taken for where nothing is said."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from llem.results import (
    ComputeMetrics,
    EnergyMetrics,
    ExperimentResult,
    InferenceMetrics,
    LatencyMeasurements,
    RawProcessResult,
    Timestamps,
)
from llem.results.experiment import AggregationMetadata
from llem.results.latency import OF_REQUEST
from llem.versions import SCHEMA_VERSION
from llem_events.events import Request
from tests.world import device_energy, process

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_follows_from_counts() -> None:
    """In 4 s 100 input and 400 output tokens are 125 and 100 a second, 10 ms for each output token."""
    latencies = LatencyMeasurements(ttft_ms=[10.0, 30.0])
    found = InferenceMetrics.from_counts(
        input_tokens=100, output_tokens=400, inference_time_sec=4.0, latency_measurements=latencies
    )
    assert (found.total_tokens, found.input_tokens, found.output_tokens) == (500, 100, 400)
    assert (found.tokens_per_second, found.output_tokens_per_second) == (125.0, 100.0)
    assert (found.latency_per_token_ms, found.time_to_first_token_ms) == (10.0, 20.0)
    assert found.inference_time_sec == 4.0 and found.latency_measurements is latencies


def test_what_follows_from_reports() -> None:
    """A program may know the sum and not its parts; over no time, and of no tokens, there is no rate."""
    found = InferenceMetrics.from_reports(
        total_tokens=500, input_tokens=None, output_tokens=400, inference_time_sec=4.0
    )
    assert (found.total_tokens, found.input_tokens, found.output_tokens) == (500, None, 400)
    assert (found.tokens_per_second, found.output_tokens_per_second) == (125.0, 100.0)
    assert found.latency_per_token_ms == 10.0 and found.inference_time_sec == 4.0
    none = InferenceMetrics.from_reports(
        total_tokens=0, input_tokens=0, output_tokens=0, inference_time_sec=0.0
    )
    rates = (none.tokens_per_second, none.output_tokens_per_second, none.latency_per_token_ms)
    assert rates == (None, None, None)


def test_what_follows_from_flops() -> None:
    """1,000 FLOPs over 10 tokens and 4 s."""
    found = ComputeMetrics.from_flops(1000.0, total_tokens=10, inference_time_sec=4.0, flops_method="counted")
    assert (found.flops_total, found.flops_per_token, found.flops_per_second) == (1000.0, 100.0, 250.0)
    assert found.flops_method == "counted"


def test_times_of_a_span() -> None:
    """Its length is between its ends."""
    end = BEGAN + timedelta(seconds=2.5)
    assert Timestamps.from_times(BEGAN, end) == Timestamps(start=BEGAN, end=end, duration_sec=2.5)


def least() -> RawProcessResult:
    """Only what nobody can leave out."""
    return RawProcessResult(
        experiment_id="run",
        process_index=0,
        timestamps=Timestamps.from_times(BEGAN, BEGAN + timedelta(seconds=1)),
        inference_metrics=InferenceMetrics.from_counts(
            input_tokens=1, output_tokens=1, inference_time_sec=1.0
        ),
        energy_metrics=EnergyMetrics(total_energy_j=7.0, duration_sec=1.0),
    )


def test_what_is_taken_for_granted_where_nothing_is_said() -> None:
    """A process of an unknown engine that completed, on a whole GPU, with an energy that was measured."""
    found = least()
    assert (found.status, found.backend, found.schema_version) == ("completed", "unknown", SCHEMA_VERSION)
    assert found.energy_j == 7.0 and not found.energy_tracking_failed
    assert not found.on_mig_instance and not found.is_silent and found.every_device == []
    assert found.spans == [(found.timestamps.start, found.timestamps.end)]
    lists = (found.windows, found.devices, found.beside, found.warnings, found.effective_config)
    assert not any(lists)


def test_the_result_of_an_experiment_is_taken_for_a_whole_one() -> None:
    """Completed, of the total methodology, joined by the predecessor's rule, with nothing verified that was not."""
    found = ExperimentResult(
        experiment_id="run",
        measurement_config_hash="h",
        start_time=BEGAN,
        end_time=BEGAN,
        total_tokens=None,
        total_inference_time_sec=1.0,
    )
    assert (found.status, found.backend, found.measurement_methodology) == ("completed", "unknown", "total")
    joined = AggregationMetadata(num_processes=2)
    assert joined.method == "sum_energy_avg_throughput" and joined.warnings == []
    assert not joined.temporal_overlap_verified and not joined.gpu_attribution_verified


def test_who_a_process_is() -> None:
    """Silent beside the first of its group, on an instance by its own word or its device's, with all meters' devices."""
    assert not process(group_rank=0).is_silent and process(group_rank=1).is_silent
    assert process(gpu_is_mig=True).on_mig_instance
    instance = device_energy("MIG-0", 1.0, kind="mig")
    assert process(devices=[device_energy("GPU-0", 1.0), instance]).on_mig_instance
    assert not process().on_mig_instance
    both = process(beside=[device_energy("cpu", 1.0)]).every_device
    assert [device.uuid for device in both] == ["GPU-0", "cpu"]
    windows = [(BEGAN, BEGAN + timedelta(seconds=1)), (BEGAN, BEGAN + timedelta(seconds=3))]
    assert process(windows=windows).spans == windows
    assert process(energy_tracking_failed=True).energy_j is None


def test_the_least_trusted_source_is_what_it_says_or_its_devices() -> None:
    """An estimate among counters makes an estimate."""
    devices = [device_energy("GPU-0", 1.0, energy_source=source) for source in ("counter", "estimated")]
    assert process(devices=devices, energy_source=None).least_trusted_source == "estimated"
    assert process(devices=devices, energy_source="counter").least_trusted_source == "counter"


# Two requests of known times: of the second only the first token came.
TIMES = {
    "arrival_ns": [100, 1000],
    "start_ns": [150, 1100],
    "first_token_ns": [250, 1400],
    "last_token_ns": [1250, 1400],
    "end_ns": [1300, 1500],
    "output_tokens": [11, 1],
    "first_chunk_tokens": [1, 1],
}
OF_TIMES = {
    "ttft": [150, 400],
    "ttft_sent": [100, 300],
    "tpot_vllm": [100, None],
    "tpot_guidellm": [100, 300],
    "itl_aiperf": [100, None],
    "e2e_sent": [1150, 400],
    "e2e": [1200, 500],
}


@pytest.mark.parametrize("name", OF_REQUEST)
def test_a_series_has_a_value_for_each_request(name: str) -> None:
    """In nanoseconds; none where a request has no second token."""
    columns, of_request = OF_REQUEST[name]
    values = of_request(*(np.array(TIMES[column]) for column in columns))
    assert np.ma.asarray(values).tolist() == OF_TIMES[name]


def test_columns_of_a_series_are_those_of_a_request() -> None:
    """But two that are found in the times of its tokens."""
    named = {column for columns, _ in OF_REQUEST.values() for column in columns}
    assert named - set(Request.__struct_fields__) == {"last_token_ns", "first_chunk_tokens"}
