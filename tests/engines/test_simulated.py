"""The simulated engine: given counts at given times."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from llem.engines import create_engine
from llem.errors import EngineError
from llem.plan import Plan
from llem.prompts import load_prompts
from llem_events.events import Request

MakePlan = Callable[..., Plan]


def run(plan: Plan, *, stop_after: int | None = None, batches: int = 1) -> list[Request]:
    engine = create_engine(plan, device=None)
    engine.load()
    batch = engine.encode(load_prompts(plan))
    steps: list[int] = []
    requests: list[Request] = []
    for index in range(batches):
        requests += engine.run(
            batch,
            batch_index=index,
            arrival_ns=time.monotonic_ns(),
            should_stop=lambda: len(steps) == stop_after,
            on_tokens=steps.append,
        )
    assert sum(steps) == sum(request.output_tokens for request in requests)
    return requests


def simulated(make_plan: MakePlan, tokens: int = 5, **delays: Any) -> Plan:
    workload = {"requests": 2, "output_tokens": {"mean": tokens}}
    return make_plan(engine={"name": "simulated", "simulated": delays}, workload=workload)


def test_token_times_are_the_planned_ones(make_plan: MakePlan) -> None:
    """First token after prefill_ms, each further one after token_ms, exactly and without drift."""
    before_ns = time.monotonic_ns()
    (request, _) = run(simulated(make_plan, prefill_ms=4, token_ms=3))
    assert request.token_times_ns == [request.start_ns + (4 + 3 * step) * 1_000_000 for step in range(5)]
    assert before_ns <= request.arrival_ns <= request.start_ns
    assert request.end_ns == request.token_times_ns[-1] <= time.monotonic_ns()
    assert (request.input_tokens, request.output_tokens, request.finish_reason) == (32, 5, "length")


def test_jitter_is_seeded(make_plan: MakePlan) -> None:
    """Delays spread by the jitter, the same way in every run."""
    plan = simulated(make_plan, prefill_ms=2, token_ms=2, jitter=0.5)
    gaps = [
        [b - a for a, b in zip(r.token_times_ns, r.token_times_ns[1:], strict=False)]
        for r in (run(plan)[0], run(plan)[0])
    ]
    assert gaps[0] == gaps[1]
    assert len(set(gaps[0])) > 1
    assert all(1_000_000 <= gap <= 3_000_000 for gap in gaps[0])


def test_chosen_requests_fail(make_plan: MakePlan) -> None:
    """A request named in fail_requests ends in an error without tokens; its batch goes on."""
    failed, good = run(simulated(make_plan, prefill_ms=1, token_ms=0, fail_requests=[0]))
    assert (failed.finish_reason, failed.output_tokens) == ("error", 0)
    assert "fail_requests" in (failed.error or "")
    assert (good.finish_reason, good.output_tokens) == ("length", 5)


def test_stop_ends_the_batch_at_the_next_token(make_plan: MakePlan) -> None:
    """A stopped request keeps the tokens it had."""
    stopped = run(simulated(make_plan, prefill_ms=1, token_ms=1), stop_after=2)
    assert {(request.finish_reason, request.output_tokens) for request in stopped} == {("stopped", 2)}


def test_crash_after_batches(make_plan: MakePlan) -> None:
    """The engine gives up when the plan says so."""
    plan = simulated(make_plan, prefill_ms=0, token_ms=0, crash_after_batches=2)
    assert len(run(plan, batches=2)) == 4
    with pytest.raises(EngineError, match="crashed after 2 batches"):
        run(plan, batches=3)


def test_text_and_synthetic_prompts_have_exact_lengths(make_plan: MakePlan) -> None:
    """Ids are bytes of the text, or as many seeded ones as were asked for."""
    plan = simulated(make_plan)
    engine = create_engine(plan, device=None)
    first, again = (engine.encode(load_prompts(plan)) for _ in range(2))
    assert first == again
    assert [len(prompt.token_ids) for prompt in first] == [32, 32]
    assert first[0].token_ids != first[1].token_ids


def test_texts_are_recorded_only_when_asked(make_plan: MakePlan) -> None:
    """record_text puts prompt and output into the request."""
    plan = simulated(make_plan, prefill_ms=0, token_ms=0)
    assert run(plan)[0].prompt is None
    workload = {"requests": 1, "record_text": True}
    told = make_plan(
        engine={"name": "simulated", "simulated": {"prefill_ms": 0, "token_ms": 0}}, workload=workload
    )
    assert run(told)[0].prompt
