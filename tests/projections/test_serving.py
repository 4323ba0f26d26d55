"""What the log says of a server and its load, in memory: rates, counters, the drain, and shares of its requests."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from llem.projections.derive.experiment import Derived
from llem.results.serving import ServingMetrics
from llem_events.events import (
    BaselineMeasured,
    BaselinePower,
    LoadCompleted,
    Request,
    ServerMetricsRead,
    ServerStarted,
    WarningRaised,
)
from tests.projections.in_memory import usual
from tests.world import CLOSED_S, OPENED_S, Dated, at, request, worker_events

S = 10**9
STARTED = ServerStarted(
    kind="simulated",
    managed=True,
    url="u",
    started_ns=5 * S,
    first_answer_ns=8 * S,
    input_tokens_metric="in_total",
    output_tokens_metric="out_total",
)


def served(*more: Dated, requests: Sequence[Request] | None = None) -> Derived:
    worker = [*worker_events(requests=requests), (0.6, STARTED), *more]
    return usual(worker=sorted(worker, key=lambda said: said[0]))


def metrics(*more: Dated, requests: Sequence[Request] | None = None) -> ServingMetrics:
    found = served(*more, requests=requests).measured[0].result.serving
    assert found is not None
    return found


def test_rates_are_of_the_times_between() -> None:
    """Of five requests due every two seconds, each sent half a second later than the one before: four in 8 s, and in 10 s."""
    requests = [
        request(
            number, 12.0 + 2 * number, start_ns=at(12.0 + 2.5 * number), token_times_ns=[], times_reason="r"
        )
        for number in range(5)
    ]
    found = metrics(requests=requests)
    assert (found.offered_rate_per_s, found.sent_rate_per_s) == (0.5, 0.4)
    assert found.server_start_sec == 3.0
    for unknown in ("started_ns", "first_answer_ns"):
        running = msgspec.structs.replace(STARTED, **{unknown: None})
        assert metrics((0.7, running), requests=requests).server_start_sec is None
    alone = metrics(requests=requests[:1])
    assert (alone.offered_rate_per_s, alone.sent_rate_per_s) == (None, None)
    assert metrics(requests=requests[:2]).offered_rate_per_s == 0.5


def load(window: str = "measurement", **changes: Any) -> Dated:
    usual_load: dict[str, Any] = {
        "process_index": 0,
        "window": window,
        **dict.fromkeys(("requests", "failed_requests", "input_tokens", "output_tokens"), 1),
        **dict.fromkeys(("connections", "stale_connections"), 0),
        "starts_ns": 10 * S,
        "offered_ns": 20 * S,
        "ended_ns": 30 * S,
        "send_lag_p99_ns": 3_000_000,
        "loop_lag_p99_ns": 2_000_000,
        "cpu_time_ns": 5 * S,
        "max_in_flight": 7,
    }
    return 30.5, LoadCompleted(**usual_load | changes)


def test_what_the_load_says_of_itself() -> None:
    """In milliseconds, and as a share of its time; of its measurement, not of the warm-up."""
    found = metrics(load(), load("warmup", max_in_flight=99))
    assert (found.send_lag_p99_ms, found.client_lag_p99_ms) == (3.0, 2.0)
    assert (found.client_cpu, found.max_in_flight) == (0.25, 7)
    unknown = metrics()
    assert (unknown.send_lag_p99_ms, unknown.client_cpu, unknown.max_in_flight) == (None, None, None)
    assert metrics(load(ended_ns=10 * S)).client_cpu is None


def read(
    *moments_s: float, inputs: Sequence[float | None] = (), outputs: Sequence[float | None] = ()
) -> Dated:
    named = {'in_total{engine="0"}': inputs, "out_total": outputs, "in_total_other": outputs}
    values = {name: list(numbers) for name, numbers in named.items() if numbers}
    event = ServerMetricsRead(
        names=list(values), times_ns=[at(each) for each in moments_s], values=list(values.values())
    )
    return moments_s[-1], event


def test_counters_rise_from_before_the_measurement_to_after_it() -> None:
    """From the last reading before, to the first after; a reading at an edge is one."""
    inside = (OPENED_S - 2, OPENED_S, 20.0, CLOSED_S, CLOSED_S + 2)
    found = metrics(read(*inside, inputs=(1, 10, 50, 95, 500), outputs=(0, 3, 5, 8, 9)))
    assert (found.server_input_tokens, found.server_output_tokens, found.restarts) == (85, 5, 0)
    late = metrics(read(OPENED_S + 0.1, CLOSED_S + 1, inputs=(10, 95)))
    assert (late.server_input_tokens, late.restarts) == (None, 0)
    early = metrics(read(OPENED_S - 1, CLOSED_S - 0.1, inputs=(10, 95)))
    assert (early.server_input_tokens, early.server_output_tokens) == (None, None)
    assert metrics().restarts is None


def test_labels_of_a_counter_are_added_up() -> None:
    """What was not there is no part of the sum; readings may come in any order."""
    event = ServerMetricsRead(
        names=["out_total{a}", "out_total{b}"],
        times_ns=[at(CLOSED_S), at(OPENED_S)],
        values=[[7.0, 1.0], [5.0, None]],
    )
    assert metrics((30.2, event)).server_output_tokens == 11


def test_a_counter_that_falls_was_started_again() -> None:
    """As often as it falls; the counter that fell more often says it."""
    moments_s = (OPENED_S - 1, 15.0, 20.0, 25.0, CLOSED_S)
    found = metrics(read(*moments_s, inputs=(9, 2, 3, 1, 4), outputs=(9, 2, 3, 3, 4)))
    assert found.restarts == 2


def test_idle_power_and_other_processes() -> None:
    """The most that were seen on the GPUs at one time."""
    power = BaselinePower(device_uuid="GPU-0", mean_power_w=70.0, std_power_w=1.0, samples=9)
    idle = BaselineMeasured(position="server_idle", duration_s=1.0, devices=[power])
    warned = [WarningRaised(code="other_process_on_gpu", text="t", value=value) for value in (2.0, 3.0, None)]
    other = WarningRaised(code="something_else", text="t", value=9.0)
    found = metrics((8.5, idle), *((20.0, event) for event in (*warned, other)))
    assert (found.server_idle_power_w, found.other_processes_on_gpus) == (70.0, 3)
    assert metrics().other_processes_on_gpus == 0


@pytest.mark.parametrize(("cached", "codes"), [(1, []), (2, ["prefix_cache_hit"])])
def test_a_cache_that_serves_a_hundredth_is_told(cached: int, codes: list[str]) -> None:
    """Of a hundred input tokens more than one."""
    told = {"usage_input_tokens": 100, "usage_output_tokens": 4, "cached_input_tokens": cached}
    process = served(requests=[request(0, 12.0, **told)]).measured[0].result
    assert [warning.code for warning in process.warnings] == codes
    assert process.serving is not None
    assert (process.serving.cached_input_tokens, process.serving.usage_input_tokens) == (cached, 100)


def test_requests_share_the_energy_of_a_server() -> None:
    """All of it, with what it took while none was in flight."""
    measured = served().measured[0]
    assert measured.shares is not None and measured.result.serving is not None
    shares = measured.shares
    assert shares.ids.tolist() == list(range(10)) and shares.are_whole.all()
    assert shares.energy_j.sum() + shares.idle_j == pytest.approx(4080.0)
    assert measured.result.serving.idle_energy_j == shares.idle_j > 0
    assert (shares.energy_j[1:] > shares.energy_j[:-1]).all()  # of a power that rises
    assert usual().measured[0].shares is None
