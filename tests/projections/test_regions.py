"""Regions of a wrapped program become windows, from the samples that were there anyway."""

import pytest

from llem import open_store
from llem.projections import catch_up
from llem.store import Store
from llem_events.events import (
    Event,
    ProcessCompleted,
    ProcessStarted,
    Region,
    RegionsReported,
    WindowClosed,
    WorkReported,
)
from tests.projections.tables import one, result, rows
from tests.world import Dated, at, device, experiment, sampler_events, with_package, worker_events

pytestmark = pytest.mark.usefixtures("tables")


def region(index: int, name: str, began_s: float, ended_s: float | None, **fields: int | None) -> Region:
    """A region of the measurement, which lasts from second 10 to 30."""
    ended_ns = None if ended_s is None else at(ended_s)
    return Region(index=index, name=name, process="7.5", began_ns=at(began_s), ended_ns=ended_ns, **fields)


def program(*events: Event) -> list[Dated]:
    """What the worker of a wrapped program writes; events of its regions in second 29."""
    windows = [dated for dated in worker_events(requests=[]) if dated[1].TYPE.startswith("window")]
    started = ProcessStarted(process_index=0, devices=[device()], engine="command")
    *before, closed = windows
    said = [(29.0, event) for event in events]
    return [(0.5, started), *before, *said, closed, (31.0, ProcessCompleted(process_index=0, exit_status=0))]


def test_energy_of_regions(log: Store) -> None:
    """Each has the energy of its span by the trapezoids of the samples; nested ones have theirs as well, short ones a reason."""
    regions = [
        region(1, "step", 12.0, 14.0, parent_index=0, tokens=50),
        region(2, "step", 14.0, 16.0, parent_index=0, tokens=150),
        region(3, "blink", 16.0, 16.01),
        region(0, "epoch", 12.0, 20.0, tokens=200, requests=4),
    ]
    experiment(
        log,
        worker=program(RegionsReported(regions=regions)),
        sampler=sampler_events(power_w=lambda second: 10 * second),
    )
    catch_up(log)
    windows = rows(log, "FROM windows WHERE kind = 'region' ORDER BY window_index")
    # the power is 10 W times the second, so the energy of a span is 5 J times the difference of squares
    energies = [5.0 * (20**2 - 12**2), 5.0 * (14**2 - 12**2), 5.0 * (16**2 - 14**2), None]
    assert [row["energy_j"] for row in windows] == [energy and pytest.approx(energy) for energy in energies]
    assert {row["energy_source"] for row in windows} == {"integrated", None}
    assert windows[3]["reason"] == "it lasted 10 ms, less than the 500 ms that can be resolved"
    assert [row["samples"] for row in windows] == [80, 20, 20, 0]
    step = one(log, "FROM regions WHERE name = 'step'")
    assert (step["regions"], step["measured"], step["total_sec"], step["tokens"]) == (2, 2, 4.0, 200)
    assert step["energy_per_token_j"] == pytest.approx(560 / 200)
    blink = one(log, "FROM regions WHERE name = 'blink'")
    assert (blink["measured"], blink["energy_j"], blink["measured_energy_j"]) == (0, None, None)
    assert rows(log, "FROM warnings WHERE code = 'not_conserved'") == []


def test_a_late_sample_takes_little_away(log: Store) -> None:
    """A gap of a twentieth of a region is bridged; in a shorter one samples are missing."""
    late = [
        (second, event)
        for second, event in sampler_events(power_w=lambda _: 300.0, hz=100.0)
        if not 15.0 < second < 16.0
    ]
    regions = [region(0, "long", 10.0, 34.0), region(1, "short", 13.0, 17.0), region(2, "beside", 17.0, 20.0)]
    experiment(log, worker=program(RegionsReported(regions=regions)), sampler=late)
    catch_up(log)
    windows = rows(log, "FROM windows WHERE kind = 'region' ORDER BY window_index")
    energies = [row["energy_j"] for row in windows]
    assert energies[0] == pytest.approx(300 * 24) and energies[2] == pytest.approx(900)
    assert energies[1] is None and windows[1]["reason"] == "samples are missing in it"


def test_what_is_said_last_of_a_region_holds(log: Store) -> None:
    """One that lasted for more than a second is told twice; one that never ended lasts as long as the program, and says so."""
    first = RegionsReported(regions=[region(0, "epoch", 12.0, None), region(1, "killed", 15.0, None)])
    then = RegionsReported(regions=[region(0, "epoch", 12.0, 20.0)])
    experiment(log, worker=program(first, then))
    catch_up(log)
    windows = rows(log, "FROM windows WHERE kind = 'region' ORDER BY window_index")
    assert [(row["name"], row["closed"], row["duration_sec"]) for row in windows] == [
        ("epoch", True, 8.0),
        ("killed", False, 15.0),
    ]


def test_reported_tokens_are_those_of_the_result(log: Store) -> None:
    """The last report holds all; what was never named is not measured, and chosen windows have none."""
    work = [WorkReported(tokens=100), WorkReported(tokens=400, output_tokens=80, requests=4)]
    experiment(log, worker=program(*work))
    catch_up(log)
    found = result(log)
    assert (found["total_tokens"], found["input_tokens"], found["output_tokens"]) == (400, None, 80)
    assert (found["requests"], found["failed_requests"]) == (4, None)
    assert found["avg_energy_per_token_j"] == pytest.approx(found["total_energy_j"] / 400)
    assert found["energy_per_output_token_j"] == pytest.approx(found["total_energy_j"] / 80)
    assert found["tokens_per_second"] == pytest.approx(20.0)
    assert found["ttft_mean_ms"] is None and found["total_flops"] is None


@pytest.mark.slow
def test_programs_are_compared_by_the_tokens_that_they_report(log: Store) -> None:
    """Energy per token where they do not tell input from output, as nobody asks for it where they do."""
    for experiment_id, tokens in (("run-1", 400), ("run-2", 800)):
        experiment(log, experiment_id=experiment_id, worker=program(WorkReported(tokens=tokens)))
    store = open_store(log.path)
    ratios = {row["figure"]: row["ratio"] for row in store.compare("run-1", "run-2").dicts()}
    assert ratios["avg_energy_per_token_j"] == pytest.approx(0.5)
    assert ratios["tokens_per_second"] == pytest.approx(2.0) and "output_tokens_per_second" not in ratios
    experiment(log, experiment_id="run-3", worker=program(WorkReported(tokens=400, output_tokens=400)))
    figures = [row["figure"] for row in store.compare("run-3", "run-1").dicts()]
    assert "energy_per_output_token_j" in figures and "avg_energy_per_token_j" not in figures


def test_the_view_of_regions_counts_the_devices_of_the_total(log: Store) -> None:
    """A package that a second meter reads beside the GPU has windows of its own, and no part in the sum."""
    worker = [dated for dated in program() if not isinstance(dated[1], WindowClosed | ProcessCompleted)]
    ends = [dated for dated in program() if isinstance(dated[1], WindowClosed | ProcessCompleted)]
    told = RegionsReported(regions=[region(0, "epoch", 12.0, 20.0)])
    worker, sampler = with_package([*worker, (29.0, told), *ends], sampler_events())
    experiment(log, worker=worker, sampler=sampler)
    catch_up(log)
    windows = rows(log, "FROM windows WHERE kind = 'region' ORDER BY device_uuid")
    assert len(windows) == 2 and windows[0]["device_uuid"] == "GPU-0"
    assert one(log, "FROM regions")["energy_j"] == pytest.approx(windows[0]["energy_j"])


def test_regions_of_a_log_that_lies(log: Store) -> None:
    """One that ends before it begins has no length; moments and counts beyond what can be set the experiment aside."""
    experiment(log, worker=program(RegionsReported(regions=[region(0, "back", 14.0, 12.0)])))
    catch_up(log)
    assert one(log, "FROM windows WHERE kind = 'region'")["duration_sec"] == 0.0
    experiment(log, experiment_id="run-2", worker=program(WorkReported(tokens=2**60)))
    catch_up(log)
    damaged = one(log, "FROM experiments WHERE experiment_id = 'run-2'")
    assert damaged["status"] == "damaged" and "tokens that were reported" in damaged["problem"]


def test_regions_without_a_sensor(log: Store) -> None:
    """They have their times and a reason."""
    told = RegionsReported(regions=[region(0, "epoch", 12.0, 20.0)])
    experiment(log, worker=program(told), sampler=sampler_events(power_w=None))
    catch_up(log)
    window = one(log, "FROM windows WHERE kind = 'region'")
    assert (window["duration_sec"], window["energy_j"]) == (8.0, None)
    assert window["reason"] == "neither an energy counter nor power was read"
