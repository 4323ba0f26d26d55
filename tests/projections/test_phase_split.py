"""Engines and servers whose tokens cost what is known: both costs are estimated from their log, and lie in their intervals."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from llem.projections import catch_up
from llem.projections.derive import phase_split
from llem.projections.derive.columns import RequestColumns
from llem.results.phases import MIN_PERIODS
from llem.store import Store
from llem_events.events import MeterStarted, Request, RequestsCompleted, ServerStarted
from tests.projections.tables import result
from tests.world import (
    CLOSED_S,
    OPENED_S,
    Dated,
    at,
    experiment,
    request,
    sampler_events,
    supervisor,
    worker_events,
    write,
)

pytestmark = pytest.mark.usefixtures("tables")
IDLE_W, PROMPT_J, DECODE_J = 50.0, 0.05, 0.4


def asked(
    number: int, start_s: float, *, prompt: int, prefill_s: float, tokens: int, token_s: float, **fields: Any
) -> Request:
    """A request with the seconds of its two phases."""
    times = [at(start_s + prefill_s + place * token_s) for place in range(tokens)]
    return request(
        number,
        start_s,
        tokens=0,
        input_tokens=prompt,
        output_tokens=tokens,
        token_times_ns=times,
        first_token_ns=times[0],
        end_ns=times[-1],
        **fields,
    )


def energy_j(requests: Sequence[Request], second: float) -> float:
    """What all of them and the idle device have used until then."""
    now = float(at(second))
    used = IDLE_W * second
    for each in requests:
        first = each.token_times_ns[0]
        used += PROMPT_J * each.input_tokens * float(np.interp(now, [each.start_ns, first], [0.0, 1.0]))
        decoded = np.arange(each.output_tokens, dtype=np.float64)
        used += DECODE_J * float(np.interp(now, each.token_times_ns, decoded))
    return used


def measured(
    store: Store, requests: Sequence[Request], *, server: bool, counted: bool = True
) -> dict[str, Any]:
    """The result of a process with these requests, whose device used what they cost."""
    edges_j = (energy_j(requests, OPENED_S), energy_j(requests, CLOSED_S))
    batches = [(CLOSED_S - 0.1, RequestsCompleted(window="measurement", requests=list(requests)))]
    worker = worker_events(batches=batches, baseline_w=IDLE_W, counter_j=edges_j)
    if server:
        started = ServerStarted(kind="simulated", managed=True, url="http://127.0.0.1:1")
        worker.insert(1, (0.6, started))
    sampler = sampler_events(power_w=None, counter_j=lambda second: energy_j(requests, second))
    experiment(
        store,
        worker=worker,
        sampler=[(second, _ticking(event)) for second, event in sampler] if counted else sampler,
    )
    catch_up(store)
    return result(store)


def _ticking(event: Any) -> Any:
    if not isinstance(event, MeterStarted):
        return event
    devices = [msgspec.structs.replace(each, counter_tick_ns=10_000_000) for each in event.devices]
    return msgspec.structs.replace(event, devices=devices)


def batches() -> list[Request]:
    """One after the other, all alike: phases of 130 and 290 ms, which 10 samples a second do not resolve."""
    shape: dict[str, Any] = {"prompt": 800, "prefill_s": 0.13, "tokens": 30, "token_s": 0.01}
    return [asked(number, OPENED_S + 0.1 + 0.43 * number, **shape) for number in range(46)]


def served() -> list[Request]:
    """At random times and of random lengths, several in flight."""
    rng = np.random.default_rng(7)
    starts = np.sort(rng.uniform(OPENED_S, CLOSED_S - 2.5, 120))
    return [
        asked(
            number,
            float(start_s),
            prompt=int(rng.integers(50, 1_000)),
            prefill_s=float(rng.uniform(0.05, 0.2)),
            tokens=int(rng.integers(5, 60)),
            token_s=float(rng.uniform(0.015, 0.03)),
        )
        for number, start_s in enumerate(starts)
    ]


def check_costs(row: dict[str, Any]) -> None:
    """Both lie in their intervals, which are narrow enough to say something."""
    assert row["phase_fit_reason"] is None
    for name, truth_j in (("prompt", PROMPT_J), ("decoded", DECODE_J)):
        found_j = row[f"energy_per_{name}_token_estimate_j"]
        within_j = row[f"energy_per_{name}_token_within_j"]
        assert abs(found_j - truth_j) <= max(within_j, 1e-4 * truth_j)
        assert within_j < 0.2 * truth_j
    assert row["phase_fit_r2"] > 0.9


def test_phases_too_short_for_a_sensor_are_told_apart_over_a_run(log: Store) -> None:
    """Of an engine whose batches are all alike: the spans of time in which they are seen are not."""
    check_costs(measured(log, batches(), server=False))


@pytest.mark.slow
def test_requests_of_a_server_are_told_apart_while_they_run_together(log: Store) -> None:
    """And both phases and the idle power add up to nearly all of the energy."""
    row = measured(log, served(), server=True)
    check_costs(row)
    phases_j = row["prefill_energy_estimate_j"] + row["decode_energy_estimate_j"]
    assert phases_j + IDLE_W * row["duration_sec"] == pytest.approx(row["total_energy_j"], rel=0.01)


def test_prompts_in_a_cache_cost_nothing(log: Store) -> None:
    """A prompt token is one that was computed."""
    half = [
        msgspec.structs.replace(
            each, input_tokens=2 * each.input_tokens, cached_input_tokens=each.input_tokens
        )
        for each in batches()
    ]
    costs = batches()
    edges_j = (energy_j(costs, OPENED_S), energy_j(costs, CLOSED_S))
    worker = worker_events(
        batches=[(CLOSED_S - 0.1, RequestsCompleted(window="measurement", requests=half))], counter_j=edges_j
    )
    sampler = sampler_events(power_w=None, counter_j=lambda second: energy_j(costs, second))
    experiment(log, worker=worker, sampler=[(second, _ticking(event)) for second, event in sampler])
    catch_up(log)
    check_costs(result(log))


def test_what_cannot_be_estimated_says_why(log: Store) -> None:
    """No counter that ticks and no power; no idle power; tokens of which no time is known."""
    assert measured(log, batches(), server=False, counted=False)["phase_fit_reason"] == (
        "neither an energy counter nor power was read"
    )


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        (worker_events(baseline_w=None), "no idle power was measured"),
        (
            worker_events(requests=[request(0, 10.0, token_times_ns=[], times_reason="told at its end")]),
            "the times of tokens of 1 requests are not known",
        ),
    ],
)
def test_what_is_not_known_says_so(log: Store, worker: list[Dated], reason: str) -> None:
    """Nothing is estimated then."""
    supervisor(log)
    write(log, worker, role="worker", index=0)
    write(log, sampler_events(), role="sampler", index=0)
    catch_up(log)
    row = result(log)
    assert row["phase_fit_reason"] == reason
    assert row["prefill_energy_estimate_j"] is None and row["energy_per_decoded_token_estimate_j"] is None


def test_edges_are_put_to_the_next_sample() -> None:
    """Each once; those before the first sample and after the last stay, and so does the end."""
    sampled = SimpleNamespace(pieces=lambda _: [(np.arange(5.0), None, None, None)])
    moments = np.array([-0.5, 0.5, 0.7, 1.0, 2.2, 4.5, 9.0])
    assert phase_split._at_samples(sampled, moments).tolist() == [-0.5, 1.0, 3.0, 4.5, 9.0]  # type: ignore[arg-type]
    ends = phase_split._in_order(np.array([3.0, 1.0, 1.0, 2.0, 4.0]), np.array([0.0, 2.5, 3.0]))
    assert ends.tolist() == [1.0, 2.0, 3.0]
    assert moments[1] == 0.5


def test_all_devices_see_an_edge_as_well_as_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each was read, and there is any."""
    monkeypatch.setattr(phase_split, "resolution_sec", lambda trace: trace)
    found = [phase_split._resolution_sec(traces) for traces in ([0.1, 0.3, 0.2], [0.1, None], [None], [])]  # type: ignore[list-item]
    assert found == [0.3, None, None, None]


@pytest.mark.parametrize(
    ("served", "ttft_ms", "finest_sec", "duration_sec", "span_sec"),
    [
        (False, None, 0.1, 20.0, 0.1 * (MIN_PERIODS + 2)),
        (False, 9_000.0, 0.001, 2_000.0, 2.0),
        (True, None, 0.01, 20.0, 1.0),
        (True, 300.0, 0.01, 20.0, 1.0),
        (True, 700.0, 0.01, 20.0, 1.4),
        (True, 300.0, 0.1, 20.0, max(1.0, 0.1 * (MIN_PERIODS + 2))),
        (True, 300.0, 0.001, 2_000.0, 2.0),
    ],
)
def test_how_long_a_span_is(
    served: bool, ttft_ms: float | None, finest_sec: float, duration_sec: float, span_sec: float
) -> None:
    """As all devices resolve, a thousand at the most, and of a server as long as it takes to compute what came."""
    statistics = None if ttft_ms is None else SimpleNamespace(ttft_sent_median_ms=ttft_ms)
    process = SimpleNamespace(server=object() if served else None)
    work = SimpleNamespace(measured=SimpleNamespace(statistics=statistics))
    found = phase_split._span_sec(process, work, finest_sec, duration_sec)  # type: ignore[arg-type]
    assert found == pytest.approx(span_sec)


def test_amounts_are_divided_at_the_edges() -> None:
    """Evenly within a cell; [span, phase]."""
    cells, until = np.array([0.0, 1.0, 2.0, 4.0]), np.array([[0.0, 1.0, 3.0, 7.0], [0.0, 0.0, 8.0, 8.0]])
    found = phase_split._within(cells, until, np.array([0.0, 1.5, 3.0, 4.0]))
    assert found.tolist() == [[2.0, 4.0], [3.0, 4.0], [2.0, 0.0]]


def test_requests_without_times_are_counted() -> None:
    """Those that ended well with tokens."""
    untimed: dict[str, Any] = {"tokens": 0, "output_tokens": 3, "times_reason": "none"}
    requests = [
        request(0, 10.0, tokens=3),
        request(1, 10.0, **untimed),
        request(2, 10.0, **untimed | {"output_tokens": 0}),
        request(3, 10.0, **untimed, finish_reason="error"),
        request(4, 10.0, **untimed),
    ]
    assert phase_split._untimed(RequestColumns.of(requests)) == 2


def test_tokens_lie_where_they_were_computed() -> None:
    """Prompts without what was cached until the first token, which their pass brings; others since the one before; nothing of what failed."""
    requests = [
        asked(0, 10.0, prompt=100, prefill_s=2.0, tokens=3, token_s=1.0, cached_input_tokens=20),
        asked(1, 11.0, prompt=30, prefill_s=1.0, tokens=1, token_s=1.0),
        asked(2, 10.0, prompt=500, prefill_s=1.0, tokens=4, token_s=1.0, finish_reason="error"),
        request(3, 10.0, tokens=0, output_tokens=9, input_tokens=7, times_reason="none"),
        asked(4, 12.0, prompt=0, prefill_s=1.0, tokens=2, token_s=2.0),
    ]
    in_chunks = request(
        *(5, 13.0), tokens=0, output_tokens=7, input_tokens=10, first_token_ns=at(14.0),
        chunk_times_ns=[at(14.0), at(15.0)], chunk_tokens=[3, 4],
    )  # fmt: skip
    columns = RequestColumns.of([*requests, in_chunks])
    prompts, outputs = phase_split._computed(columns, np.arange(7.0), at(10.0))
    assert prompts.tolist() == pytest.approx([40.0, 40.0 + 30.0, 0.0, 10.0, 0.0, 0.0])
    assert outputs.tolist() == pytest.approx([0.0, 0.0, 1.0, 1.0 + 0.5 + 2.0, 0.5 + 4.0, 0.0])
