"""An engine without a model: given token counts at given times, so that everything around an engine can be tried."""

import random
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from llem.engines.base import EncodedPrompt, Generation, Prompt, requests_of
from llem.errors import EngineError, PlanError
from llem.plan import OwnGenerationPlan, Plan
from llem.prompts import drawn_ids, prompt_text
from llem.units import NS_PER_MS, NS_PER_S
from llem_events.events import ModelLoaded, Request


class SimulatedEngine:
    """Token times are the absolute deadlines of the plan's delays, waited for and never early."""

    NAME: ClassVar[str] = "simulated"

    def __init__(self, plan: Plan) -> None:
        self._plan = plan.engine.simulated
        self._seed = plan.own_generation.seed
        self._record_text = plan.workload.record_text
        self._batches_run = 0

    def load(self) -> ModelLoaded:
        load_time_ns = round(self._plan.load_ms * NS_PER_MS)
        time.sleep(load_time_ns / NS_PER_S)
        return ModelLoaded(
            model_name="simulated",
            weights="simulated",
            source="simulated",
            tokenizer="bytes",
            load_time_ns=load_time_ns,
        )

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        return [_encode(prompt) for prompt in prompts]

    def run(
        self,
        batch: Sequence[EncodedPrompt],
        *,
        batch_index: int,
        arrival_ns: int,
        should_stop: Callable[[], bool],
        on_tokens: Callable[[int], None],
    ) -> list[Request]:
        self._crash_if_due()
        rng = random.Random(f"{self._seed}:{batch_index}")
        generation = Generation(batch)
        start_ns = time.monotonic_ns()
        token_ns = start_ns + self._delay_ns(self._plan.prefill_ms, rng)
        _wait_until(token_ns)
        self._fail_as_planned(batch, generation)
        while not generation.finished:
            on_tokens(generation.append([[0]] * len(batch), at_ns=token_ns))
            if should_stop():
                generation.end("stopped")
                break
            if not generation.finished:
                token_ns += self._delay_ns(self._plan.token_ms, rng)
                _wait_until(token_ns)
        return requests_of(
            generation,
            batch_index=batch_index,
            arrival_ns=arrival_ns,
            start_ns=start_ns,
            end_ns=token_ns,
            to_text=_text if self._record_text else None,
        )

    def synchronize(self) -> None:
        """Nothing is ever queued."""

    def peak_memory_bytes(self) -> int | None:
        return None

    def versions(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        """Nothing to free."""

    def _delay_ns(self, delay_ms: float, rng: random.Random) -> int:
        return round(delay_ms * NS_PER_MS * rng.uniform(1 - self._plan.jitter, 1 + self._plan.jitter))

    def _fail_as_planned(self, batch: Sequence[EncodedPrompt], generation: Generation) -> None:
        generation.fail(self._plan.fail_requests, error="failed as engine.simulated.fail_requests asks")
        if self._plan.fail_after_batches is not None and self._batches_run > self._plan.fail_after_batches:
            error = "failed as engine.simulated.fail_after_batches asks"
            generation.fail([prompt.request_id for prompt in batch], error=error)

    def _crash_if_due(self) -> None:
        if self._batches_run == self._plan.crash_after_batches:
            raise EngineError(
                f"crashed after {self._batches_run} batches as engine.simulated.crash_after_batches asks"
            )
        self._batches_run += 1


def create(plan: Plan, *, device: str | None) -> SimulatedEngine:
    """The simulated engine; it needs no device."""
    return SimulatedEngine(plan)


def check(plan: Plan) -> None:
    """Raises PlanError for options of a model, which there is none."""
    own = ", ".join(OwnGenerationPlan.__struct_fields__)
    for section, keys in (("generation", plan.generate_options), ("model.load", plan.model.load)):
        for key in keys:
            raise PlanError(
                f"plan key {section}.{key}",
                found="the simulated engine, which generates nothing",
                expected=f"{own}, or another engine",
            )


def _encode(prompt: Prompt) -> EncodedPrompt:
    text = prompt_text(prompt)
    token_ids = (drawn_ids(prompt, range(256)) or [0]) if text is None else text.encode()
    return EncodedPrompt(
        request_id=prompt.request_id,
        max_new_tokens=prompt.max_new_tokens,
        token_ids=tuple(token_ids),
        text=text,
    )


def _text(token_ids: Sequence[int]) -> str:
    return bytes(token_ids).decode(errors="replace")


def _wait_until(deadline_ns: int) -> None:
    while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
        time.sleep(left_ns / NS_PER_S)
