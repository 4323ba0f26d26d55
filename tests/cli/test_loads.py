"""Several loads on one server: those that are named, and the search for the highest rate that holds an objective."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llem.cli.loads import Given, Load, Search, course_of, loads_of, meets, under, write_curve
from llem.errors import PlanError
from llem.plan import Plan
from llem.results import InvalidReason, LatencyStatistics, aggregate_results
from llem.results.experiment import ExperimentResult
from tests.world import process

OBJECTIVE = {"ttft_ms": 200.0}


def _result(ttft_p99_ms: float, *codes: str, **latencies: Any) -> ExperimentResult:
    joined = aggregate_results([process(requests=4)], "run", "hash")
    statistics = LatencyStatistics(ttft_p99_ms=ttft_p99_ms, **latencies)
    reasons = [InvalidReason(code=code, text=code) for code in codes]
    return msgspec.structs.replace(joined, latency_stats=statistics, invalid_reasons=reasons)


def _rates(search: Search, *, holds_up_to: float) -> list[float]:
    """The rates that it tries on a server that holds up to one; the last, and no other, was taken to be it."""
    tried, ends = [], []
    while (load := search.next()) is not None:
        tried.append(load.number)
        ends.append(search.ends_with_this)
        search.take(load, _result(100.0 if load.number <= holds_up_to else 300.0))
    assert ends == [False] * (len(tried) - 1) + [True]
    return tried


def test_a_search_doubles_and_then_halves_the_gap() -> None:
    """Until what holds and what does not are within a tenth."""
    search = Search(OBJECTIVE, start=1.0)
    assert _rates(search, holds_up_to=10.9) == [1, 2, 4, 8, 16, 12, 10, 11]
    assert (search.holds, search.fails) == (10, 11)
    assert search.told() == (
        "the highest rate that holds ttft_ms <= 200 (99th percentiles) is 10 requests/s; 11 does not"
    )


def test_a_search_that_begins_too_high_comes_down() -> None:
    """By halves, and not for ever."""
    search = Search(OBJECTIVE, start=64.0)
    assert _rates(search, holds_up_to=30.0)[:3] == [64, 32, 16] and search.holds is not None
    hopeless = Search(OBJECTIVE, start=64.0)
    assert _rates(hopeless, holds_up_to=0.0) == [64, 32, 16, 8, 4]
    assert hopeless.told() == "no rate tried holds ttft_ms <= 200 (99th percentiles); 4 does not"


def test_a_rate_at_which_the_client_was_late_is_doubted() -> None:
    """What it saw there is its own delay, and no limit of the server's."""
    search = Search(OBJECTIVE, start=1.0)
    while (load := search.next()) is not None:
        codes = ("client_saturated",) if load.number >= 2 else ()
        search.take(load, _result(100.0 if load.number < 2 else 300.0, *codes))
    assert search.told().endswith(
        "does not, but there the load process itself was late, so that it may be no limit of the server's"
    )


def test_a_search_that_is_stopped_says_how_far_it_came() -> None:
    """It is no answer yet."""
    search = Search(OBJECTIVE, start=1.0)
    stopped = "the search was stopped before its end; so far "
    assert search.told() == f"{stopped}no rate was measured"
    search.take(search.next() or Load("load.rate", 0), _result(100.0))
    assert search.told() == (
        f"{stopped}the highest rate that holds ttft_ms <= 200 (99th percentiles) is 1 requests/s; none tried does not"
    )


def test_the_curve_says_where_its_energy_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    """An estimate beside a load is one too."""
    write_curve([(Load("load.concurrency", 8), _result(100.0)), (Load("load.concurrency", 2), None)])
    head, _, *rows = capsys.readouterr().err.splitlines()
    assert head.split("  ")[0] == "concurrency" and "J/output token  source" in head
    assert rows[1].split()[-2:] == ["not", "judged"] or "counter" in rows[1]


def test_a_search_that_was_nearly_given_up_goes_on() -> None:
    """A first rate that holds after the limit of halvings: its try was taken to be the last, which the next mends by a server of its own."""
    search = Search(OBJECTIVE, start=64.0)
    for _ in range(4):
        search.take(search.next() or Load("load.rate", 0), _result(300.0))
    last = search.next()
    assert last == Load("load.rate", 4.0) and search.ends_with_this
    search.take(last, _result(100.0))
    assert search.next() == Load("load.rate", 6.0) and not search.ends_with_this


@given(holds_up_to=st.floats(1.1, 900.0))
def test_what_a_search_finds_is_within_a_tenth(holds_up_to: float) -> None:
    """Whatever the server holds, and every last try is known to be the last."""
    search = Search(OBJECTIVE, start=1.0)
    _rates(search, holds_up_to=holds_up_to)
    assert search.holds is not None and search.fails is not None
    assert search.holds <= holds_up_to < search.fails <= search.holds * 1.1 * (1 + 1e-9)


def test_a_search_without_an_end_has_one() -> None:
    """A server that holds every rate is believed after some."""
    search = Search(OBJECTIVE, start=1.0)
    assert len(_rates(search, holds_up_to=float("inf"))) == 16
    assert search.told().endswith("none tried does not")


def test_an_objective_is_met_by_the_99th_percentile() -> None:
    """What is not known does not meet it, nor do requests that fail; a verdict on something else does not matter."""
    assert meets(_result(200.0), OBJECTIVE) and not meets(_result(200.1), OBJECTIVE)
    assert not meets(_result(1.0), {"ttft_ms": 200.0, "tpot_ms": 20.0})
    assert meets(_result(1.0, tpot_vllm_p99_ms=20.0), {"tpot_ms": 20.0})
    assert not meets(_result(1.0, "failed_requests"), OBJECTIVE)
    assert meets(_result(1.0, "too_short", "client_saturated"), OBJECTIVE)


def test_a_load_is_a_part_of_the_plan_and_a_label() -> None:
    """So that its experiment says what it was."""
    open_loop = under(Plan(), Load("load.rate", 2.5))
    assert (open_loop.load.kind, open_loop.load.rate, open_loop.labels) == ("open", 2.5, {"load.rate": "2.5"})
    closed = under(Plan(), Load("load.concurrency", 4))
    assert (closed.load.kind, closed.load.concurrency) == ("closed", 4)


def test_named_loads_come_in_order() -> None:
    """The last is known to be the last, so that it ends the server."""
    course = course_of(loads_of(rate="4,8", concurrency=None), find=None, slo=None)
    assert isinstance(course, Given)
    assert course.next() == Load("load.rate", 4.0) and not course.ends_with_this
    assert course.next() == Load("load.rate", 8.0) and course.ends_with_this
    assert course.next() is None
    assert course_of(loads_of(rate="4", concurrency=None), find=None, slo=None) is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"rate": "x"}, "--rate: found 'x'"),
        ({"rate": "0"}, "load.rate"),
        ({"rate": "nan"}, "numbers above 0"),
        ({"concurrency": "1.5"}, "whole numbers"),
        ({"rate": "1", "concurrency": "1"}, "one of them"),
        ({"rate": ",".join(["1"] * 101)}, "at most 100"),
        ({"slo": "ttft_ms=1"}, "--find: found only --slo"),
        ({"find": "min-rate", "slo": "ttft_ms=1"}, "found min-rate, expected max-rate"),
        ({"find": "max-rate"}, "--slo: found ''"),
        ({"find": "max-rate", "slo": "latency=1"}, "some of ttft_ms, tpot_ms, e2e_ms"),
        ({"find": "max-rate", "slo": "ttft_ms=-1"}, "numbers above 0"),
        ({"find": "max-rate", "slo": "ttft_ms=1", "concurrency": "4"}, "one --rate to begin with"),
        ({"find": "max-rate", "slo": "ttft_ms=1", "rate": "4,8"}, "one --rate to begin with"),
    ],
)
def test_what_cannot_be_meant_is_told(written: dict[str, str], said: str) -> None:
    """Before anything is started."""
    with pytest.raises(PlanError) as caught:
        loads = loads_of(rate=written.get("rate"), concurrency=written.get("concurrency"))
        course_of(loads, find=written.get("find"), slo=written.get("slo"))
    assert said in str(caught.value)
