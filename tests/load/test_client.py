"""A client against a server whose times are known: what it reports is what happened, faults included."""

import asyncio
import itertools
import json
import statistics
from pathlib import Path
from typing import get_args

import pytest

from llem.errors import PlanError
from llem.load.client import LONG_NS, LOOK_NS, TICK_NS, Client
from llem.load.openai import RequestWriter
from llem.load.schedule import arrivals_ns, prompts_of, read_trace
from llem.prompts import Prompt, load_prompts
from llem.units import NS_PER_S
from llem_events.events import Request
from tests.delays import best_of_rounds, delays
from tests.load.fake_server import Behaviour, Fault
from tests.load.runs import load_plan, offer

EARLY_ROLE = Behaviour(ttft_ms=200, chunk_ms=20, tokens_per_chunk=4, early_role=True, continuous_usage=True)


def ms(later_ns: int, earlier_ns: int) -> float:
    """Between two times."""
    return (later_ns - earlier_ns) / 1e6


def ttft_ms(request: Request) -> float:
    """From when it was due."""
    assert request.first_token_ns is not None
    return ms(request.first_token_ns, request.arrival_ns)


@best_of_rounds
def test_an_early_piece_without_text_is_no_first_token() -> None:
    """Of a server that sends its role at once, its first token after 200 ms and 4 tokens every 20 ms, the times are these.

    The benchmark writes down how exactly; here a machine that does other things may be late.
    """
    ran = offer(EARLY_ROLE, load_plan({"concurrency": 8}, requests=16, tokens=128))
    assert statistics.median(map(ttft_ms, ran.requests)) >= 200
    per_token_ms = [
        ms(request.chunk_times_ns[-1], request.chunk_times_ns[0]) / (request.output_tokens - 4)
        for request in ran.requests
    ]
    gaps_ms = [
        ms(later, earlier)
        for request in ran.requests
        for earlier, later in itertools.pairwise(request.chunk_times_ns)
    ]
    assert all(request.chunk_tokens == [4] * 32 for request in ran.requests)
    with delays():
        assert statistics.median(map(ttft_ms, ran.requests)) < 250
        assert 4.5 <= statistics.median(per_token_ms) <= 5.5
        assert statistics.median(gaps_ms) == pytest.approx(20, abs=5)


@pytest.mark.slow
@best_of_rounds
def test_waiting_for_the_cap_is_part_of_the_latency() -> None:
    """10 requests/s of 500 ms each, one at a time: the last is 3,300 ms late by its due time, though none took much longer than 500 by its sending."""
    behaviour = Behaviour(ttft_ms=500, continuous_usage=True)
    plan = load_plan({"rate": 10, "arrival": "constant", "max_concurrency": 1}, requests=8, tokens=1)
    ran = offer(behaviour, plan)
    from_due = [ms(request.end_ns, request.arrival_ns) for request in ran.requests]
    from_sent = [ms(request.end_ns, request.start_ns) for request in ran.requests]
    assert min(from_sent) >= 500
    assert from_due[-1] == max(from_due) >= 8 * 500 - 7 * 100
    with delays():
        assert min(from_sent) == pytest.approx(507, abs=40)
        assert from_due[-1] == pytest.approx(sum(from_sent) - 7 * 100, abs=200)
        assert (ran.client.account.max_in_flight, ran.client.account.max_waiting) == (1, 6)


def test_a_request_is_due_when_the_schedule_says() -> None:
    """Whatever the server does: arrivals are exactly those that were drawn, and none is sent before."""
    plan = load_plan({"rate": 400}, requests=100, tokens=1)
    ran = offer(Behaviour(ttft_ms=30), plan)
    arrivals = [request.arrival_ns - ran.client.starts_ns for request in ran.requests]
    drawn = arrivals_ns("poisson", rate_per_s=400, seed=42, requests=100, min_duration_s=0)
    assert arrivals == list(drawn)
    assert all(request.start_ns >= request.arrival_ns for request in ran.requests)
    assert ran.client.account.max_in_flight > 3


@best_of_rounds
def test_a_closed_loop_keeps_as_many_in_flight() -> None:
    """Never more, and each is due when one before it has ended."""
    ran = offer(Behaviour(ttft_ms=5, chunk_ms=1), load_plan({"concurrency": 3}, requests=12))
    assert ran.client.account.max_in_flight == 3
    assert len(ran.requests) == 12
    ends = {request.end_ns for request in ran.requests}
    for request in ran.requests[3:]:
        with delays():
            assert min(abs(ms(request.arrival_ns, end_ns)) for end_ns in ends) < 50


@best_of_rounds
def test_a_closed_loop_goes_on_until_its_time() -> None:
    """The prompts are gone through again, and other tokens are drawn for them."""
    ran = offer(Behaviour(ttft_ms=5), load_plan({"concurrency": 2}, requests=3, tokens=1, min_duration_s=0.3))
    with delays():
        assert len(ran.requests) > 10
    assert [request.request_id for request in ran.requests] == list(range(len(ran.requests)))


@best_of_rounds
def test_a_ramp_starts_slots_one_after_another() -> None:
    """Four slots over 0.4 s: the last first request is due 0.3 s after the first."""
    plan = load_plan({"concurrency": 4, "ramp_s": 0.4}, requests=4, tokens=1)
    ran = offer(Behaviour(ttft_ms=500), plan)
    with delays():
        assert ms(ran.requests[3].arrival_ns, ran.requests[0].arrival_ns) == pytest.approx(300, abs=60)


@best_of_rounds
def test_most_time_ends_a_load() -> None:
    """workload.max_duration_s: nothing is due after it, and what is in flight drains."""
    plan = load_plan({"concurrency": 2}, requests=1_000, tokens=1, max_duration_s=0.2)
    ran = offer(Behaviour(ttft_ms=20), plan)
    with delays():
        assert all(ms(request.arrival_ns, ran.client.starts_ns) <= 260 for request in ran.requests)
    assert {request.finish_reason for request in ran.requests} == {"length"}


FAILING: dict[Fault, str] = {
    "status_500": "HTTP 500: the fake was told to refuse",
    "status_429": "HTTP 429: the fake was told to refuse",
    "garbage": "no answer in HTTP/1.1: found 'ssh-2.0-openssh_9.2p1'",
    "reset_in_stream": "the server reset the connection in the middle of its answer",
    "close_in_stream": "the server closed the connection in the middle of its answer",
    "stall": "nothing came for 1 s",
    "truncated_chunk": "the server closed the connection in the middle of its answer",
    "bad_chunk_size": "size of a chunk: found 'not hex'",
    "invalid_json": "a piece of the stream is not as expected: JSON is malformed",
    "error_in_stream": "the server sent an error in its stream: out of blocks",
    "not_a_stream": "no stream, but HTTP 200",
    "never_finished": "the stream ended before its answer was finished",
    "missing_blank_line": "a piece of the stream is not as expected: JSON is malformed",
}
HARMLESS: tuple[Fault, ...] = (
    "comment_pings",
    "utf8_cut",
    "crlf",
    "large_event",
    "close_after_answer",
    "no_usage",
    "no_done",
)


def test_every_fault_of_the_fake_is_tested() -> None:
    """As a failure, or as something that a client has to bear."""
    assert {*FAILING, *HARMLESS} == {*get_args(Fault)} - {"", "reset_before_answer"}


@pytest.mark.parametrize("fault", FAILING)
@best_of_rounds
def test_a_fault_is_one_request_with_its_own_error(fault: Fault) -> None:
    """Every third request fails with a line that says what happened, the others are as always."""
    behaviour = Behaviour(ttft_ms=4, chunk_ms=1, fault=fault, fault_every=3)
    ran = offer(behaviour, load_plan({"concurrency": 2, "timeout_s": 1}, requests=12))
    failed = [request for request in ran.requests if request.finish_reason == "error"]
    assert len(ran.requests) == 12
    with delays():  # of a second at most: others may fail for their time, too
        assert len(failed) == 4
        assert all(FAILING[fault] in (request.error or "") for request in failed)
    assert ran.client.account.failed_requests == 4
    for request in ran.requests:
        assert (request.error is None) == (request.finish_reason == "length") == (request.output_tokens == 8)


def test_a_connection_reset_before_its_answer_fails_the_request() -> None:
    """Every time on a new connection; one that was open before may have been closed before, so its request is sent once more."""
    ran = offer(Behaviour(fault="reset_before_answer"), load_plan({"concurrency": 2}, requests=4))
    assert all("before its answer began" in (request.error or "") for request in ran.requests)
    ran = offer(
        Behaviour(ttft_ms=4, fault="reset_before_answer", fault_every=3), load_plan({"concurrency": 1})
    )
    failed = [request for request in ran.requests if request.finish_reason == "error"]
    assert len(failed) == len([request for request in failed if not request.connection_reused])
    assert ran.pool.stale > 0


@pytest.mark.parametrize("fault", HARMLESS)
def test_what_servers_may_do_is_borne(fault: Fault) -> None:
    """No error, every token counted, every time there."""
    ran = offer(Behaviour(ttft_ms=4, chunk_ms=1, fault=fault), load_plan({"concurrency": 2}))
    assert {(request.finish_reason, request.output_tokens) for request in ran.requests} == {("length", 8)}
    assert all(len(request.token_times_ns) == 8 for request in ran.requests)


@pytest.mark.slow
@best_of_rounds
def test_a_server_that_closes_after_each_answer_is_asked_500_times() -> None:
    """As llama.cpp's does while it says keep-alive: eight streams, no error, and none hangs."""
    behaviour = Behaviour(ttft_ms=1, fault="close_after_answer", continuous_usage=True)
    ran = offer(behaviour, load_plan({"concurrency": 8}, requests=500, tokens=4))
    with delays():  # a fifth of a second after it was sent, a request is not sent again
        assert {request.finish_reason for request in ran.requests} == {"length"}
    assert len(ran.requests) == 500
    assert ran.pool.opened >= 500


def test_a_usage_that_lies_is_kept_beside_the_count() -> None:
    """2 % too much: the sum of the stream and the server's total differ, and both are there."""
    behaviour = Behaviour(continuous_usage=True, usage_factor=1.02)
    ran = offer(behaviour, load_plan({"concurrency": 2}, tokens=100))
    assert {(request.output_tokens, request.usage_output_tokens) for request in ran.requests} == {(100, 102)}


def test_a_drain_that_ends_says_so_for_each_request() -> None:
    """What was not answered, and what was never sent because of the cap, have failed."""
    plan = load_plan(
        {"rate": 100, "max_concurrency": 2, "drain_s": 0.2, "arrival": "constant"}, requests=5, tokens=1
    )
    ran = offer(Behaviour(ttft_ms=60_000), plan)
    errors = [request.error for request in ran.requests]
    assert (
        errors
        == ["not answered within 0.2 s after the last request was due"] * 2
        + ["not sent within 0.2 s after the last request was due"] * 3
    )


@pytest.mark.parametrize("drain", [True, False])
def test_a_load_ends_when_it_is_told(drain: bool) -> None:
    """With a drain what is in flight is answered, without one it is stopped, and keeps what it has brought."""

    def meanwhile(client: Client) -> None:
        asyncio.get_running_loop().call_later(0.15, lambda: client.end(drain=drain))

    plan = load_plan({"concurrency": 2}, requests=1_000, tokens=50)
    ran = offer(Behaviour(ttft_ms=5, chunk_ms=5), plan, meanwhile=meanwhile)
    assert {request.finish_reason for request in ran.requests} == ({"length"} if drain else {"stopped"})
    assert len(ran.requests) == 2
    assert all(0 < request.output_tokens <= 50 for request in ran.requests if drain)


@pytest.mark.slow
def test_a_server_that_fails_for_good_is_not_asked_for_ever() -> None:
    """After five seconds of nothing but errors the load ends, and says why; each slot asks ten times a second at most."""
    plan = load_plan({"concurrency": 2}, requests=10_000, tokens=1)
    ran = offer(Behaviour(fault="status_500"), plan, max_failed_in_a_row=20)
    gave_up = ran.client.account.gave_up
    assert "requests in a row failed, the last one: HTTP 500" in gave_up
    assert len(ran.requests) <= 2 * 10 * 7


@best_of_rounds
@pytest.mark.slow
def test_a_long_request_is_told_as_it_goes() -> None:
    """In pieces that join to what the request has in the end, each so soon that a kill loses less than a second, but for how late the loop is."""
    plan = load_plan({"concurrency": 1}, requests=1, tokens=30)
    ran = offer(Behaviour(ttft_ms=20, chunk_ms=60), plan)
    told = [at_ns for _, times_ns in ran.progress for at_ns in times_ns]
    assert told == ran.requests[0].token_times_ns[: len(told)]
    with delays():
        assert len(told) > 15
    within_ns = LONG_NS + LOOK_NS + TICK_NS
    assert within_ns < 0.75 * NS_PER_S
    late_ns = ran.client.account.completed(
        process_index=0, window="measurement", starts_ns=0, offered_ns=0, connections=1, stale_connections=0
    ).loop_lag_max_ns
    with delays():
        assert max(ran.ages_ns) <= within_ns + 2 * late_ns


def test_a_port_where_nobody_listens_fails_each_request() -> None:
    """With the place in its error."""
    ran = offer(Behaviour(), load_plan({"concurrency": 2}, requests=2), url="http://127.0.0.1:9")
    assert all("no connection to 127.0.0.1:9" in (request.error or "") for request in ran.requests)


@pytest.mark.slow
def test_a_thousand_connections_are_no_matter() -> None:
    """All of them open at once, as an open loop without a cap has it."""
    plan = load_plan({"rate": 5_000, "arrival": "constant"}, requests=900, tokens=1)
    ran = offer(Behaviour(ttft_ms=400), plan)
    assert {request.finish_reason for request in ran.requests} == {"length"}
    assert ran.client.account.max_in_flight > 500


TRACE = """{"timestamp": 27000, "input_length": 12, "output_length": 3, "hash_ids": [1, 2]}
{"timestamp": 27200, "input_length": 20, "output_length": 5}

{"timestamp": 27100, "input_length": 7, "output_length": 2}
"""


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    """In the order of its times, with its lengths, twice as fast when asked to."""
    path = tmp_path / "trace.jsonl"
    path.write_text(TRACE)
    ran = offer(Behaviour(), load_plan({"trace": str(path), "time_scale": 0.5}))
    assert [(request.input_tokens, request.output_tokens) for request in ran.requests] == [
        (12, 3),
        (7, 2),
        (20, 5),
    ]
    assert [request.arrival_ns - ran.client.starts_ns for request in ran.requests] == [
        0,
        50_000_000,
        100_000_000,
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "found no line, expected JSON Lines of timestamp"),
        ("{}", "line 1: found Object missing required field `timestamp`"),
        ('\n{"timestamp": 1, "input_length": 0, "output_length": 1}', "line 2: found input_length 0"),
        ("not json", "line 1: found JSON is malformed"),
    ],
)
def test_a_trace_that_is_none_is_named_by_its_line(tmp_path: Path, content: str, said: str) -> None:
    """Before anything is sent."""
    path = tmp_path / "trace.jsonl"
    path.write_text(content)
    with pytest.raises(PlanError) as refused:
        read_trace(path)
    assert said in str(refused.value)


def test_blocks_of_a_trace_are_shared_within_a_window(tmp_path: Path) -> None:
    """Equal hash_ids are equal tokens, the rest of a prompt is its own, and a warm-up leaves nothing of the measurement in a cache."""
    path = tmp_path / "trace.jsonl"
    rows = [(600, [7]), (600, [7]), (600, [8, 9]), (100, [7]), (600, [])]
    lines = [
        f'{{"timestamp": 0, "input_length": {length}, "output_length": 1, "hash_ids": {blocks}}}'
        for length, blocks in rows
    ]
    path.write_text("\n".join(lines))
    asked = {
        is_warmup: [drawn(prompt) for prompt in prompts_of(read_trace(path), seed=7, is_warmup=is_warmup)]
        for is_warmup in (False, True)
    }
    first, second, third, short, own = asked[False]
    assert [len(prompt) for prompt in asked[False]] == [600, 600, 600, 100, 600]
    assert first[:512] == second[:512]
    assert first[512:] != second[512:]
    assert short == first[:100]
    assert third[:512] != first[:512] != own[:512]
    assert asked[True][0][:512] == asked[True][1][:512] != first[:512]


def drawn(prompt: Prompt) -> list[int]:
    """The token ids that a server gets."""
    writer = RequestWriter("completions", model="m", extra={}, vocabulary=(0, 1_000), keeps_text=False)
    ids: list[int] = json.loads(writer.prepare(prompt, round_index=0).body)["prompt"]
    return ids


def test_prompts_begin_as_those_of_their_group() -> None:
    """Half of them with one of two beginnings of 20 tokens, which no round draws anew, the others with none."""
    plan = load_plan({}, requests=200, prefix={"share": 0.5, "tokens": 20, "groups": 2})
    prompts = load_prompts(plan)
    begun = [prompt for prompt in prompts if prompt.shared]
    assert 70 <= len(begun) <= 130
    assert {len(drawn(prompt)) for prompt in begun} == {52}
    assert len({tuple(drawn(prompt)[:20]) for prompt in begun}) == 2
    assert len({tuple(drawn(prompt)) for prompt in prompts}) == 200
    alone = load_prompts(load_plan({}, requests=200))
    assert [prompt.seed for prompt in prompts] == [prompt.seed for prompt in alone]
