"""Times to the first token and between tokens are those of an independent stopwatch, to within a millisecond."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from llem.engines import create_engine
from llem.engines.base import Engine, Prompt
from llem.plan import Plan
from llem.plan_file import resolve_plan
from llem.results import LatencyMeasurements
from llem_events.events import Request
from tests.conftest import SIMULATED, Run, events_of
from tests.delays import best_of_rounds, delays

PREFILL_MS, TOKEN_MS, TOKENS = 30.0, 8.0, 20
LIMIT_MS = 1.0


def plan(**options: object) -> Plan:
    return resolve_plan(None, options=options)


def run(engine: Engine, *, batch: int = 3) -> tuple[list[Request], list[int]]:
    """A batch's requests, and when each of its steps was told, by our own clock."""
    told_ns: list[int] = []
    prompts = [
        Prompt(request_id=row, input_tokens=8 + row, max_new_tokens=TOKENS, seed=row) for row in range(batch)
    ]
    requests = engine.run(
        engine.encode(prompts),
        batch_index=0,
        arrival_ns=time.monotonic_ns(),
        should_stop=lambda: False,
        on_tokens=lambda count: told_ns.append(time.monotonic_ns()),
    )
    return requests, told_ns


def latencies_of(requests: list[Request]) -> LatencyMeasurements:
    """As the results have them."""
    return LatencyMeasurements.from_columns(
        arrival_ns=[request.arrival_ns for request in requests],
        first_token_ns=[request.first_token_ns for request in requests],
        end_ns=[request.end_ns for request in requests],
        token_times_ns=[request.token_times_ns for request in requests],
        output_tokens=sum(request.output_tokens for request in requests),
    )


def lateness_ms(engine: Engine) -> float:
    """How late the steps of a batch are told at best; never before their time."""
    requests, told_ns = run(engine)
    measured = latencies_of(requests)
    assert measured.itl_full_ms == pytest.approx([TOKEN_MS] * 3 * (TOKENS - 1), abs=1e-6)
    assert all(request.token_times_ns == requests[0].token_times_ns for request in requests)
    lateness_ns = [told - at for told, at in zip(told_ns, requests[0].token_times_ns, strict=True)]
    assert min(lateness_ns) >= 0
    return min(lateness_ns) / 1e6


def typical_ms(differences_ns: list[int]) -> float:
    """The median: a busy machine wakes a sleeper late now and then, which is no fault of the clock."""
    return statistics.median(map(abs, differences_ns)) / 1e6


@best_of_rounds
def test_known_delays_come_back() -> None:
    """A simulated engine's 30 ms of prefill and 8 ms a token are what its requests and latencies say."""
    engine = create_engine(
        plan(
            **{
                "engine.name": "simulated",
                "engine.simulated.prefill_ms": PREFILL_MS,
                "engine.simulated.token_ms": TOKEN_MS,
            }
        ),
        device="cpu",
    )
    engine.load()
    waits_ms = [latencies_of(run(engine)[0]).ttft_ms[0] for _ in range(5)]
    late_ms = [lateness_ms(engine) for _ in range(5)]
    with delays():
        assert min(waits_ms) == pytest.approx(PREFILL_MS, abs=LIMIT_MS)
        assert min(late_ms) < LIMIT_MS


@pytest.mark.slow
@best_of_rounds
def test_known_delays_come_back_from_a_whole_run(llem: Run, store: Any) -> None:
    """The same delays through worker, log and tables."""
    options = {
        "engine.simulated.prefill_ms": PREFILL_MS,
        "engine.simulated.token_ms": TOKEN_MS,
        "workload.output_tokens.mean": TOKENS,
        "workload.min_duration_s": 0,
        "windows.baseline_s": 0,
        "windows.baseline_after_s": 0,
    }
    done = llem("measure", *SIMULATED, *(f"--set={key}={value}" for key, value in options.items()))
    assert done.returncode == 0, done.stderr
    batches = [
        body for body in events_of(store, "worker", "requests_completed") if body["window"] == "measurement"
    ]
    requests = [request for body in batches for request in body["requests"]]
    waits_ms = [(request["first_token_ns"] - request["arrival_ns"]) / 1e6 for request in requests]
    gaps_ms = [
        (later - earlier) / 1e6
        for request in requests
        for earlier, later in pairwise(request["token_times_ns"])
    ]
    assert len(gaps_ms) == len(requests) * (TOKENS - 1)
    with delays():
        assert statistics.median(waits_ms) == pytest.approx(PREFILL_MS, abs=LIMIT_MS)
    assert gaps_ms == pytest.approx([TOKEN_MS] * len(gaps_ms), abs=1e-6)


@contextmanager
def stopwatch(class_name: str, *, delay_s: float) -> Iterator[list[int]]:
    """Slows every forward pass of a model down, and notes when it is done: torch's own hook, nothing of llem."""
    module = pytest.importorskip("torch.nn.modules.module")
    ended_ns: list[int] = []

    def ended(model: Any, arguments: Any, output: Any) -> None:
        if type(model).__name__ == class_name:
            time.sleep(delay_s)
            ended_ns.append(time.monotonic_ns())

    handle = module.register_module_forward_hook(ended)
    try:
        yield ended_ns
    finally:
        handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize("delay_ms", [0.0, 10.0])
@best_of_rounds
def test_a_real_models_token_times_are_the_stopwatchs(delay_ms: float) -> None:
    """Every token of the transformers engine comes when its forward pass ends, with and without a known delay."""
    pytest.importorskip("transformers")
    engine = create_engine(
        plan(**{"model.name": "tiny-llama", "engine.device": "cpu", "generation.ignore_eos": True}),
        device="cpu",
    )
    engine.load()
    run(engine)
    with stopwatch("LlamaForCausalLM", delay_s=delay_ms / 1000) as ended_ns:
        requests, _ = run(engine)
    engine.close()
    assert len(ended_ns) == TOKENS
    measured = latencies_of(requests)
    for row, request in enumerate(requests):
        apart_ns = [at - ended for at, ended in zip(request.token_times_ns, ended_ns, strict=True)]
        assert min(apart_ns) >= 0
        with delays():
            assert typical_ms(apart_ns) < LIMIT_MS
        true_ttft_ms = (ended_ns[0] - request.arrival_ns) / 1e6
        assert measured.ttft_ms[row] - true_ttft_ms == pytest.approx(apart_ns[0] / 1e6)
        intervals = zip(pairwise(request.token_times_ns), pairwise(ended_ns), strict=True)
        with delays():
            assert typical_ms([(b - a) - (d - c) for (a, b), (c, d) in intervals]) < LIMIT_MS
    with delays():
        assert min(measured.itl_full_ms) >= delay_ms - LIMIT_MS
