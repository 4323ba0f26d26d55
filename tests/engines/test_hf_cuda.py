"""Token times and counts on a real GPU; skipped where there is none."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from llem.engines import Engine, Prompt, create_engine
from llem.plan import Plan
from llem_events.events import Request

pytestmark = pytest.mark.torch
MakePlan = Callable[..., Plan]
TOKENS = 40


@pytest.fixture(autouse=True)
def cuda() -> None:
    """Asked for when a test runs: who only collects tests does not load torch."""
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("no CUDA device")


def load(plan: Plan) -> Engine:
    engine = create_engine(plan, device="cuda:0")
    engine.load()
    return engine


def run(engine: Engine, *, tokens: int = TOKENS, rows: int = 3, **options: Any) -> list[Request]:
    prompts = [
        Prompt(request_id=row, input_tokens=8 + row, max_new_tokens=tokens, seed=row) for row in range(rows)
    ]
    return engine.run(
        engine.encode(prompts),
        batch_index=0,
        arrival_ns=time.monotonic_ns(),
        should_stop=options.get("should_stop", lambda: False),
        on_tokens=lambda count: None,
    )


def test_event_times_lie_on_the_hosts_clock(make_plan: MakePlan) -> None:
    """Every token's time lies inside the call, in order, and the last within 5 ms of the call's end."""
    engine = load(make_plan())
    run(engine)
    before_ns = time.monotonic_ns()
    requests = run(engine)
    after_ns = time.monotonic_ns()
    for request in requests:
        times = [before_ns, request.start_ns, *request.token_times_ns, request.end_ns, after_ns]
        assert all(a <= b for a, b in itertools.pairwise(times))
        assert request.output_tokens == TOKENS
        assert after_ns - request.end_ns < 5_000_000


def test_stop_ends_the_batch_at_its_step(make_plan: MakePlan) -> None:
    """A stop ends the batch at the step at which it was asked, with all that was computed."""
    asked = itertools.count(1)
    requests = run(load(make_plan()), should_stop=lambda: next(asked) == 6)
    assert {(request.output_tokens, request.finish_reason) for request in requests} == {(6, "stopped")}


def test_batches_repeat_themselves(make_plan: MakePlan) -> None:
    """Greedy decoding of one batch gives the same text twice."""
    plan = make_plan(workload={"record_text": True})
    engine = load(plan)
    assert [r.output for r in run(engine)] == [r.output for r in run(engine)]


def test_peak_memory_holds_the_weights(make_plan: MakePlan) -> None:
    """The allocator's peak is at least the weights' size."""
    engine = create_engine(make_plan(), device="cuda:0")
    facts = engine.load()
    run(engine)
    assert (engine.peak_memory_bytes() or 0) >= (facts.weights_bytes or 0) > 0
    engine.close()


def test_beams_and_drafts_are_chunks_with_times(make_plan: MakePlan) -> None:
    """What beams and drafts bring is timed on the host's clock too, in order and inside the call."""
    for options, batch_size in (
        ({"num_beams": 2}, 3),
        ({"prompt_lookup_num_tokens": 3, "eos_token_id": 255}, 1),
    ):
        engine = load(make_plan(engine={"batch_size": batch_size}, generation=options))
        before_ns = time.monotonic_ns()
        for request in run(engine, rows=batch_size):
            times = [
                before_ns,
                request.start_ns,
                *request.chunk_times_ns,
                *request.token_times_ns,
                time.monotonic_ns(),
            ]
            assert times == sorted(times)
            assert (
                len(request.token_times_ns) == TOKENS or sum(n or 0 for n in request.chunk_tokens) == TOKENS
            )
