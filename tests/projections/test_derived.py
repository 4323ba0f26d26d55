"""What follows from an experiment of known figures, in memory; and what is against it, exactly at the limits."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from llem.plan import ModelPlan, Plan, ServerPlan, ValidityPlan
from llem.projections.derive import conservation
from llem.projections.derive.experiment import log_warnings
from llem.projections.derive.held import Held, HeldSamples
from llem.projections.derive.rows import experiment_results, experiments
from llem.projections.derive.source import POSSIBLE, Device
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    ClockRead,
    ClocksCompared,
    Estimated,
    Event,
    ExperimentInterrupted,
    ExperimentStarted,
    MeterStarted,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    RequestsCompleted,
    SamplesDropped,
    SamplingCompleted,
    SensorCalibrated,
    WarmupCompleted,
    WindowClosed,
    WindowOpened,
)
from tests.projections.in_memory import changed, derive, reasons, segment, usual
from tests.world import (
    CLOSED_S,
    HOST,
    OFFSET_NS,
    OPENED_S,
    at,
    edges,
    one_by_one,
    request,
    sampler_events,
    supervisor_events,
    worker_events,
)


def test_the_usual_experiment() -> None:
    """4,080 J by the counter and 4,000 J by its power in 20 s, of 80 input and 40 output tokens; nothing is against it."""
    derived = usual()
    result = derived.result
    assert result is not None and reasons(derived) == [] and result.status == derived.status == "completed"
    assert (result.total_energy_j, result.energy_source) == (4080.0, "counter")
    assert (result.total_tokens, result.total_input_tokens, result.total_output_tokens) == (120, 80, 40)
    assert (result.total_requests, result.failed_requests) == (10, 0)
    assert result.total_inference_time_sec == result.measured_sec == 20.0
    assert result.baseline_power_w == 50.0 and result.energy_adjusted_j == 3080.0
    ((device,),) = (derived.measured[0].result.devices,)
    assert device.integrated_energy_j == pytest.approx(4000.0, rel=1e-3)
    assert (device.counter_open_j, device.counter_close_j) == (1000.0, 5080.0)
    process = derived.measured[0].result
    assert (process.samples, process.temperature_drift_c) == (200, 0.0)
    assert process.max_sample_gap_sec == pytest.approx(0.1)
    assert process.warnings == [] and process.windows == []
    assert process.extended_metrics is not None
    assert process.extended_metrics.gpu_utilisation.sm_utilisation_mean == 90.0
    assert process.extended_metrics.gpu_utilisation.sm_utilisation_samples == 200
    assert process.extended_metrics.memory.peak_memory_mb == 512.0
    assert process.extended_metrics.batch.num_batches == 10
    assert process.extended_metrics.batch.effective_batch_size == 1.0
    assert process.compute_metrics.model_memory_mb == pytest.approx(4000 / 2**20)
    assert process.thermal_throttle is not None and process.thermal_throttle.detected is False
    assert process.thermal_throttle.max_temperature_c == 60.0
    assert process.energy_breakdown is not None and process.energy_breakdown.baseline_method == "measured"


def constant(power_w: float) -> Callable[[float], float]:
    """After idling at 50 W."""
    return lambda second: 50.0 if second < 5 else power_w


def test_an_experiment_takes_as_long_as_its_processes() -> None:
    """Two, of which the second begins a second later and ends two later: 22 s on the wall clock of both."""
    late = worker_events(1, uuid="GPU-1", opened_s=11.0, closed_s=32.0)
    derived = derive(
        (segment("supervisor"), supervisor_events(2)),
        (segment("worker", index=0), worker_events()),
        (segment("sampler", index=0), sampler_events()),
        (segment("worker", index=1), late),
        (segment("sampler", index=1), sampler_events(1, uuid="GPU-1", power_w=constant(4080 / 21))),
    )
    result = derived.result
    assert result is not None and reasons(derived) == []
    assert (result.measured_sec, result.total_inference_time_sec) == (22.0, 41.0)
    assert result.total_energy_j == 8160.0 and result.total_requests == 20
    assert derived.end_ns - derived.start_ns == 22 * 10**9


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (ProcessCompleted(process_index=0, stopped_early=True), "interrupted"),
        (ProcessFailed(process_index=0, error_type="E", message="m", stage="s"), "failed"),
        (None, "incomplete"),
    ],
)
def test_how_a_process_ended(event: Event | None, status: str) -> None:
    """Without its completion marker the experiment is not complete."""

    def change(_: float, said: Event) -> Event | None:
        return event if isinstance(said, ProcessCompleted) else said

    derived = usual(change=change)
    assert derived.measured[0].result.status == status
    assert derived.status == ("completed" if status == "interrupted" else status)


def moved(kind: type[WindowOpened] | type[WindowClosed], by_ns: int) -> Callable[[float, Event], Event]:
    """The counters of the measurement read so much later."""

    def change(_: float, said: Event) -> Event:
        if not isinstance(said, kind) or not said.edges:
            return said
        edges_read = [msgspec.structs.replace(edge, at_ns=edge.at_ns + by_ns) for edge in said.edges]
        return msgspec.structs.replace(said, edges=edges_read)

    return change


@pytest.mark.parametrize("kind", [WindowOpened, WindowClosed])
@pytest.mark.parametrize(
    ("by_ns", "breaks"), [(10**7, False), (10**7 + 1, True), (-(10**7), False), (-(10**7) - 1, True)]
)
def test_counters_are_read_within_ten_milliseconds_of_an_edge(
    kind: type[WindowOpened], by_ns: int, breaks: bool
) -> None:
    """Before or after it."""
    found = [
        reason for reason in reasons(usual(change=moved(kind, by_ns))) if "from their window's edge" in reason
    ]
    assert bool(found) is breaks


@pytest.mark.parametrize(
    ("idle_w", "breaks"), [(50.0, False), (30.0, False), (29.9, True), (79.9, False), (80.1, True)]
)
def test_an_idle_power_lies_between_its_samples(idle_w: float, breaks: bool) -> None:
    """From 0.6 of the least to 1.6 of the largest; both are 50 W."""
    found = [
        reason for reason in reasons(usual(worker=worker_events(baseline_w=idle_w))) if "idle power" in reason
    ]
    assert bool(found) is breaks


@pytest.mark.parametrize(
    ("power_w", "average_w", "ends_w"),
    [
        ([5, 3, 4, 9], [1, 1, 1, 1], (3, 5)),
        ([5, np.nan, 4, 9], [1, 2, 7, 0], (2, 5)),
        ([np.nan, np.nan, 4, 1], [np.nan, 2, 7, 0], (2, 4)),
        ([5, np.nan, 4, 9], [np.nan] * 4, (4, 5)),
        ([np.nan] * 4, [6, 2, 7, 0], (2, 7)),
        ([np.nan] * 4, [6, np.nan, 7, 0], (6, 7)),
        ([np.nan] * 4, [np.nan] * 4, None),
        ([np.nan, np.nan, np.nan, 9], [np.nan, np.nan, np.nan, 9], None),
    ],
)
def test_the_power_of_a_span_lies_between_its_samples(
    power_w: list[float], average_w: list[float], ends_w: tuple[float, float] | None
) -> None:
    """Of its three first samples; the driver's average stands in where there is no power, sample by sample."""
    known = {"power_w": np.array(power_w, float), "power_average_w": np.array(average_w, float)}
    read = dict.fromkeys(POSSIBLE, np.full(4, np.nan)) | known
    gpu = Device(0, "GPU-0")
    source = Held([], [HeldSamples(gpu, "s", np.array([10, 20, 30, 40]), read)], {})
    assert conservation._powers(source, gpu, (10, 30)) == ends_w
    assert conservation._powers(source, Device(1, "GPU-0"), (10, 30)) is None


@pytest.mark.parametrize(("idle_w", "breaks"), [(50.0, True), (200.0, False)])
def test_the_idle_power_of_a_server_is_compared_with_its_own_window(idle_w: float, breaks: bool) -> None:
    """With its weights on the GPU it takes 200 W, the board before and after it 50 W."""
    told = BaselinePower(device_uuid="GPU-0", mean_power_w=idle_w, std_power_w=1.0, samples=10)
    after = msgspec.structs.replace(told, mean_power_w=50.0)
    idle = [
        (5.4, WindowOpened(kind="baseline", window_index=1)),
        (5.6, WindowClosed(kind="baseline", window_index=1)),
        (5.6, BaselineMeasured(position="server_idle", duration_s=0.2, devices=[told])),
        (33.0, WindowOpened(kind="baseline", window_index=2)),
        (35.0, WindowClosed(kind="baseline", window_index=2)),
        (35.0, BaselineMeasured(position="after", duration_s=2.0, devices=[after])),
    ]
    worker = sorted([*worker_events(), *idle], key=lambda dated: dated[0])
    sampler = sampler_events(power_w=lambda second: 200.0 if 4.3 < second < 31.0 else 50.0, until_s=37.0)
    found = [reason for reason in reasons(usual(worker=worker, sampler=sampler)) if "idle power" in reason]
    assert bool(found) is breaks


@pytest.mark.parametrize(
    ("plan", "command", "model", "engine"),
    [
        (Plan(), [], "tiny-llama", "transformers"),
        (Plan(), ["python", "x.py"], None, "command"),
        (Plan(server=ServerPlan(kind="url")), [], None, "url"),
        (Plan(server=ServerPlan(kind="vllm"), model=ModelPlan(name="org/m")), [], "org/m", "vllm"),
    ],
    ids=["engine", "program", "server", "server with a model"],
)
def test_what_was_never_measured_is_not_the_usual_model(
    plan: Plan, command: list[str], model: str | None, engine: str
) -> None:
    """That stands in every plan, also in one of a program or a server that ended before anything was measured."""

    def wraps(_: float, said: Event) -> Event:
        return msgspec.structs.replace(said, command=command) if isinstance(said, ExperimentStarted) else said

    (row,) = experiment_results(derive((segment("supervisor"), changed(supervisor_events(plan=plan), wraps))))
    assert (row.get("model_name"), row["engine"]) == (model, engine)


def test_an_idle_power_that_was_not_measured_here_is_not_compared() -> None:
    """One of an earlier run, or one that nobody read."""

    def reused(_: float, said: Event) -> Event:
        return (
            msgspec.structs.replace(said, reused_from="r", age_s=5.0)
            if isinstance(said, BaselineMeasured)
            else said
        )

    derived = usual(worker=worker_events(baseline_w=200.0), change=reused)
    assert reasons(derived) == []
    assert derived.measured[0].result.energy_breakdown is not None
    assert derived.measured[0].result.energy_breakdown.baseline_method == "reused"
    assert derived.measured[0].result.energy_breakdown.baseline_cache_age_sec == 5.0
    assert reasons(usual(worker=worker_events(baseline_w=None))) == []


def counted(**changes: Any) -> Callable[[float, Event], Event]:
    def change(_: float, said: Event) -> Event:
        return msgspec.structs.replace(said, **changes) if isinstance(said, ProcessCompleted) else said

    return change


@pytest.mark.parametrize(
    ("name", "found"),
    [("requests", 10), ("failed_requests", 0), ("input_tokens", 80), ("output_tokens", 40), ("batches", 10)],
)
def test_a_count_of_the_marker_is_that_of_the_log(name: str, found: int) -> None:
    """One more is told."""
    text = f"{name.replace('_', ' ')} of process 0: {found} in the log, {found + 1} counted when it ended"
    assert any(text in reason for reason in reasons(usual(change=counted(**{name: found + 1}))))


@pytest.mark.parametrize(
    ("sampled", "dropped", "events", "told"),
    [
        (345, 0, [], []),
        (346, 0, [], ["345 in the log, 346 counted"]),
        (347, 2, [2], []),
        (347, 2, [], []),
        (347, 2, [3], ["3 samples of process 0 were dropped, 2 counted"]),
    ],
)
def test_samples_of_the_log_are_those_that_the_sampler_counted(
    sampled: int, dropped: int, events: list[int], told: list[str]
) -> None:
    """Without those that it dropped, of which it may not have told all."""
    lost = [(20.0, SamplesDropped(count=count, reason="r")) for count in events]
    *said, (second, _) = sampler_events()
    ended = SamplingCompleted(samples=sampled, samples_dropped=dropped, deadlines_missed=0)
    found = reasons(usual(sampler=[*said, *lost, (second, ended)]))
    for text in told:
        assert any(text in reason for reason in found)
    assert bool(told) is any("samples of process" in reason for reason in found if "counted" in reason)


def test_windows_that_overlap_or_have_no_end() -> None:
    """One that begins where another ends does not."""
    fits = [(8.0, WindowOpened(kind="guard")), (OPENED_S, WindowClosed(kind="guard"))]
    overlaps = [(8.5, WindowOpened(kind="guard")), (OPENED_S + 0.1, WindowClosed(kind="guard"))]
    endless = [(8.5, WindowOpened(kind="guard"))]
    backwards = [(9.0, WindowOpened(kind="guard")), (8.5, WindowClosed(kind="guard"))]
    twice = [*fits, *((second + 0.0, event) for second, event in fits)]
    stray = [(9.0, WindowClosed(kind="guard"))]
    for windows, text in (
        (fits, None),
        (overlaps, "two windows of process 0 overlap"),
        (endless, "the end of a guard window of process 0 was not recorded and is guessed"),
        (backwards, "a guard window of process 0 ends before it begins"),
        (twice, "windows of process 0 of one name: found 5, expected 4"),
        (stray, "1 ends of windows of process 0 belong to no window"),
    ):
        found = reasons(usual(worker=sorted([*worker_events(), *windows], key=lambda said: said[0])))
        assert (
            [reason for reason in found if "window" in reason] == []
            if text is None
            else any(text in reason for reason in found)
        )


def test_requests_outside_of_the_windows_are_told() -> None:
    """One that began before the measurement, or ended after it; the edges themselves are in it."""
    ends_with_it = request(1, CLOSED_S - 0.26)
    assert ends_with_it.end_ns == at(CLOSED_S)
    for requests, outside in (
        ([request(0, OPENED_S), ends_with_it], 0),
        ([request(0, OPENED_S - 0.001), ends_with_it], 1),
        ([request(0, OPENED_S - 0.001), request(1, CLOSED_S - 0.25)], 2),
    ):
        found = [
            reason for reason in reasons(usual(worker=worker_events(requests=requests))) if "window" in reason
        ]
        assert any(str(outside) in reason for reason in found) is (outside > 0)


def test_tokens_count_where_they_came() -> None:
    """Of a request that ended after its window the tokens that came in it; a failed one has done no work."""
    late = request(0, CLOSED_S - 0.2)  # tokens 0.1, 0.05 and 0 s before the end, one after it
    failed = request(1, 15.0, finish_reason="error", error="e")
    derived = usual(worker=worker_events(requests=[late, failed, request(2, 16.0)]))
    process = derived.measured[0].result
    inference = process.inference_metrics
    assert (inference.input_tokens, inference.output_tokens) == (16, 3 + 4)
    assert (process.requests, process.failed_requests) == (3, 1)
    measured = inference.latency_measurements
    assert measured is not None and (measured.request_count, measured.total_output_tokens) == (1, 4)
    early = request(0, OPENED_S - 0.12)  # its first token came 20 ms before the window
    inference = (
        usual(worker=worker_events(requests=[early, request(2, 16.0)])).measured[0].result.inference_metrics
    )
    assert (inference.input_tokens, inference.output_tokens) == (8, 3 + 4)


def test_batches_have_the_size_that_their_requests_say() -> None:
    """Two of one batch are a batch of two."""
    pair = [request(number, 12.0, batch_index=0, batch_size=2) for number in range(2)]
    told = [(14.0, RequestsCompleted(window="measurement", requests=pair)), *one_by_one([request(5, 16.0)])]
    derived = usual(worker=worker_events(batches=told))
    batch = derived.measured[0].result.extended_metrics.batch
    assert (batch.num_batches, batch.effective_batch_size) == (2, 1.5)
    assert not any("batch" in reason and "size" in reason for reason in reasons(derived))
    alone = usual(worker=worker_events(batches=one_by_one([pair[0], request(5, 16.0)])))
    assert any("batch" in reason and "size" in reason for reason in reasons(alone))


def test_throttling_is_of_the_device_with_most_and_each_moment_once() -> None:
    """The power cap from 12 to 13 s, a thermal slowdown from 20 to 20.5."""
    sampler = sampler_events(
        throttle=lambda second: 4 if 12 <= second < 13 else 64 if 20 <= second < 20.5 else 1
    )
    found = usual(sampler=sampler).measured[0].result.thermal_throttle
    assert found is not None
    assert (found.detected, found.power, found.thermal) == (True, True, True)
    assert (found.hw_thermal, found.sw_thermal, found.hw_power) == (True, False, False)
    assert found.throttle_duration_sec == pytest.approx(1.5, abs=1e-6)
    assert len(found.throttle_timestamps) == 15
    assert found.throttle_timestamps[0] == pytest.approx(2.05) and found.throttle_timestamps == sorted(
        found.throttle_timestamps
    )
    unread = usual(sampler=sampler_events(throttle=None)).measured[0].result.thermal_throttle
    assert unread is not None and unread.detected is None and unread.throttle_duration_sec is None


def doubts(**options: Any) -> list[str]:
    return [doubt.code for doubt in usual(**options).measured[0].result.warnings]


def left_out(*kinds: type[Event]) -> Callable[[float, Event], Event | None]:
    return lambda _, said: None if isinstance(said, kinds) else said


def test_doubts_of_what_did_not_reach_the_log() -> None:
    """Each with its code."""
    assert doubts() == []
    assert doubts(change=left_out(SamplingCompleted)) == ["sampler_ended_early"]
    assert doubts(change=left_out(SamplingCompleted, ProcessCompleted)) == []
    assert doubts(change=left_out(MeterStarted)) == ["no_sampler"]
    assert "no_sampler" not in doubts(change=left_out(MeterStarted, ProcessStarted))
    lost = [*sampler_events(), (20.0, SamplesDropped(count=2, reason="r"))]
    assert doubts(sampler=lost) == ["samples_dropped"]


@pytest.mark.parametrize(("converged", "codes"), [(True, []), (False, ["warmup_not_converged"])])
def test_a_warm_up_that_did_not_converge_is_a_doubt(converged: bool, codes: list[str]) -> None:
    """With how much the last batches varied."""
    warmed = WarmupCompleted(
        converged=converged, latencies_ms=[1.0, 2.0], reason="r", coefficient_of_variation=0.25
    )
    derived = usual(worker=[*worker_events(), (8.0, warmed)])
    process = derived.measured[0].result
    assert [doubt.code for doubt in process.warnings] == codes
    assert process.warmup_result is not None and process.warmup_result.iterations_completed == 2
    for doubt in process.warnings:
        assert "varied by 25.0%" in doubt.text and doubt.value == 0.25


@pytest.mark.parametrize(("counted_j", "codes"), [(4180.0, []), (4230.0, ["energy_disagreement"])])
def test_a_counter_may_differ_from_power_by_a_twentieth(counted_j: float, codes: list[str]) -> None:
    """More is a doubt: 4,000 J by the power."""
    assert doubts(worker=worker_events(counter_j=(0.0, counted_j))) == codes


@pytest.mark.parametrize(
    ("counts", "codes"),
    [
        (1.0, []),
        (1.019, []),
        (0.981, []),
        (1.021, ["counter_against_power"]),
        (0.979, ["counter_against_power"]),
    ],
)
def test_a_counter_may_count_two_per_cent_otherwise_than_power_tells(counts: float, codes: list[str]) -> None:
    """As a calibration found it; more is a doubt."""
    found = SensorCalibrated(
        host=HOST,
        device_uuid="GPU-0",
        sensor="power_mw",
        counter_over_power=Estimated(value=counts),
        experiment_id="before",
    )
    assert doubts(worker=[(0.6, found), *worker_events()]) == codes


@pytest.mark.parametrize(("source", "bound_j"), [("counter", 6.0), ("estimated", None)])
def test_a_counter_is_known_to_a_tick_of_the_highest_power(source: str, bound_j: float | None) -> None:
    """20 ms of 300 W; what was estimated has no bound."""

    def change(_: float, event: Event) -> Event:
        if not isinstance(event, MeterStarted):
            return event
        ticking = [
            msgspec.structs.replace(metered, counter_tick_ns=20_000_000, energy_source=source)
            for metered in event.devices
        ]
        return msgspec.structs.replace(event, devices=ticking)

    (device,) = usual(change=change).measured[0].result.devices
    assert device.uncertainty_j == (None if bound_j is None else pytest.approx(bound_j, rel=0.01))


def test_without_counter_or_power_energy_is_not_measured() -> None:
    """A reason in the place of a number."""
    found = usual(worker=worker_events(counter_j=None), sampler=sampler_events(power_w=None))
    (device,) = found.measured[0].result.devices
    assert device.energy_j is None and device.reason == "no power sensor"
    assert [doubt.code for doubt in found.measured[0].result.warnings] == ["energy_not_measured"]
    integrated = usual(worker=worker_events(counter_j=None)).measured[0].result.devices[0]
    assert integrated.energy_j == pytest.approx(4000.0, rel=1e-3) and integrated.integration == "trapezoid"


def test_a_counter_that_was_sampled_does_where_its_edges_were_not_read() -> None:
    """Between two samples at each edge; its bound holds the time between them."""
    sampler = sampler_events(counter_j=lambda second: 200.0 * second)
    worker = worker_events(counter_j=None)
    (device,) = usual(worker=worker, sampler=sampler).measured[0].result.devices
    assert device.energy_j == pytest.approx(4000.0) and device.counter_open_j is None
    still = sampler_events(counter_j=lambda _: 7.0)
    (device,) = usual(worker=worker, sampler=still).measured[0].result.devices
    assert device.energy_j == 0.0


def test_two_windows_are_one_measurement() -> None:
    """Their energies are added, what lay between them is not in it, and each window is listed."""
    first = worker_events(closed_s=18.0, requests=[request(0, 11.0)])
    second = [
        (20.0, WindowOpened(kind="measurement", window_index=1, edges=edges("GPU-0", 6_000_000, 20.0))),
        (22.0, RequestsCompleted(window="measurement", requests=[request(1, 21.0)])),
        (
            CLOSED_S,
            WindowClosed(kind="measurement", window_index=1, edges=edges("GPU-0", 8_000_000, CLOSED_S)),
        ),
    ]
    done = ProcessCompleted(
        process_index=0, requests=2, failed_requests=0, input_tokens=16, output_tokens=8, batches=2
    )
    worker = [said for said in first if not isinstance(said[1], ProcessCompleted)]
    sampler = sampler_events(power_w=lambda at_s: 50 if at_s < 5 else 510 if at_s < 19 else 200)
    derived = usual(worker=[*worker, *second, (31.0, done)], sampler=sampler)
    result, process = derived.result, derived.measured[0].result
    assert result is not None and reasons(derived) == []
    assert result.total_energy_j == 4080.0 + 2000.0 and result.measured_sec == 18.0
    assert len(process.windows) == 2 and process.timestamps.duration_sec == 20.0
    assert process.devices[0].counter_open_j is None


def averaged_w(second: float) -> float:
    """The mean of the last second of 50 W, and 200 W from 10 to 30 s."""
    loaded_s = min(max(second, OPENED_S), CLOSED_S) - min(max(second - 1, OPENED_S), CLOSED_S)
    return 50.0 + 150.0 * loaded_s + 0.001 * (second % 1)


@pytest.mark.parametrize(
    ("guard_s", "limit_mw", "kind", "source", "counter_j", "integration"),
    [
        (4.0, 400_000, "average", "integrated", None, "telescoped"),
        (4.0, 400_000, "instant", "integrated", None, "trapezoid"),
        (4.0, 400_000, "average", "estimated", None, "trapezoid"),
        (1.0, 400_000, "average", "integrated", None, "trapezoid"),
        (None, 400_000, "average", "integrated", None, "trapezoid"),
        (4.0, None, "average", "integrated", None, "telescoped"),
        (4.0, 400_000, "average", "counter", (0.0, 4000.0), "trapezoid"),
    ],
)
def test_averaged_power_is_telescoped_where_a_guard_follows(
    guard_s: float | None,
    limit_mw: int | None,
    kind: str,
    source: str,
    counter_j: tuple[float, float] | None,
    integration: str,
) -> None:
    """Of a device with no counter; the bound is closer than that of the trapezoid."""

    def change(_: float, said: Event) -> Event:
        if not isinstance(said, MeterStarted):
            return said
        (metered,) = said.devices
        limited = msgspec.structs.replace(metered.device, power_limit_mw=limit_mw)
        device = msgspec.structs.replace(
            metered, device=limited, power_kind=kind, power_window_ns=10**9, energy_source=source
        )
        return msgspec.structs.replace(said, devices=[device])

    guard = (
        []
        if guard_s is None
        else [(30.0, WindowOpened(kind="guard")), (30.0 + guard_s, WindowClosed(kind="guard"))]
    )
    worker = [
        said for said in worker_events(counter_j=counter_j) if not isinstance(said[1], ProcessCompleted)
    ]
    end = [said for said in worker_events(counter_j=counter_j) if isinstance(said[1], ProcessCompleted)]
    late_end = [(35.0, event) for _, event in end]
    derived = usual(
        worker=[*worker, *guard, *late_end],
        sampler=sampler_events(power_w=averaged_w, hz=20.0, until_s=36.0),
        change=change,
    )
    (device,) = derived.measured[0].result.devices
    assert device.integration == integration
    # an average lags behind: half a second of 150 W is told after the window
    assert device.trapezoid_energy_j == pytest.approx(4000.0 - 75.0, rel=1e-3)
    truth_j = 4000.0 if integration == "telescoped" else 4000.0 - 75.0
    assert device.integrated_energy_j == pytest.approx(truth_j, rel=1e-3)


SUPERVISOR = segment("supervisor")


def status_of(*written: Any) -> str:
    return derive(*written).status


def test_how_an_experiment_ended() -> None:
    """By its processes, unless its log keeps it out, it was interrupted, or it goes on."""
    begun, ended = supervisor_events(2)[:1], supervisor_events(2)
    first, second = (
        (segment("worker", index=index), worker_events(index, uuid=f"GPU-{index}")) for index in (0, 1)
    )
    failed = [(9.0, ProcessFailed(process_index=0, error_type="E", message="m", stage="s"))]
    stopped = [(9.0, ExperimentInterrupted(reason="r", processes_completed=0, processes_failed=0))]
    going_on = segment("worker", index=1, being_written=True)
    assert status_of((SUPERVISOR, ended), first, second) == "completed"
    assert status_of((SUPERVISOR, begun), first, second) == "completed"
    assert status_of((SUPERVISOR, ended), first) == "incomplete"
    assert status_of((SUPERVISOR, [*ended, *stopped]), first, second) == "interrupted"
    assert status_of((SUPERVISOR, begun), first, (going_on, [])) == "running"
    assert status_of((SUPERVISOR, ended), first, (going_on, [])) == "incomplete"
    assert status_of((SUPERVISOR, ended), (segment("worker", index=0), failed)) == "failed"
    assert status_of((SUPERVISOR, ended), (segment("worker", index=0), failed), second) == "incomplete"
    assert status_of((SUPERVISOR, [])) == "incomplete"
    corrupt, newer = (segment("note", verdict=verdict) for verdict in ("corrupt", "newer"))
    assert status_of((SUPERVISOR, ended), first, second, (corrupt, [])) == "damaged"
    assert status_of((SUPERVISOR, ended), first, second, (newer, [])) == "newer"


def test_what_goes_on_is_not_judged_yet() -> None:
    """It has figures, and nothing stands against them."""
    begun = supervisor_events()[:1]
    going_on = segment("worker", index=0, being_written=True)
    worker = [dated for dated in worker_events() if not isinstance(dated[1], ProcessCompleted)]
    for written, judged in ((going_on, False), (segment("worker", index=0), True)):
        result = derive((SUPERVISOR, begun), (written, worker)).result
        assert result is not None and result.total_requests == 10
        assert (result.valid is not None) is bool(result.invalid_reasons) is judged


def two_hosts(*, error_ns: int = 0, later_s: float = 0.0, compared: bool = True) -> list[str]:
    """Reasons of codes of clocks, of two ranks whose measurement takes 20 s."""
    comparison = ClocksCompared(
        position="before",
        rank=1,
        host="beta",
        reference_host="alpha",
        offset_ns=0,
        monotonic_offset_ns=0,
        error_ns=error_ns,
        exchanges=9,
    )
    worker = worker_events(1, uuid="GPU-1", host="beta", opened_s=10 + later_s, closed_s=30 + later_s)
    derived = derive(
        (SUPERVISOR, supervisor_events(2)),
        (segment("worker", index=0), worker_events()),
        (segment("worker", index=1, host="beta"), worker),
        (segment("rank", host="beta"), [(0.5, comparison)] if compared else []),
    )
    assert derived.result is not None
    return [reason.text for reason in derived.result.invalid_reasons if reason.code == "clocks_apart"]


def test_clocks_of_hosts_are_known_to_a_hundredth_of_the_measurement() -> None:
    """And the hosts begin within as much."""
    limit_s = 20 * ValidityPlan().max_clock_error
    assert two_hosts(error_ns=round(1e9 * limit_s)) == [] == two_hosts(later_s=limit_s)
    (known,) = two_hosts(error_ns=round(1e9 * limit_s) + 1)
    assert known.startswith("the clock of beta is known to")
    (apart,) = two_hosts(later_s=limit_s + 0.001)
    assert apart.startswith("hosts began to measure")
    (uncompared,) = two_hosts(compared=False)
    assert uncompared == "2 hosts took part, and their clocks were not compared with that of beta"


def test_damage_that_was_left_out_is_a_reason_and_a_doubt() -> None:
    """Of all segments together."""
    parts = [
        segment(role, index=0, skipped_bytes=skipped) for role, skipped in (("worker", 3), ("sampler", 4))
    ]
    derived = derive(
        (SUPERVISOR, supervisor_events()), (parts[0], worker_events()), (parts[1], sampler_events())
    )
    assert derived.result is not None
    (reason,) = (each for each in derived.result.invalid_reasons if each.code == "salvaged")
    assert reason.value == 7 and reason.text.startswith("7 damaged bytes of its log are left out: ")
    assert [doubt.value for doubt in log_warnings(derived)] == [3, 4]


def test_a_wall_clock_that_moved_is_a_doubt() -> None:
    """By more than a tenth of a second."""
    for moved_ns, doubts_of in ((10**8, []), (10**8 + 1, ["clock_stepped"])):
        read = ClockRead(monotonic_ns=at(20), wall_ns=at(20) + OFFSET_NS + moved_ns)
        derived = usual(worker=[*worker_events(), (20.0, read)])
        assert [doubt.code for doubt in log_warnings(derived)] == doubts_of


@pytest.mark.parametrize(("sampled", "samples"), [(False, None), (True, 200)])
def test_of_imported_sums_nobody_knows_how_they_were_sampled(sampled: bool, samples: int | None) -> None:
    """Where another program wrote its samples too, they are counted."""
    told = (*worker_events(), *(sampler_events() if sampled else ()))
    derived = derive((SUPERVISOR, supervisor_events()), (segment("import", index=0), told))
    process = derived.measured[0].result
    assert (process.samples, process.max_sample_gap_sec is None) == (samples, samples is None)
    assert process.energy_breakdown is None or process.energy_breakdown.baseline_method == "imported"
    assert [doubt.code for doubt in process.warnings if doubt.code == "sampler_ended_early"] == []


def test_the_row_of_an_experiment_says_who_it_is() -> None:
    """Its name is the plan's; a problem is that of the process that failed."""
    begun, ended = supervisor_events(plan=Plan(name="sweep"), labels={"a": "b"})
    command = msgspec.structs.replace(begun[1], command=["llem", "measure"])
    failed = [(9.0, ProcessFailed(process_index=0, error_type="E", message="m", stage="s"))]
    derived = derive(
        (segment("supervisor", lost_bytes=1), [(0.0, command), ended]), (segment("worker", index=0), failed)
    )
    (row,) = experiments(derived)
    known = ("experiment_id", "name", "status", "problem", "salvaged", "expected_processes", "labels")
    assert [row[name] for name in known] == ["run-1", "sweep", "failed", "s: m", True, 1, {"a": "b"}]
    assert (row["command"], row["measurement_config_hash"]) == (["llem", "measure"], "hash")
    (bare,) = experiments(derive((segment("worker", index=0), worker_events())))
    assert {bare[name] for name in ("name", "plan", "command", "expected_processes", "started_ns")} == {None}
    stopped = ExperimentInterrupted(reason="Ctrl-C", processes_completed=0, processes_failed=0)
    (interrupted,) = experiments(derive((SUPERVISOR, [begun, (9.0, stopped)])))
    assert (interrupted["problem"], interrupted["salvaged"]) == ("Ctrl-C", False)
    damaged = derive((SUPERVISOR, [begun]), (segment("note", verdict="corrupt", problem="a digest"), []))
    assert experiments(damaged)[0]["problem"] == "note-None: a digest"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ProcessCompleted, "completion markers of process 0: found 2, expected 1"),
        (ProcessStarted, "starts of process 0: found 2, expected 1"),
        (MeterStarted, "starts of the sampler of process 0: found 2, expected 1"),
    ],
)
def test_what_is_said_twice_is_a_reason(kind: type[Event], text: str) -> None:
    """Once is enough."""
    worker, sampler = (
        [again for said in events for again in ([said] * 2 if isinstance(said[1], kind) else [said])]
        for events in (worker_events(), sampler_events())
    )
    assert any(text in reason for reason in reasons(usual(worker=worker, sampler=sampler)))


def test_requests_of_a_process_without_a_measurement_are_counted_too() -> None:
    """They are as many as it counted itself, and lie outside of any window."""
    second = [
        (second, event)
        for second, event in worker_events(1, uuid="GPU-1")
        if not (isinstance(event, WindowOpened | WindowClosed) and event.kind == "measurement")
    ]
    derived = derive(
        (segment("supervisor"), supervisor_events(2)),
        (segment("worker", index=0), worker_events()),
        (segment("sampler", index=0), sampler_events()),
        (segment("worker", index=1), second),
        (segment("sampler", index=1), sampler_events(1, uuid="GPU-1")),
    )
    assert reasons(derived) == ["10 requests of process 1 lie outside of its measurement windows"]


@pytest.mark.parametrize(("began_s", "older"), [(0.55, False), (0.56, True)])
def test_samples_are_taken_after_their_sampler_began(began_s: float, older: bool) -> None:
    """The first of them, at 0.55 s, just then."""
    derived = derive(
        (segment("supervisor"), supervisor_events()),
        (segment("worker", index=0), worker_events()),
        (segment("sampler", index=0, monotonic_ns=at(began_s)), sampler_events()),
    )
    told = ["samples of GPU-0 were taken before their sampler began"] if older else []
    assert reasons(derived) == ["1 events are older than the segment that they stand in", *told]


@pytest.mark.parametrize(
    ("asked", "said"), [(5, "found int, expected a table"), ({"max_clock_error": "odd"}, "max_clock_error")]
)
def test_thresholds_that_cannot_be_read_stand_against_a_result(asked: object, said: str) -> None:
    """It is judged by the defaults, which nobody asked for."""

    def change(second: float, event: Event) -> Event:
        if not isinstance(event, ExperimentStarted):
            return event
        return msgspec.structs.replace(event, plan={**event.plan, "validity": asked})

    result = usual(change=change).result
    assert result is not None
    (reason,) = result.invalid_reasons
    assert reason.code == "thresholds_unreadable"
    assert (
        reason.text.startswith("the plan's thresholds cannot be read, so the defaults stand: ")
        and said in reason.text
    )


def test_an_experiment_starts_once() -> None:
    """A second start is a reason against its result."""
    started, *rest = supervisor_events()
    twice = usual(supervisor=[started, started, *rest])
    assert "starts of the experiment: found 2, expected 1" in reasons(twice)
