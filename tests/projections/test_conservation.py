"""What is conserved between the parts of a log: every breach is a reason against the result, and names what was found."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from llem.plan import Plan, ValidityPlan, WindowsPlan
from llem.projections import catch_up, database
from llem.store import Store
from llem_events.events import (
    Device,
    Event,
    ExperimentCompleted,
    ExperimentStarted,
    LogFailed,
    MeteredDevice,
    MeterStarted,
    ModelLoaded,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    Request,
    RequestsCompleted,
    SamplesDropped,
    WarningRaised,
    WindowClosed,
    WindowOpened,
)
from llem_events.recovery import recover
from tests.projections import in_memory
from tests.projections.tables import one, result, rows
from tests.projections.test_catch_up import damage, segment
from tests.world import (
    EXPERIMENT,
    Dated,
    at,
    device,
    edges,
    experiment,
    request,
    sampler_events,
    supervisor,
    supervisor_events,
    worker_events,
    write,
)

pytestmark = pytest.mark.usefixtures("tables")

Change = Callable[[list[Dated]], list[Dated]]
MEASUREMENT = {"kind": "measurement"}
GPU = MeteredDevice(device=device(), energy_source="counter")


def reasons(log: Store, experiment_id: str = EXPERIMENT) -> list[tuple[str, str]]:
    """Code and text of everything that stands against the result."""
    return reasons_of(result(log, experiment_id))


def reasons_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same of a row of results."""
    whole = msgspec.json.decode(row["result"])
    return [(reason["code"], reason["text"]) for reason in whole["invalid_reasons"]]


def id_of(name: str) -> str:
    """An experiment's id has no space and no capitals."""
    return name.replace(" ", "-").lower()


def measured(
    log: Store,
    change: Change = list,
    *,
    plan: Plan | None = None,
    samples: Sequence[Dated] | None = None,
    experiment_id: str = EXPERIMENT,
) -> None:
    """An experiment whose worker's events are changed."""
    experiment(log, experiment_id=experiment_id, plan=plan, worker=change(worker_events()), sampler=samples)


def requests_are(*odd: Request) -> Change:
    """Some requests in the place of the first ones."""

    def change(events: list[Dated]) -> list[Dated]:
        usual = [request(number, 10.0 + 2 * number) for number in range(10)]
        return worker_events(requests=[*odd, *usual[len(odd) :]])

    return change


def marker_counts(**counts: int) -> Change:
    """The completion marker says something else."""

    def change(events: list[Dated]) -> list[Dated]:
        return [
            (
                second,
                msgspec.structs.replace(event, **counts) if isinstance(event, ProcessCompleted) else event,
            )
            for second, event in events
        ]

    return change


def without(event_type: type, /, **fields: Any) -> Change:
    """One event is missing."""

    def change(events: list[Dated]) -> list[Dated]:
        return [
            (second, event)
            for second, event in events
            if not (isinstance(event, event_type) and all(getattr(event, n) == v for n, v in fields.items()))
        ]

    return change


def twice(event_type: type, /, **fields: Any) -> Change:
    """One event is there twice."""

    def change(events: list[Dated]) -> list[Dated]:
        kept = without(event_type, **fields)(events)
        return sorted(
            [*events, *(dated for dated in events if dated not in kept)], key=lambda dated: dated[0]
        )

    return change


def event_is(
    event_type: type, /, *, moved_s: float = 0.0, only: dict[str, Any] | None = None, **fields: Any
) -> Change:
    """Events of a type are told at another time, or say something else; `only` says of which."""

    def is_meant(event: Any) -> bool:
        return isinstance(event, event_type) and all(getattr(event, n) == v for n, v in (only or {}).items())

    def change(events: list[Dated]) -> list[Dated]:
        return [
            (second + moved_s, msgspec.structs.replace(event, **fields))
            if is_meant(event)
            else (second, event)
            for second, event in events
        ]

    return change


def also(second: float, event: Event) -> Change:
    """One event more."""
    return lambda events: sorted([*events, (second, event)], key=lambda dated: dated[0])


def edges_read(event_type: type, second: float, energy_mj: int) -> Change:
    """The counter was not read when the measurement began or ended."""
    return event_is(event_type, only=MEASUREMENT, edges=edges("GPU-0", energy_mj, second))


def idle_w(power_w: float) -> Change:
    """The worker measured another idle power than the 50 W that were sampled."""
    return lambda _: worker_events(baseline_w=power_w)


def batch_of(number: int) -> list[Request]:
    """The requests of a batch of the usual measurement."""
    return [request(number, 10.0 + 2 * number)]


BREACHES: dict[str, tuple[Change, str]] = {
    "a batch is missing": (
        without(RequestsCompleted, requests=batch_of(3)),
        "requests of process 0: 9 in the log, 10",
    ),
    "a batch is there twice": (
        twice(RequestsCompleted, requests=batch_of(3)),
        "1 request ids occur more than once",
    ),
    "the marker counts more tokens": (
        marker_counts(output_tokens=42),
        "output tokens of process 0: 40 in the log, 42",
    ),
    "the marker counts fewer batches": (marker_counts(batches=9), "batches of process 0: 10 in the log, 9"),
    "two markers": (twice(ProcessCompleted), "completion markers of process 0: found 2"),
    "400 tokens with 4 times": (
        requests_are(request(0, 10.0, output_tokens=400)),
        "another number of token times",
    ),
    "tokens below zero": (
        requests_are(request(0, 10.0, output_tokens=-70, token_times_ns=[])),
        "counts below what can be",
    ),
    "a first token before the arrival": (
        requests_are(request(0, 10.0, first_token_ns=at(-8.0))),
        "times out of order",
    ),
    "tokens in another order": (
        requests_are(request(0, 10.0, token_times_ns=[at(10.1), at(10.2), at(10.15), at(10.25)])),
        "times out of order",
    ),
    "an end before the start": (requests_are(request(0, 10.0, end_ns=at(9.0))), "times out of order"),
    "a request after the window": (requests_are(request(0, 31.0)), "lie outside of its measurement windows"),
    "a batch of another size": (
        requests_are(request(0, 10.0, batch_size=7)),
        "another size than their requests say",
    ),
    "a window that never ends": (
        without(WindowClosed, kind="measurement"),
        "was not recorded and is guessed",
    ),
    "a window that ends twice": (twice(WindowClosed, kind="measurement"), "ends of windows of process 0"),
    "a window opened twice": (twice(WindowOpened, kind="measurement"), "windows of process 0 of one name"),
    "no token at all": (
        lambda events: worker_events(
            requests=[request(n, 10.0 + 2 * n, tokens=0, finish_reason="length") for n in range(10)]
        ),
        "no output token of process 0",
    ),
    "a prompt of -1 tokens": (requests_are(request(0, 10.0, input_tokens=-1)), "counts below what can be"),
    "a batch of none": (requests_are(request(0, 10.0, batch_size=0)), "counts below what can be"),
    "batch -1": (requests_are(request(0, 10.0, batch_index=-1)), "counts below what can be"),
    "a good end with an error": (requests_are(request(0, 10.0, error="x")), "ended well and name an error"),
    "a start before the arrival": (requests_are(request(0, 10.0, start_ns=at(9.99))), "times out of order"),
    "a first token after the end": (
        requests_are(request(0, 10.0, tokens=0, output_tokens=4, times_reason="x", first_token_ns=at(11.0))),
        "times out of order",
    ),
    "a last token after the end": (requests_are(request(0, 10.0, end_ns=at(10.2))), "times out of order"),
    "another first token": (requests_are(request(0, 10.0, first_token_ns=at(10.05))), "times out of order"),
    "a request before the window": (requests_are(request(0, 9.9)), "lie outside of its measurement windows"),
    "a counter read late": (edges_read(WindowOpened, 10.02, 1_000_000), "were read 0.02 s from their window"),
    "a counter read early": (edges_read(WindowOpened, 9.98, 1_000_000), "were read 0.02 s from their window"),
    "a counter read after it": (
        edges_read(WindowClosed, 30.02, 5_080_000),
        "were read 0.02 s from their window",
    ),
    "a counter read before its end": (
        edges_read(WindowClosed, 29.98, 5_080_000),
        "were read 0.02 s from their window",
    ),
    "two windows at once": (
        event_is(WindowClosed, only={"kind": "warmup"}, moved_s=3.0),
        "two windows of process 0 overlap",
    ),
    "an idle power of 29 W": (idle_w(29.0), "is 29 W, its samples say 50 to 50 W"),
    "an idle power of 81 W": (idle_w(81.0), "is 81 W, its samples say 50 to 50 W"),
    "two starts": (twice(ProcessStarted), "starts of process 0: found 2"),
    "no start": (without(ProcessStarted), "starts of process 0: found 0"),
    "no model": (without(ModelLoaded), "models loaded by process 0: found 0, expected 1"),
    "two models": (twice(ModelLoaded), "models loaded by process 0: found 2, expected 1"),
    "events of another process": (
        event_is(ProcessCompleted, process_index=3),
        "events of process 0 name process 3",
    ),
    "an end and a failure": (
        also(31.5, ProcessFailed(process_index=0, error_type="E", message="m", stage="run")),
        "process 0 both failed and completed",
    ),
    "events that the log lost": (
        also(31.5, LogFailed(error="no space", events_lost=3)),
        "3 events were lost when the log failed: no space",
    ),
    "an event before its segment": (also(-1.0, WarningRaised(code="x", text="y")), "1 events are older than"),
}
PERMITTED: dict[str, Change] = {
    "a counter read 10 ms late": edges_read(WindowOpened, 10.01, 1_000_000),
    "a counter read 10 ms before the end": edges_read(WindowClosed, 29.99, 5_080_000),
    "windows that touch": event_is(WindowClosed, only={"kind": "warmup"}, moved_s=2.0),
    "an idle power of 30 W": idle_w(30.0),
    "an idle power of 80 W": idle_w(80.0),
    "a prompt of no token": requests_are(request(0, 10.0, input_tokens=0)),
    "a request up to the end of the window": requests_are(request(0, 29.6, end_ns=at(30.0))),
    "a request that starts and ends with its tokens": requests_are(
        request(0, 10.0, start_ns=at(10.1), end_ns=at(10.25))
    ),
}
SAMPLED: dict[str, tuple[list[Dated], str]] = {
    "a second is missing": (sampler_events()[:5] + sampler_events()[6:], "335 in the log, 345 counted"),
    "999 C": (
        sampler_events(temperature_c=lambda second: 999 if second > 20 else 60),
        "hold what no device can read",
    ),
    "a second is there twice": (
        sampler_events() + sampler_events()[5:6],
        "were taken at the moment of another",
    ),
    "a device that nobody named": (
        sampler_events() + sampler_events(uuid="GPU-9")[1:-1],
        "samples are of GPU-9, which no process named",
    ),
    "two starts of the sampler": (
        twice(MeterStarted)(sampler_events()),
        "starts of the sampler of process 0",
    ),
    "a device named twice": (
        event_is(MeterStarted, devices=[GPU, GPU])(sampler_events()),
        "a device of process 0 is named twice",
    ),
    "a tick below zero": (
        event_is(MeterStarted, devices=[msgspec.structs.replace(GPU, counter_tick_ns=-1)])(sampler_events()),
        "a device of process 0 has a tick",
    ),
    "more dropped than counted": (
        also(20.0, SamplesDropped(count=2, reason="x"))(sampler_events()),
        "2 samples of process 0 were dropped, 0 counted",
    ),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_of_a_worker_is_a_reason(name: str) -> None:
    """It says which law."""
    change, text = BREACHES[name]
    assert any(
        text in reason for reason in in_memory.reasons(in_memory.usual(worker=change(worker_events())))
    )


@pytest.mark.parametrize("name", SAMPLED)
def test_a_breach_of_samples_is_a_reason(name: str) -> None:
    """It says which law."""
    sampler, text = SAMPLED[name]
    assert any(text in reason for reason in in_memory.reasons(in_memory.usual(sampler=sampler)))


@pytest.mark.parametrize("name", ["counter_tick_ns", "power_window_ns", "memory_bytes", "power_limit_mw"])
def test_no_number_of_a_device_is_below_zero(name: str) -> None:
    """Zero is none."""
    for number, told in ((0, False), (-1, True)):
        of_device = {name: number} if name in Device.__struct_fields__ else {}
        of_sensor = {} if of_device else {name: number}
        named = device(**of_device)
        metered = MeteredDevice(device=named, energy_source="counter", **of_sensor)
        derived = in_memory.usual(
            worker=event_is(ProcessStarted, devices=[named])(worker_events()),
            sampler=event_is(MeterStarted, devices=[metered])(sampler_events()),
        )
        assert any("below zero" in reason for reason in in_memory.reasons(derived)) is told


@pytest.mark.parametrize("name", PERMITTED)
def test_what_is_just_no_breach_is_no_reason(name: str) -> None:
    """At the limit of a law."""
    assert in_memory.reasons(in_memory.usual(worker=PERMITTED[name](worker_events()))) == []


@pytest.mark.parametrize(
    ("role", "missing", "told"),
    [
        ("worker", [ModelLoaded], True),
        ("worker", [ModelLoaded, ProcessCompleted], False),
        ("import", [ModelLoaded], False),
    ],
)
def test_who_measured_to_the_end_has_loaded_a_model(
    role: str, missing: list[type[Event]], told: bool
) -> None:
    """Not who was killed before, nor what another program recorded."""
    worker = [dated for dated in worker_events() if not isinstance(dated[1], tuple(missing))]
    derived = in_memory.derive(
        (in_memory.segment("supervisor"), supervisor_events()), (in_memory.segment(role, index=0), worker)
    )
    assert any("models loaded" in reason for reason in in_memory.reasons(derived)) is told


@pytest.mark.slow
def test_every_breach_is_a_reason_against_its_result(log: Store) -> None:
    """Its code is not_conserved, and its text says which law; all in one store, so that they also do not touch each other."""
    for name, (change, _) in BREACHES.items():
        measured(log, change, experiment_id=id_of(name))
    for name, (samples, _) in SAMPLED.items():
        measured(log, samples=samples, experiment_id=id_of(name))
    for name, change in PERMITTED.items():
        measured(log, change, experiment_id=id_of(name))
    assert catch_up(log).refused == []
    stored = {row["experiment_id"]: row for row in rows(log, "FROM experiment_results")}
    for name, (_, text) in (BREACHES | SAMPLED).items():
        row = stored[id_of(name)]
        against = [told for code, told in reasons_of(row) if code == "not_conserved"]
        assert any(text in told for told in against), (name, against)
        assert row["valid"] is False, name
    for name in PERMITTED:
        assert (stored[id_of(name)]["valid"], reasons_of(stored[id_of(name)])) == (True, []), name


def test_an_event_that_does_not_fit_its_type_is_a_reason(log: Store) -> None:
    """Nobody knows what it would have said: here a later formula finds one in the tables."""
    measured(log, also(16.0, WarningRaised(code="x", text="y")))
    catch_up(log)
    with database.connect(log.projections_path, read_only=False) as tables:
        tables.execute("""UPDATE events SET body = '{"code": 7}' WHERE type = 'warning_raised'""")
        tables.execute("UPDATE projection SET derived_digest = 'older'")
    catch_up(log)
    assert ("not_conserved", "1 events do not fit their type and were left out") in reasons(log)


@pytest.mark.slow
def test_salvage_and_recovery_are_reasons(log: Store) -> None:
    """Plain commands afterwards still say so: in the warnings, and against the result."""
    experiment(log)
    path = segment(log, "sampler")
    damage(path, at=0.5)
    catch_up(log, salvage=True)
    for _ in range(2):
        assert "salvaged" in {code for code, _ in reasons(log)}
        assert any("damaged bytes" in row["text"] for row in rows(log, "FROM warnings"))
        assert one(log, "FROM experiments")["salvaged"] is True
        if not path.with_name("sampler-0-recovered.events.zst").exists():
            recover(path, path.with_name("sampler-0-recovered.events.zst"), limit_bytes=None)
        catch_up(log)


@pytest.mark.slow
def test_a_bound_that_is_too_wide_is_a_reason(log: Store) -> None:
    """By the plan's threshold, 10 % where it names none: power in steps of 100 and 300 W, without a counter."""
    uncounted = {"counter_j": None}
    stepped = sampler_events(
        power_w=lambda second: 300.0 if int(second * 2) % 2 else 100.0, source="integrated", hz=2
    )
    for plan, is_reason in ((None, True), (Plan(validity=ValidityPlan(max_uncertainty=0.9)), False)):
        other = Store(log.path / f"store-{is_reason}").create()
        measured(other, lambda events: worker_events(**uncounted), plan=plan, samples=stepped)
        catch_up(other)
        codes = {code for code, _ in reasons(other)}
        assert ("uncertainty_too_large" in codes) is is_reason, codes


def test_thresholds_that_cannot_be_read_are_told(log: Store) -> None:
    """The defaults stand, which is a warning and a reason."""
    plan = msgspec.to_builtins(Plan(windows=WindowsPlan(baseline_s=3.0)))
    plan["validity"]["min_samples"] = "many"
    experiment(log)
    segment(log, "supervisor").unlink()
    started = ExperimentStarted(
        experiment_id="run-1", plan=plan, measurement_config_hash="h", expected_processes=1, llem_version="0"
    )
    ended = ExperimentCompleted(processes_completed=1, processes_failed=0)
    write(log, [(0.0, started), (40.0, ended)], role="supervisor")
    catch_up(log)
    assert [code for code, _ in reasons(log)] == ["thresholds_unreadable"]
    assert any("min_samples" in row["text"] for row in rows(log, "FROM warnings"))


def test_hosts_whose_clocks_were_not_compared_are_a_reason(log: Store) -> None:
    """A second that one is ahead makes the window of both longer, and the throughput smaller."""
    supervisor(log, processes=2)
    for index, host in enumerate(("alpha", "beta")):
        header = {"host": host, "boot_id": host}
        write(log, worker_events(index, uuid=f"GPU-{index}", host=host), role="worker", index=index, **header)
        write(
            log, sampler_events(index, uuid=f"GPU-{index}", host=host), role="sampler", index=index, **header
        )
    catch_up(log)
    assert [code for code, _ in reasons(log)] == ["clocks_apart"]


def test_a_window_without_a_sample_has_no_energy(log: Store) -> None:
    """A counter that did not move while nobody looked says nothing: NULL with a reason, never 0 J."""
    still = {"counter_j": (1_000.0, 1_000.0)}
    measured(log, lambda events: worker_events(**still), samples=sampler_events(until_s=1.5))
    catch_up(log)
    row = one(log, "FROM windows WHERE kind = 'measurement'")
    assert (row["energy_j"], row["samples"]) == (None, 0)
    assert row["reason"] == "no sample was taken in the window"
    assert result(log)["total_energy_j"] is None


def test_a_wrapped_program_that_was_killed_has_figures_over_what_was_sampled(log: Store) -> None:
    """Its window was never closed and it reports no requests: the last sample is the last thing known of it."""
    supervisor(log)
    started = ProcessStarted(process_index=0, devices=[device()], engine="command")
    opened = WindowOpened(kind="measurement", edges=edges("GPU-0", 1_000_000, 10.0))
    write(log, [(0.5, started), (10.0, opened)], role="worker", index=0, seal=False)
    write(log, sampler_events(until_s=30.0)[:-1], role="sampler", index=0, seal=False)
    catch_up(log)
    found = result(log)
    assert found["duration_sec"] == pytest.approx(20.0, abs=0.2)
    assert found["total_energy_j"] == pytest.approx(4_000.0, rel=0.02)
    assert found["valid"] is False


def test_worker_sampler_and_windows_name_the_same_devices(log: Store) -> None:
    """Whose energy a window has, and what was sampled, is what the process ran on."""
    measured(log, samples=sampler_events(uuid="GPU-1"))
    catch_up(log)
    texts = {text for _, text in reasons(log)}
    assert "process 0 and its sampler name other devices" in texts
    assert "edges of windows of process 0 name other devices" in texts
