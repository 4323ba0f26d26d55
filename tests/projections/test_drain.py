"""A server's measurement ends with its load: what was in flight then is answered in a drain, whose tokens and energy are not the measurement's."""

import pytest

from llem.live.process import Arrivals
from llem.live.run import RunFollower
from llem.projections import catch_up
from llem.store import Store
from llem_events.events import Request, ServerStarted, WindowClosed, WindowOpened
from tests.projections.tables import one, result
from tests.projections.test_conservation import reasons
from tests.world import CLOSED_S, EXPERIMENT, Dated, at, edges, experiment, request, worker_events

DRAINED_S = CLOSED_S + 3.0


def chunked(number: int, *chunks: tuple[float, int | None], tokens: int) -> Request:
    """A request that was due at 29 s, with the seconds of its chunks and their tokens."""
    times = [at(second) for second, _ in chunks]
    return request(
        number,
        29.0,
        tokens=0,
        output_tokens=tokens,
        chunk_times_ns=times,
        chunk_tokens=[count for _, count in chunks],
        first_token_ns=times[0],
        end_ns=times[-1],
    )


REQUESTS = [
    request(0, 10.0),
    request(1, 29.82),  # two of its tokens come before the end, two after it
    chunked(2, (29.5, 4), (29.9, 3), (30.5, 2), (31.0, 1), tokens=10),
    chunked(3, (29.5, None), (30.5, None), tokens=10),
    # ends between the two windows
    request(4, 29.5, tokens=0, output_tokens=6, times_reason="told at its end", end_ns=at(30.005)),
    request(
        5, 29.9, start_ns=at(30.1), first_token_ns=at(30.2), token_times_ns=[at(30.2)] * 4, end_ns=at(30.3)
    ),
]


def served(requests: list[Request] = REQUESTS) -> list[Dated]:
    """A worker that watched a server, and drained it."""
    *before, (closed_s, closed), end = worker_events(requests=requests)
    told = [event for event in before if event[0] < CLOSED_S]
    late = [(DRAINED_S - 1.0, event) for second, event in before if second >= CLOSED_S]
    started = ServerStarted(kind="simulated", managed=True, url="http://127.0.0.1:1")
    return [
        told[0],
        (0.6, started),
        *told[1:],
        (closed_s, closed),
        (CLOSED_S + 0.01, WindowOpened(kind="drain", edges=edges("GPU-0", 5_080_000, CLOSED_S + 0.01))),
        *late,
        (DRAINED_S, WindowClosed(kind="drain", edges=edges("GPU-0", 5_980_000, DRAINED_S))),
        (DRAINED_S + 1.0, end[1]),
    ]


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one experiment of a server that was drained."""
    store = Store(tmp_path_factory.mktemp("drained") / "store").create()
    experiment(store, worker=served())
    catch_up(store)
    return store


def test_tokens_count_where_they_came(drained: Store) -> None:
    """One by one, in counted chunks, in chunks that nobody counted by equal parts, and at the end where no time is known."""
    row = result(drained)
    assert row["output_tokens"] == 4 + 2 + 7 + 5 + 0 + 0
    assert row["input_tokens"] == 4 * 8
    assert row["output_tokens"] + row["drain_output_tokens"] == sum(each.output_tokens for each in REQUESTS)


def test_a_view_of_the_run_has_the_same_tokens(drained: Store) -> None:
    """Those of the measurement, also of requests that were told before its end was."""
    row = result(drained)
    follower = RunFollower(drained, EXPERIMENT)
    follower.read()
    follower.close()
    figures = follower.run.figures()
    assert figures is not None
    assert (figures.output_tokens, figures.requests) == (row["output_tokens"], row["requests"])
    assert figures.output_tokens_per_second == pytest.approx(row["output_tokens_per_second"])
    assert figures.tokens_per_second == pytest.approx(row["tokens_per_second"])
    assert figures.energy_per_output_token_j == pytest.approx(row["energy_per_output_token_j"])


@pytest.mark.parametrize("is_end_told_first", [False, True])
def test_arrivals_before_and_after_the_end_is_told(is_end_told_first: bool) -> None:
    """The order in which the log is read changes nothing; a failed request has done no work."""
    arrivals = Arrivals()
    failed = request(9, 10.0, finish_reason="error", error="reset")
    if is_end_told_first:
        arrivals.end(at(CLOSED_S))
    arrivals.add([*REQUESTS, failed])
    arrivals.end(at(CLOSED_S))
    assert (arrivals.answer, arrivals.prompt) == (18, 4 * 8)
    assert arrivals.until_end([at(29.0), at(29.5), at(30.5)], [2, None, 3]) == 2


def test_energy_and_time_of_the_drain_are_its_own(drained: Store) -> None:
    """Beside those of the measurement, and equal to those of its window."""
    row = result(drained)
    assert (row["total_energy_j"], row["drain_energy_j"]) == pytest.approx((4_080.0, 900.0))
    assert (row["duration_sec"], row["drain_sec"]) == pytest.approx((20.0, 2.99))
    window = one(drained, "SELECT energy_j FROM windows WHERE kind = 'drain'")
    assert window["energy_j"] == row["drain_energy_j"]


def test_requests_that_end_in_the_drain_are_told(drained: Store) -> None:
    """They count as requests, their latencies among all others, and nothing stands against them."""
    row = result(drained)
    assert (row["requests"], row["drain_requests"]) == (6, 5)
    longest_ms = one(
        drained,
        "SELECT max(e2e_ms) AS longest, count(*) AS requests FROM timed_requests WHERE window_kind = 'measurement'",
    )
    assert (longest_ms["requests"], longest_ms["longest"]) == (6, pytest.approx(2_000.0))
    assert row["e2e_p99_ms"] > 1_900
    assert "not_conserved" not in {code for code, _ in reasons(drained, EXPERIMENT)}


@pytest.mark.usefixtures("tables")
def test_a_request_that_ends_after_the_drain_is_told(log: Store) -> None:
    """Nothing can be answered when all has been."""
    experiment(log, worker=served([request(0, 10.0), request(1, 29.9, end_ns=at(DRAINED_S + 0.5))]))
    catch_up(log)
    assert ("not_conserved", "1 requests of process 0 lie outside of its measurement windows") in reasons(
        log, EXPERIMENT
    )


@pytest.mark.usefixtures("tables")
def test_a_drain_that_never_ended_goes_to_the_last_answer(log: Store) -> None:
    """As of a worker that was killed in it."""
    events = [
        event for event in served() if not isinstance(event[1], WindowClosed) or event[1].kind != "drain"
    ]
    experiment(log, worker=events)
    catch_up(log)
    assert result(log)["drain_sec"] == pytest.approx(0.99)
