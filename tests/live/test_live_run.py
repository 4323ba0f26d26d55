"""A run as its log shows it while it grows: stages, figures, and what is missing to be valid."""

from pathlib import Path

import pytest

from llem.live.process import LiveProcess
from llem.live.run import LiveRun, RunFollower
from llem.plan import Plan, ServerPlan, WindowsPlan
from llem.projections import rebuild, results_for
from llem.projections.database import open_readonly
from llem.store import Store
from llem_events.events import ProcessFailed, RequestsCompleted, WindowClosed, WindowOpened, WorkReported
from tests.live.growing import Growing
from tests.world import EXPERIMENT, at, experiment, model, sampler_events, worker_events


@pytest.fixture
def place(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store").create()


def seen(store: Store, experiment_id: str = EXPERIMENT) -> LiveRun:
    """A run as one look at its log shows it."""
    follower = RunFollower(store, experiment_id)
    follower.read()
    follower.close()
    return follower.run


def test_what_is_shown_at_the_end_is_the_result(place: Store) -> None:
    """Energy, energy above idle, tokens and rates of a finished run are those of its result."""
    experiment(place, processes=2)
    rebuild(place)
    with open_readonly(place) as connection:
        result = results_for(connection, EXPERIMENT)
    figures = seen(place).figures()
    assert figures is not None
    assert figures.energy_j == result.total_energy_j == 8_160
    assert figures.above_idle_j == result.energy_breakdown.adjusted_j
    assert figures.output_tokens == result.total_output_tokens
    assert figures.output_tokens_per_second == pytest.approx(result.output_tokens_per_second)
    assert figures.energy_per_output_token_j == pytest.approx(8_160 / 80)
    assert (figures.requests, figures.failed_requests) == (20, 0)
    assert figures.ttft_p50_ms == pytest.approx(100)


def test_without_a_counter_power_is_integrated(place: Store) -> None:
    """4,000 J of a ramp, to a tenth of a per cent: the first and last sample are halves of a step off the window's edges."""
    worker = worker_events(counter_j=None)
    experiment(place, worker=worker, sampler=sampler_events(source="integrated"))
    figures = seen(place).figures()
    assert figures is not None and figures.energy_j == pytest.approx(4_000, rel=1e-3)
    assert figures.energy_source == "integrated"


def test_stages_as_the_log_grows(place: Store) -> None:
    """Each look takes what is new and tells the stage, the tokens so far and what is missing; a killed run is told as one."""
    growing = Growing(place, worker=worker_events(), sampler=sampler_events())
    follower = RunFollower(place, EXPERIMENT)
    stages = {}
    for second in (0.1, 0.6, 2.0, 4.5, 5.5, 7.0, 9.0, 15.0, 30.5):
        growing.until(second)
        follower._look_again_at = 0.0
        assert follower.read()
        stages[second] = follower.run.stage()
    assert list(stages.values()) == [
        *("starting", "reading prompts", "baseline before", "loading", "cooling down", "warming up"),
        *("about to measure", "measuring", "ending"),
    ]
    assert not follower.read()
    growing.die()
    follower._look_again_at = 0.0
    assert follower.read() and follower.run.stage() == "killed"
    assert "not every process ran to its end" in [
        reason.text for reason in follower.run.reasons(follower.run.figures())
    ]
    follower.close()


def test_the_idle_power_of_a_server_is_a_stage_of_its_own() -> None:
    """Its weights are loaded then, and nothing cools down yet."""
    process, plan = LiveProcess(), Plan(server=ServerPlan(kind="simulated"))
    process.take(model(), 1)
    process.take(WindowOpened(kind="baseline", window_index=1), 2)
    assert process.stage(plan) == "baseline server idle"
    process.take(WindowClosed(kind="baseline", window_index=1), 3)
    assert process.stage(plan) == "cooling down"


def test_in_the_middle_of_a_measurement(place: Store) -> None:
    """After 5.45 s of a ramp from 100 W: 693.5 J, 3 requests, and the power of each second."""
    sampler = sampler_events(counter_j=lambda second: 1_000 + (100 * (second - 10) + 5 * (second - 10) ** 2))
    growing = Growing(place, worker=worker_events(), sampler=sampler)
    growing.until(15.7)
    run = seen(place)
    run.is_written = True
    figures = run.figures()
    (device,) = run.devices
    assert figures is not None and device.now is not None
    assert figures.energy_j == pytest.approx(693.5, rel=1e-3)
    assert figures.requests == 3
    assert device.now.power_w == pytest.approx(154.5)
    powers = [power for power in device.history_w() if power is not None]
    assert powers[0] == 50 and powers[-1] == pytest.approx(152, abs=1)
    growing.die()


def test_a_sampler_that_is_read_first(place: Store) -> None:
    """Samples of a measurement that is not written yet count as soon as it is."""
    growing = Growing(
        place, worker=worker_events(counter_j=None), sampler=sampler_events(source="integrated")
    )
    follower = RunFollower(place, EXPERIMENT)
    growing.until(9.0)
    follower.read()
    (_, worker), (writer, sampler) = growing._waiting[1:]
    for second, event in sampler[:10]:
        writer.append(event, at_ns=at(second))
    writer.flush()
    follower.read()
    assert follower.run.figures() is None
    growing.until(9.5)
    growing._waiting[1][0].append(worker[0][1], at_ns=at(worker[0][0]))
    growing._waiting[1][0].flush()
    follower.read()
    figures = follower.run.figures()
    assert figures is not None and figures.energy_j is not None and figures.energy_j > 500
    growing.die()
    follower.close()


def test_a_failed_process_and_a_plan_of_another_llem(place: Store) -> None:
    """What a process said when it failed is told; keys of the plan that this llem does not know keep nothing from being shown."""
    failed = ProcessFailed(
        process_index=0, error_type="EngineError", message="out of memory", stage="loading"
    )
    experiment(
        place, worker=[*worker_events()[:4], (5.0, failed)], plan=Plan(windows=WindowsPlan(baseline_s=3.0))
    )
    run = seen(place)
    assert run.failures() == ["process 0 failed while loading: out of memory"]
    assert run.figures() is None


def test_what_a_wrapped_program_tells(place: Store) -> None:
    """Tokens that it has reported so far, at the power of the measurement so far; what it never named is not known."""
    told = [(second, WorkReported(tokens=round(100 * (second - 10)))) for second in (12.0, 14.0)]
    worker = [each for each in worker_events() if not isinstance(each[1], RequestsCompleted)]
    experiment(place, worker=sorted([*worker, *told], key=lambda dated: dated[0]))
    reported = seen(place).reported()
    assert reported is not None
    assert (reported.tokens, reported.requests) == (400, None)
    assert reported.tokens_per_second == pytest.approx(400 / 20)
    assert reported.energy_per_token_j == pytest.approx(4_080 / 400)
