"""What an experiment takes from its processes when it is not given."""

from llem.results import (
    EnergyBreakdown,
    ExperimentResult,
    RawProcessResult,
    ResultWarning,
    ThermalThrottleInfo,
    WarmupResult,
    aggregate_results,
)
from tests.results.processes import device, process


def aggregate(*results: RawProcessResult, **options: object) -> ExperimentResult:
    return aggregate_results(list(results), "run", "hash", **options)  # type: ignore[arg-type]


def test_breakdown_is_derived_from_processes() -> None:
    """Raw and adjusted energy are summed, the baseline is the first process's."""
    parts = [
        EnergyBreakdown(raw_j=25.0, adjusted_j=-5.0, baseline_power_w=3.0, baseline_method="fresh"),
        EnergyBreakdown(raw_j=30.0, adjusted_j=20.0, baseline_power_w=1.0, baseline_method="fresh"),
    ]
    result = aggregate(*(process(index, energy_breakdown=part) for index, part in enumerate(parts)))
    assert result.energy_breakdown == EnergyBreakdown(
        raw_j=55.0, adjusted_j=15.0, baseline_power_w=3.0, baseline_method="fresh"
    )
    assert (result.baseline_power_w, result.energy_adjusted_j) == (3.0, 15.0)


def test_breakdown_of_one_process_only_leaves_the_sum_unknown() -> None:
    """A process without a baseline makes the adjusted sum unknown, not smaller."""
    part = EnergyBreakdown(raw_j=25.0, adjusted_j=5.0)
    result = aggregate(process(0, energy_breakdown=part), process(1))
    assert (result.energy_adjusted_j, result.total_energy_j) == (None, 50.0)


def test_throttling_is_derived_from_processes() -> None:
    """Flags are of any process, duration and temperature are the largest."""
    cool = ThermalThrottleInfo(
        detected=False, thermal=False, throttle_duration_sec=1.0, max_temperature_c=60.0
    )
    hot = ThermalThrottleInfo(detected=True, thermal=True, throttle_duration_sec=2.0, max_temperature_c=90.0)
    merged = aggregate(process(0, thermal_throttle=cool), process(1, thermal_throttle=hot)).thermal_throttle
    assert merged == hot


def test_unknown_throttling_is_not_denied() -> None:
    """A flag that one process could not read is None unless another one saw it."""
    known, unknown = ThermalThrottleInfo(detected=False), ThermalThrottleInfo()
    merged = aggregate(
        process(0, thermal_throttle=known), process(1, thermal_throttle=unknown)
    ).thermal_throttle
    assert merged is not None
    assert merged.detected is None


def test_first_known_facts_are_taken() -> None:
    """Warm-up, configuration, version and model come from the first process that has them."""
    warmup = WarmupResult(converged=True, iterations_completed=7)
    second = process(
        1,
        warmup_result=warmup,
        effective_config={"a": 1},
        backend_version="1.2",
        model_name="m",
        weights="random",
    )
    result = aggregate(process(0), second)
    assert (result.warmup_result, result.warmup_excluded_samples) == (warmup, 7)
    assert (result.effective_config, result.backend_version) == ({"a": 1}, "1.2")
    assert (result.model_name, result.weights) == ("m", "random")


def test_what_is_given_stands_in_place_of_what_is_derived() -> None:
    """Breakdown, throttling, warm-up and configuration of the caller win, even a legal zero."""
    own = process(
        energy_breakdown=EnergyBreakdown(raw_j=25.0, adjusted_j=5.0, baseline_power_w=2.0),
        warmup_result=WarmupResult(converged=False, iterations_completed=3),
    )
    result = aggregate(
        own,
        energy_breakdown=EnergyBreakdown(raw_j=1.0, adjusted_j=0.5, baseline_power_w=9.0),
        baseline_power_w=0.0,
        warmup_result=WarmupResult(converged=True, iterations_completed=4),
        thermal_throttle=ThermalThrottleInfo(detected=True),
        effective_config={"b": 2},
        measurement_warnings=["noisy"],
        timeseries="samples.parquet",
    )
    assert (result.baseline_power_w, result.energy_adjusted_j, result.warmup_excluded_samples) == (
        0.0,
        0.5,
        4,
    )
    assert result.thermal_throttle == ThermalThrottleInfo(detected=True)
    assert (result.effective_config, result.measurement_warnings) == ({"b": 2}, ["noisy"])
    assert result.timeseries == "samples.parquet"


def test_the_least_trusted_energy_source_names_the_sum() -> None:
    """A sum with an estimate in it is an estimate; with an unknown source it has none."""
    assert aggregate(process(0), process(1, energy_source="estimated")).energy_source == "estimated"
    assert aggregate(process(0), process(1, energy_source="integrated")).energy_source == "integrated"
    unknown = process(1, energy_source=None, devices=[device("GPU-1", 25.0, energy_source=None)])
    assert aggregate(process(0), unknown).energy_source is None
    assert aggregate(process(0, energy_source=None)).energy_source == "counter"


def test_multi_gpu_is_derived_for_several_gpus_only() -> None:
    """Two GPUs give energy by GPU; one GPU gives none."""
    metrics = aggregate(process(0, energy_j=30.0), process(1, energy_j=50.0)).multi_gpu
    assert metrics is not None
    assert (metrics.num_gpus, metrics.energy_per_gpu_j, metrics.energy_total_j) == (2, [30.0, 50.0], 80.0)
    assert metrics.energy_per_output_token_j == 0.1
    assert aggregate(process(0)).multi_gpu is None


def test_process_warnings_reach_the_experiment() -> None:
    """Doubts of processes are told once, in their words."""
    doubt = ResultWarning(code="sample_gap", text="2 s without a sample")
    first = process(0, warnings=[doubt], energy_measurement_warning="MIG shows the whole GPU")
    result = aggregate(first, process(1, warnings=[doubt]))
    assert result.measurement_warnings == ["2 s without a sample"]
    assert result.aggregation is not None
    assert result.aggregation.warnings == ["MIG shows the whole GPU"]


def test_the_worst_status_is_the_experiments() -> None:
    """One interrupted process makes the experiment interrupted."""
    assert aggregate(process(0), process(1, status="interrupted")).status == "interrupted"


def test_requests_are_summed_when_all_are_known() -> None:
    """Requests and failures are sums; an unknown count leaves the sum unknown."""
    result = aggregate(process(0, requests=8, failed_requests=0), process(1, requests=8))
    assert (result.total_requests, result.failed_requests) == (16, None)
