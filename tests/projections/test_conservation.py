"""What is conserved between the parts of a log: every breach is a reason against the result, and names what was found."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from llem.plan import Plan, ValidityPlan, WindowsPlan
from llem.projections import catch_up
from llem.store import Store
from llem_events.events import (
    ExperimentCompleted,
    ExperimentStarted,
    ProcessCompleted,
    ProcessStarted,
    Request,
    RequestsCompleted,
    WindowClosed,
    WindowOpened,
)
from llem_events.recovery import recover
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
    worker_events,
    write,
)

pytestmark = pytest.mark.usefixtures("tables")

Change = Callable[[list[Dated]], list[Dated]]


def reasons(log: Store, experiment_id: str = EXPERIMENT) -> list[tuple[str, str]]:
    """Code and text of everything that stands against the result."""
    whole = msgspec.json.decode(result(log, experiment_id)["result"])
    return [(reason["code"], reason["text"]) for reason in whole["invalid_reasons"]]


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
    "-70 tokens": (
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
}


def test_every_breach_is_a_reason_against_its_result(log: Store) -> None:
    """Its code is not_conserved, and its text says which law; all in one store, so that they also do not touch each other."""
    names = {f"odd-{number:02}": name for number, name in enumerate(BREACHES)}
    for experiment_id, name in names.items():
        measured(log, BREACHES[name][0], experiment_id=experiment_id)
    experiment(log)
    assert catch_up(log).refused == []
    for experiment_id, name in names.items():
        assert result(log, experiment_id)["valid"] is False, name
        against = [text for code, text in reasons(log, experiment_id) if code == "not_conserved"]
        assert any(BREACHES[name][1] in text for text in against), (name, against)
    assert (result(log)["valid"], reasons(log)) == (True, [])


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (sampler_events()[:5] + sampler_events()[6:], "335 in the log, 345 counted"),
        (
            sampler_events(temperature_c=lambda second: 999 if second > 20 else 60),
            "hold what no device can read",
        ),
        (sampler_events() + sampler_events()[5:6], "were taken at the moment of another"),
    ],
    ids=["a second is missing", "999 C", "a second is there twice"],
)
def test_samples_are_conserved_too(log: Store, samples: list[Dated], text: str) -> None:
    """Against what the sampler counted, what a device can read, and the clock."""
    measured(log, samples=samples)
    catch_up(log)
    assert text in " ".join(text for _, text in reasons(log))


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
