"""The measured work of one process: its share of the prompts as tokens, batch after batch, for as long as the plan says."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Literal

import msgspec

from llem.engines import EncodedPrompt, Engine
from llem.errors import EngineError
from llem.measure.messages import ReportProgress
from llem.plan import WorkloadPlan
from llem.prompts import Prompt, batches
from llem_events import BackgroundWriter
from llem_events.events import Request, WarningRaised
from llem_events.request_events import requests_completed

TooLong = Literal["fail", "skip", "truncate"]
PROGRESS_INTERVAL_NS = 200_000_000
Sleep = Callable[[float], None]


class Totals:
    """What the measurement has produced so far."""

    def __init__(self) -> None:
        self.requests = self.failed_requests = self.input_tokens = self.output_tokens = self.batches = 0
        self.failed_batches = 0  # in a row, up to now
        self.last_error: str | None = None

    def add(self, requests: Sequence[Request], *, tried: bool) -> None:
        """Count the requests of one batch; one that the model was never asked for says nothing about the model."""
        self.batches += 1
        self.requests += len(requests)
        failed = [request for request in requests if request.finish_reason == "error"]
        self.failed_requests += len(failed)
        if tried:
            self.failed_batches = self.failed_batches + 1 if len(failed) == len(requests) else 0
        self.last_error = failed[-1].error if failed else self.last_error
        self.input_tokens += sum(request.input_tokens for request in requests)
        self.output_tokens += sum(request.output_tokens for request in requests)


class Progress:
    """Tells the supervisor of new tokens, a few times a second."""

    def __init__(self, tell: Callable[[ReportProgress], None]) -> None:
        self._tell = tell
        self._started_ns = self._told_ns = time.monotonic_ns()
        self._tokens = self.requests = self.input_tokens = 0

    def count(self, tokens: int) -> None:
        """Count new output tokens; called at every token step, so it must cost nothing."""
        self._tokens += tokens
        now_ns = time.monotonic_ns()
        if now_ns - self._told_ns >= PROGRESS_INTERVAL_NS:
            self._told_ns = now_ns
            elapsed_s = (now_ns - self._started_ns) / 1e9
            self._tell(
                ReportProgress(
                    input_tokens=self.input_tokens,
                    output_tokens=self._tokens,
                    requests=self.requests,
                    elapsed_s=elapsed_s,
                )
            )


class BatchRunner:
    """Runs one batch after another and writes what came of it; `stride` keeps the ids of repeated prompts apart."""

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[EncodedPrompt],
        log: BackgroundWriter | None,
        *,
        batch_size: int,
        stride: int,
        agree: Callable[[bool], bool] | None = None,
    ) -> None:
        """`agree`: of a group that runs one model, whose rank 0 says after every batch whether all go on. Without a log nothing is written."""
        self._agree = agree
        self._engine, self._log = engine, log
        self._usable = [prompt for prompt in prompts if prompt.refusal is None]
        self._refused = [prompt for prompt in prompts if prompt.refusal is not None]
        self._batch_size, self._stride = batch_size, stride
        self._numbers = itertools.count()

    def warmup_batches(self, should_stop: Callable[[], bool]) -> Iterator[list[Request]]:
        """Endless batches whose requests are marked as warm-up."""
        for batch in self._batches():
            if batch[0].refusal is None:
                yield self._run(batch, "warmup", should_stop, _ignore)

    def measure(
        self, plan: WorkloadPlan, *, should_stop: Callable[[], bool], progress: Progress, pause: Sleep
    ) -> Totals:
        """Every prompt once, then again until `min_duration_s` has passed; stops at a batch's end, or when asked to.

        A model that fails for good fails fast: without an end it would fill the log with errors. Where the plan says so, a
        random pause follows each batch but the last.
        """
        pauses = Random(plan.seed)
        totals = Totals()
        started = time.monotonic()
        for batch in self._batches():
            totals.add(
                self._run(batch, "measurement", should_stop, progress.count),
                tried=batch[0].refusal is None,
            )
            progress.requests, progress.input_tokens = totals.requests, totals.input_tokens
            elapsed_s = time.monotonic() - started
            whole_set = totals.requests >= len(self._usable) + len(self._refused)
            pointless = totals.failed_requests == totals.requests
            done = whole_set and (pointless or elapsed_s >= plan.min_duration_s)
            done |= totals.failed_batches >= plan.max_failed_batches
            done |= should_stop() or elapsed_s >= (plan.max_duration_s or float("inf"))
            if done if self._agree is None else not self._agree(not done):
                return totals
            if plan.shift_pauses_s:
                pause(pauses.uniform(0.0, plan.shift_pauses_s))
        return totals

    def _batches(self) -> Iterator[list[EncodedPrompt]]:
        """Batches of the prompts, over and over; a repeated prompt gets a request id of its own.

        Prompts that were refused come last in each round, in batches of their own.
        """
        for repeat in itertools.count():
            for batch in [
                *batches(self._usable, self._batch_size),
                *batches(self._refused, self._batch_size),
            ]:
                yield [
                    msgspec.structs.replace(prompt, request_id=prompt.request_id + repeat * self._stride)
                    for prompt in batch
                ]

    def _run(
        self,
        batch: Sequence[EncodedPrompt],
        window: Literal["warmup", "measurement"],
        should_stop: Callable[[], bool],
        on_tokens: Callable[[int], None],
    ) -> list[Request]:
        batch_index, arrival_ns = next(self._numbers), time.monotonic_ns()
        if batch[0].refusal is not None:
            requests = refused_requests(batch, batch_index=batch_index, at_ns=arrival_ns)
        else:
            requests = self._engine.run(
                batch,
                batch_index=batch_index,
                arrival_ns=arrival_ns,
                # within a batch none of a group may leave the others waiting for it
                should_stop=should_stop if self._agree is None else _never,
                on_tokens=on_tokens,
            )
        if self._log is not None:
            for event in requests_completed(requests, window=window):
                self._log.append(event, at_ns=time.monotonic_ns())
        return requests


def _never() -> bool:
    return False


def _ignore(tokens: int) -> None:
    """Tokens of the warm-up are not progress."""


def encode(
    engine: Engine, prompts: Sequence[Prompt], *, too_long: TooLong
) -> tuple[list[EncodedPrompt], list[WarningRaised]]:
    """The prompts to ask, and what to say of the others. Raises EngineError where no prompt is left that can be asked."""
    encoded = engine.encode(prompts)
    asked = [prompt for prompt in encoded if not (too_long == "skip" and prompt.is_too_long)]
    if not any(prompt.refusal is None for prompt in asked):
        raise EngineError(f"none of {len(encoded)} prompts can be asked: {_first_refusal(encoded)}")
    return asked, _warnings(encoded, asked)


def refused_requests(prompts: Sequence[EncodedPrompt], *, batch_index: int, at_ns: int) -> list[Request]:
    """The failed requests of prompts that never reached the engine."""
    return [
        Request(
            request_id=prompt.request_id,
            batch_index=batch_index,
            batch_size=len(prompts),
            arrival_ns=at_ns,
            start_ns=at_ns,
            end_ns=at_ns,
            input_tokens=0,
            output_tokens=0,
            finish_reason="error",
            error=prompt.refusal,
        )
        for prompt in prompts
    ]


def _first_refusal(encoded: Sequence[EncodedPrompt]) -> str | None:
    return next((prompt.refusal for prompt in encoded if prompt.refusal is not None), None)


def _warnings(encoded: Sequence[EncodedPrompt], asked: Sequence[EncodedPrompt]) -> list[WarningRaised]:
    left_out = len(encoded) - len(asked)
    shortened = sum(prompt.is_too_long and prompt.refusal is None for prompt in asked)
    refused = [prompt for prompt in asked if prompt.refusal is not None]
    warnings = []
    if left_out:
        text = f"{left_out} of {len(encoded)} prompts are too long for the model and were left out"
        warnings.append(WarningRaised(code="prompts_left_out", text=text, value=float(left_out)))
    if shortened:
        text = f"{shortened} of {len(encoded)} prompts are too long for the model and lost their beginning"
        warnings.append(WarningRaised(code="prompts_truncated", text=text, value=float(shortened)))
    if refused:
        text = (
            f"{len(refused)} of {len(encoded)} prompts cannot be asked and fail, "
            f"the first is request {refused[0].request_id}: {refused[0].refusal}"
        )
        warnings.append(WarningRaised(code="prompts_refused", text=text, value=float(len(refused))))
    return warnings
