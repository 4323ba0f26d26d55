"""What stands against the figures of a server: a client that could not keep up, a rate that was not held, counts that disagree."""

from typing import Any

import pytest

from llem.results import aggregate_results
from llem.results.serving import ServingMetrics
from llem.results.validity import MeasuredFacts, judge
from tests.world import process


def _codes(*, complete: bool = True, requests: int = 200, **serving: Any) -> list[str]:
    facts = MeasuredFacts(
        duration_sec=60.0,
        complete=complete,
        energy_j=1.0,
        energy_source="counter",
        requests=requests,
        failed_requests=0,
        serving=ServingMetrics(**serving),
    )
    return [reason.code for reason in judge(facts).invalid_reasons]


def test_a_server_of_which_nothing_is_known_is_not_doubted() -> None:
    """What nobody told counts against nothing."""
    assert _codes() == []


@pytest.mark.parametrize(
    ("serving", "code"),
    [
        ({"send_lag_p99_ms": 10.1}, "client_saturated"),
        ({"client_cpu": 0.81}, "client_saturated"),
        ({"client_lag_p99_ms": 5.1}, "client_saturated"),
        ({"offered_rate_per_s": 100.0, "sent_rate_per_s": 98.9}, "rate_not_held"),
        ({"counted_output_tokens": 1000, "usage_output_tokens": 1020}, "counts_disagree"),
        ({"streamed_output_tokens": 1000, "server_output_tokens": 980}, "counts_disagree"),
        ({"restarts": 1}, "server_restarted"),
        ({"other_processes_on_gpus": 2}, "other_process_on_gpu"),
    ],
)
def test_each_doubt_has_its_code(serving: dict[str, Any], code: str) -> None:
    """One reason for one doubt."""
    assert _codes(**serving) == [code]


@pytest.mark.parametrize(
    "serving",
    [
        {"send_lag_p99_ms": 10.0, "client_cpu": 0.8, "client_lag_p99_ms": 5.0},
        {"offered_rate_per_s": 100.0, "sent_rate_per_s": 99.0},
        {"offered_rate_per_s": 0.0, "sent_rate_per_s": 0.0},
        {"counted_output_tokens": 1000, "usage_output_tokens": 1010},
        {"counted_output_tokens": 0, "usage_output_tokens": 0},
        {"restarts": 0, "other_processes_on_gpus": 0},
    ],
)
def test_what_lies_at_a_threshold_is_believed(serving: dict[str, Any]) -> None:
    """Only what passes it is not."""
    assert _codes(**serving) == []


def test_a_run_that_was_cut_off_is_not_blamed_on_the_servers_counters() -> None:
    """They have the tokens of requests that nobody waited for; its usage is of requests that ended, and stands against it as ever."""
    cut = {"streamed_output_tokens": 1000, "server_output_tokens": 1200}
    assert _codes(complete=False, **cut) == ["incomplete"]
    usage = {"counted_output_tokens": 1000, "usage_output_tokens": 1020}
    assert _codes(complete=False, **cut, **usage) == ["incomplete", "counts_disagree"]


@pytest.mark.parametrize(("requests", "codes"), [(8, []), (9, ["rate_not_held"])])
def test_requests_that_are_all_in_flight_at_once_have_no_rate(requests: int, codes: list[str]) -> None:
    """They are due together: how far apart they are sent says nothing."""
    assert _codes(requests=requests, max_in_flight=8, offered_rate_per_s=9e4, sent_rate_per_s=5e3) == codes


@pytest.mark.parametrize(
    ("serving", "text"),
    [
        ({"restarts": 1}, "the server's counters fell: it was restarted"),
        ({"restarts": 2}, "the server's counters fell 2 times: it was restarted"),
        ({"other_processes_on_gpus": 1}, "1 process that is not the server's was on its GPUs"),
        ({"other_processes_on_gpus": 2}, "2 processes that are not the server's were on its GPUs"),
    ],
)
def test_one_is_told_as_one(serving: dict[str, Any], text: str) -> None:
    """In words that fit the number."""
    facts = MeasuredFacts(
        duration_sec=60.0,
        complete=True,
        energy_j=1.0,
        energy_source="counter",
        serving=ServingMetrics(**serving),
    )
    assert [reason.text for reason in judge(facts).invalid_reasons] == [text]


def test_a_client_that_fails_in_every_way_is_told_once() -> None:
    """By the first of them."""
    assert _codes(send_lag_p99_ms=50.0, client_cpu=1.0, client_lag_p99_ms=50.0) == ["client_saturated"]


def test_both_counts_are_told() -> None:
    """Ours, its usage, and its counters."""
    serving = ServingMetrics(
        streamed_output_tokens=1000,
        counted_output_tokens=1000,
        usage_output_tokens=1020,
        server_output_tokens=1000,
    )
    assert (serving.usage_disagreement, serving.counter_disagreement) == (pytest.approx(0.02), 0.0)
    facts = MeasuredFacts(
        duration_sec=60.0, complete=True, energy_j=1.0, energy_source="counter", serving=serving
    )
    (reason,) = judge(facts).invalid_reasons
    assert reason.text == (
        "1000 output tokens came, 1020 by its usage, 1000 by its counters: 2.0% apart, more than 1.0%"
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_server_says_is_that_of_its_only_process(processes: int) -> None:
    """Of several nobody joins it."""
    serving = ServingMetrics(cached_input_tokens=7)
    joined = aggregate_results([process(index, serving=serving) for index in range(processes)], "run", "hash")
    assert joined.serving == (serving if processes == 1 else None)
