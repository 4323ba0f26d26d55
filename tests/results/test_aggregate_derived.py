"""What an experiment takes from its processes when it is not given."""

import msgspec

from llem.results import (
    EnergyBreakdown,
    ExperimentResult,
    InferenceMetrics,
    RawProcessResult,
    ResultWarning,
    ThermalThrottleInfo,
    WarmupResult,
    aggregate_results,
)
from tests.world import device_energy, process


def aggregate(*results: RawProcessResult, **options: object) -> ExperimentResult:
    return aggregate_results(list(results), "run", "hash", **options)  # type: ignore[arg-type]


def test_breakdown_is_derived_from_processes() -> None:
    """The baseline is the sum over devices, and the energy above it follows from the figures beside it: 55 - 4 x 10."""
    parts = [
        EnergyBreakdown(raw_j=25.0, adjusted_j=-5.0, baseline_power_w=3.0, baseline_method="fresh"),
        EnergyBreakdown(raw_j=30.0, adjusted_j=20.0, baseline_power_w=1.0, baseline_method="fresh"),
    ]
    result = aggregate(
        *(process(index, energy_j=part.raw_j, energy_breakdown=part) for index, part in enumerate(parts))
    )
    assert result.energy_breakdown == EnergyBreakdown(
        raw_j=55.0, adjusted_j=15.0, baseline_power_w=4.0, baseline_method="fresh"
    )
    assert (result.baseline_power_w, result.energy_adjusted_j) == (4.0, 15.0)


def test_missing_idle_power_is_explained() -> None:
    """Energy above an idle power that nobody measured is None, and a warning says so."""
    joined = aggregate(process(energy_breakdown=EnergyBreakdown(raw_j=25.0)))
    assert (joined.energy_adjusted_j, joined.baseline_power_w) == (None, None)
    assert joined.aggregation is not None
    assert joined.aggregation.warnings == [
        "idle power of process 0 was not measured, so energy above it is unknown"
    ]


def test_spread_and_second_baseline_are_of_all_devices() -> None:
    """Independent spreads add as squares, second baselines add; methods that differ are called mixed."""
    parts = [
        EnergyBreakdown(
            baseline_power_w=10.0, baseline_std_w=3.0, baseline_after_w=11.0, baseline_method="measured"
        ),
        EnergyBreakdown(
            baseline_power_w=20.0,
            baseline_std_w=4.0,
            baseline_after_w=22.5,
            baseline_method="reused",
            baseline_cache_age_sec=60.0,
        ),
    ]
    joined = aggregate(*(process(index, energy_breakdown=part) for index, part in enumerate(parts)))
    assert joined.energy_breakdown is not None
    assert (joined.energy_breakdown.baseline_std_w, joined.energy_breakdown.baseline_after_w) == (5.0, 33.5)
    assert joined.energy_breakdown.baseline_method == "mixed"
    assert joined.energy_breakdown.baseline_cache_age_sec == 60.0


def test_windows_of_other_lengths_keep_the_definition() -> None:
    """Energy above idle is over the duration that is shown: 50 - 4 x 12, though no process ran for 12 s."""
    part = EnergyBreakdown(raw_j=25.0, adjusted_j=5.0, baseline_power_w=2.0)
    first = process(0, span=(0, 10), energy_breakdown=part)
    joined = aggregate(first, process(1, span=(4, 12), energy_breakdown=part))
    assert (joined.duration_sec, joined.baseline_power_w, joined.energy_adjusted_j) == (12.0, 4.0, 2.0)


def test_energies_of_counters_stay_decimal() -> None:
    """Sums of millijoules are what anybody adds up: 0.1 + 0.2 is 0.3."""
    joined = aggregate(process(0, energy_j=0.1), process(1, energy_j=0.2))
    assert joined.total_energy_j == 0.3


def test_energy_above_a_given_idle_power_follows_from_it() -> None:
    """Given the idle power alone, the rest is no longer that of the processes: 25 - 1.5 x 10."""
    own = process(energy_breakdown=EnergyBreakdown(raw_j=25.0, adjusted_j=5.0, baseline_power_w=2.0))
    assert aggregate(own, baseline_power_w=1.5).energy_adjusted_j == 10.0


def test_a_missing_energy_is_explained_whatever_warnings_are_given() -> None:
    """The total is None, and the warnings say of which process and why."""
    blind = process(1, energy_j=None, devices=[device_energy("GPU-1", None, reason="no power sensor")])
    text = "energy of process 1 was not measured, so the total is unknown: no power sensor"
    assert aggregate(process(0), blind).measurement_warnings == [text]
    assert aggregate(process(0), blind, measurement_warnings=["noisy"]).measurement_warnings == [
        "noisy",
        text,
    ]


def test_a_tracking_that_failed_is_the_reason_of_a_missing_energy() -> None:
    """Beside what the devices say, each reason once."""
    silent = [device_energy(uuid, None, reason="no power sensor") for uuid in ("GPU-0", "GPU-1")]
    failed = process(energy_j=None, energy_tracking_failed=True, devices=silent)
    assert aggregate(failed).measurement_warnings == [
        "energy of process 0 was not measured, so the total is unknown: no power sensor; its tracking failed"
    ]


def test_a_mig_instance_is_warned_of() -> None:
    """Its energy is the whole GPU's, and nobody has to know that."""
    for instance in (
        process(0, gpu_is_mig=True),
        process(0, devices=[device_energy("MIG-1", 25.0, kind="mig", parent_uuid="GPU-0")]),
    ):
        joined = aggregate(instance)
        assert joined.aggregation is not None
        assert "process 0 ran on a MIG instance" in joined.aggregation.warnings[0]


def test_a_wrapped_program_has_no_tokens() -> None:
    """Tokens that are not measured are None, and so is what follows from them."""
    none = InferenceMetrics(total_tokens=None, input_tokens=None, output_tokens=None, inference_time_sec=10.0)
    wrapped = msgspec.structs.replace(process(), inference_metrics=none)
    joined = aggregate(wrapped)
    of_tokens = (joined.total_tokens, joined.tokens_per_second, joined.avg_energy_per_token_j)
    assert of_tokens == (None, None, None)
    assert (joined.total_energy_j, joined.tokens_per_joule, joined.output_tokens_per_second) == (
        25.0,
        None,
        None,
    )
    assert joined.aggregation is not None
    assert "tokens of process 0 were not measured" in joined.aggregation.warnings[0]


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


def test_moments_of_throttling_are_on_one_clock() -> None:
    """Three seconds into a process that began five seconds later are eight into the experiment."""
    slow = ThermalThrottleInfo(detected=True, throttle_timestamps=[3.0])
    merged = aggregate(
        process(0, span=(0, 10), thermal_throttle=slow), process(1, span=(5, 15), thermal_throttle=slow)
    ).thermal_throttle
    assert merged is not None
    assert merged.throttle_timestamps == [3.0, 8.0]


def test_warmups_of_all_processes_are_left_out() -> None:
    """The count is the sum, and the warm-up shown is one that did not settle, if any."""
    settled, unsettled = (
        WarmupResult(converged=converged, iterations_completed=5) for converged in (True, False)
    )
    joined = aggregate(process(0, warmup_result=settled), process(1, warmup_result=unsettled))
    assert (joined.warmup_excluded_samples, joined.warmup_result) == (10, unsettled)


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
    unknown = process(1, energy_source=None, devices=[device_energy("GPU-1", 25.0, energy_source=None)])
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
