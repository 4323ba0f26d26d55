"""Runs batches through the model's own `generate`, and learns the time of every step from what that documents."""

import inspect
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation import BaseStreamer

from llem.engines.base import EncodedPrompt, Generation
from llem.units import NS_PER_MS

NOT_FINITE = "the model's logits are not finite"
TAKE_INTERVAL_NS = 200_000_000  # how often tokens that are there are counted while a batch runs: as often as progress is told


class Step(NamedTuple):
    """The tokens of one step: of each sequence one, or several where drafts were accepted."""

    at_ns: int
    token_ids: list[list[int]]


class StepRecorder(Protocol):
    """Takes the tokens of each step, sequences by tokens, and gives them back once they exist."""

    def record(self, token_ids: Any, *, since: int = 0) -> None:
        """Take a step; what it brought begins at column `since`, before it stands what earlier steps brought."""
        ...

    def completed(self) -> Iterator[Step]:
        """Steps that are done; waits for none."""
        ...

    def rest(self) -> Iterator[Step]:
        """All other steps, waiting for them."""
        ...


class HostSteps:
    """Steps on a device that computes when asked: a step is done when it is recorded.

    The tokens are read when they are asked for, those of many steps at once.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, int]] = []
        self._token_ids: Any = None

    def record(self, token_ids: Any, *, since: int = 0) -> None:
        self._steps.append((time.monotonic_ns(), since))
        self._token_ids = token_ids

    def completed(self) -> Iterator[Step]:
        steps, self._steps = self._steps, []
        if steps:
            since = [since for _, since in steps]
            rows = self._token_ids[:, since[0] :].tolist()
            for (at_ns, _), token_ids in zip(steps, _step_by_step(rows, since), strict=True):
                yield Step(at_ns, token_ids)

    rest = completed


class CudaCopy(NamedTuple):
    """The tokens of some steps on their way to the host: there once `arrived` has passed."""

    steps: list[tuple[Any, int]]
    on_host: Any
    arrived: Any


class CudaSteps:
    """Steps on a CUDA stream: each is followed by an event, those of many at once are copied to pinned memory.

    Every call of CUDA between two steps costs the model time, so a step has no more than its event. Event times are mapped to the
    host's clock through an anchor, an event awaited on the idle stream. Between anchor and event the two clocks drift by some tens
    of parts per million: about 1 ms in half a minute.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Any, int]] = []
        self._token_ids: Any = None
        self._copies: deque[CudaCopy] = deque()
        self._anchor = torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        self._anchor.record()
        self._anchor.synchronize()
        self._anchor_ns = time.monotonic_ns()

    def record(self, token_ids: Any, *, since: int = 0) -> None:
        done = torch.cuda.Event(enable_timing=True)
        done.record()
        self._steps.append((done, since))
        self._token_ids = token_ids

    def completed(self) -> Iterator[Step]:
        self._start_copy()
        while self._copies and self._copies[0].arrived.query():
            yield from self._taken(self._copies.popleft())

    def rest(self) -> Iterator[Step]:
        self._start_copy()
        while self._copies:
            self._copies[0].arrived.synchronize()
            yield from self._taken(self._copies.popleft())

    def _start_copy(self) -> None:
        steps, self._steps = self._steps, []
        if steps:
            new = self._token_ids[:, steps[0][1] :]
            on_host = torch.empty(new.shape, dtype=new.dtype, pin_memory=True)
            on_host.copy_(new, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._copies.append(CudaCopy(steps, on_host, arrived))

    def _taken(self, copy: CudaCopy) -> Iterator[Step]:
        tokens = _step_by_step(copy.on_host.tolist(), [since for _, since in copy.steps])
        for (done, _), token_ids in zip(copy.steps, tokens, strict=True):
            elapsed_ns = round(self._anchor.elapsed_time(done) * NS_PER_MS)
            # the anchor is read a little late
            yield Step(min(self._anchor_ns + elapsed_ns, time.monotonic_ns()), token_ids)


def _step_by_step(rows: list[list[int]], since: list[int]) -> Iterator[list[list[int]]]:
    """What each step brought, of the rows of all of them: the columns from where one began to where the next did."""
    ends = [begin - since[0] for begin in since[1:]] + [None]
    for begin, end in zip(since, ends, strict=True):
        yield [row[begin - since[0] : end] for row in rows]


def step_recorder(device: torch.device) -> StepRecorder:
    """The recorder for a device, made while nothing is queued on it."""
    return CudaSteps() if device.type == "cuda" else HostSteps()


class BatchJob(NamedTuple):
    """One batch to generate: what comes out, and who is told."""

    generation: Generation
    steps: StepRecorder
    should_stop: Callable[[], bool]
    on_tokens: Callable[[int], None]

    def take(self, steps: Iterable[Step]) -> None:
        """Count the tokens of steps that are done."""
        self.on_tokens(sum(self.generation.append(step.token_ids, at_ns=step.at_ns) for step in steps))


class StepWatch(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Asked by `generate` after every step: takes its tokens and time, and says which sequences have ended."""

    def __init__(self, job: BatchJob, *, prompt_width: int, device: torch.device) -> None:
        limits = [sequence.prompt.max_new_tokens for sequence in job.generation.sequences]
        self._job = job
        self._prompt_width = self._width = prompt_width
        self._shortest = min(limits)
        self._limits = torch.tensor(limits, device=device)
        self._none_done = torch.zeros(len(limits), dtype=torch.bool, device=device)
        self._taken_ns = time.monotonic_ns()
        self.stopped = False

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._record(input_ids)
        self._width = input_ids.shape[1]
        if self.stopped or self._job.should_stop():
            self.stopped = True
            return ~self._none_done
        return self._past_their_limit(self._width - self._prompt_width)

    def _record(self, input_ids: Any) -> None:
        """Keep the tokens; count them now and then, because whatever is done here at every step slows the model."""
        self._job.steps.record(input_ids, since=self._width)
        now_ns = time.monotonic_ns()
        if now_ns - self._taken_ns >= TAKE_INTERVAL_NS:
            self._taken_ns = now_ns
            self._job.take(self._job.steps.completed())

    def _past_their_limit(self, produced: int) -> Any:
        return self._none_done if produced < self._shortest else self._limits <= produced


class EndWatch(StepWatch):
    """Says which sequences have ended where what it is asked about is not certain: candidates of beams, and drafts."""

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        candidates = input_ids.shape[0] // len(self._limits)
        return super().__call__(input_ids, scores, **kwargs).repeat_interleave(candidates)

    def _record(self, input_ids: Any) -> None:
        """What belongs to the output is told otherwise."""


class AcceptedTokens(BaseStreamer):  # type: ignore[misc]  # transformers is untyped here
    """Given the tokens of each step that checked drafts: those that were accepted, and one more."""

    def __init__(self, job: BatchJob) -> None:
        self._job = job
        self._has_seen_prompt = False

    def put(self, value: Any) -> None:
        if self._has_seen_prompt:
            self._job.steps.record(value.reshape(1, -1))
            self._job.take(self._job.steps.completed())
        self._has_seen_prompt = True

    def end(self) -> None:
        """Nothing is held back."""


class LogitsWatch(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Changes nothing: counts logits, and notices those that are no numbers, without waiting for the device.

    A sum of the largest logits keeps a NaN or an infinity for ever. Single tokens may be ruled out with minus infinity.
    Each call of torch between two steps costs the model time: one for many logits, none for few, whose largest are taken later.
    """

    FEW_LOGITS = 2**12  # 16 KiB
    HELD_STEPS = 64

    def __init__(self) -> None:
        self._held: list[Any] = []
        self._sum: Any = None
        self.computed = 0
        # `generate` asks at every step what this takes: an answer that is ready costs a fifth of one found out each time
        self.__call__ = _takes_ids_and_scores  # type: ignore[method-assign]  # what is called is that of the class

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.computed += scores.shape[0]
        held = scores if scores.numel() <= self.FEW_LOGITS else scores.amax(dim=-1, keepdim=True)
        if self._held and (len(self._held) == self.HELD_STEPS or self._held[0].shape != held.shape):
            self._add_held()
        self._held.append(held)
        return scores

    def broken_rows(self) -> list[int]:
        """The rows whose logits were not finite at some step; waits for the device."""
        self._add_held()
        if self._sum is None:
            return []
        return [row for row, total in enumerate(self._sum.tolist()) if not math.isfinite(total)]

    def _add_held(self) -> None:
        if self._held:
            largest = torch.stack(self._held).amax(dim=-1).sum(dim=0)
            self._sum = largest if self._sum is None else self._sum.add_(largest)
        self._held = []


def _takes_ids_and_scores(input_ids: Any, scores: Any) -> None:
    """Only looked at."""


_takes_ids_and_scores.__signature__ = inspect.signature(_takes_ids_and_scores)  # type: ignore[attr-defined]  # of any function


class Generator:
    """A model's `generate` with the options of its generation configuration, and the model that drafts for it."""

    def __init__(self, model: Any, *, assistant: Any = None) -> None:
        self._model = model
        self._assistant = {} if assistant is None else {"assistant_model": assistant}
        self._beams: int = model.generation_config.num_beams or 1
        self._drafts = bool(assistant is not None or model.generation_config.prompt_lookup_num_tokens)

    def run(self, batch: Sequence[EncodedPrompt], job: BatchJob) -> int:
        """Fill the job's generation; return how many tokens were computed for each sequence, kept or not.

        A stop ends it early; a failure of the model is raised.
        """
        ids, mask = left_padded(batch, padding_id=self._padding_id, device=self._model.device)
        watch = EndWatch if self._beams > 1 or self._drafts else StepWatch
        steps = watch(job, prompt_width=ids.shape[1], device=self._model.device)
        logits = LogitsWatch()
        with self._forwards_counted() as forwards:
            output = self._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=job.generation.max_steps,
                stopping_criteria=StoppingCriteriaList([steps]),
                logits_processor=LogitsProcessorList([logits]),
                **({"streamer": AcceptedTokens(job)} if self._drafts else {}),
                **self._assistant,
            )
        if self._beams > 1:
            job.steps.record(output, since=ids.shape[1])
        job.take(job.steps.rest())
        broken = {batch[row // self._beams].request_id for row in logits.broken_rows()}
        job.generation.fail(broken, error=NOT_FINITE)
        if steps.stopped:
            job.generation.end("stopped")
        return (forwards[0] if self._drafts else logits.computed) // len(batch)

    def try_out(self, token_ids: Sequence[int]) -> str:
        """Generate two tokens; return the kind of cache that was kept, "none" for none. What the model raises is raised."""
        ids = torch.tensor([list(token_ids)], device=self._model.device)
        mask = torch.ones_like(ids)
        output = self._model.generate(
            ids, attention_mask=mask, max_new_tokens=2, return_dict_in_generate=True, **self._assistant
        )
        # the field was renamed in transformers 5.24
        cache = next(
            (kept for name in ("cache", "past_key_values") if (kept := output.get(name)) is not None), None
        )
        if cache is not None:
            return type(cache).__name__
        return "recurrent state" if getattr(self._model, "_is_stateful", False) else "none"

    @property
    def _padding_id(self) -> int:
        padding_id = self._model.generation_config.pad_token_id
        return 0 if padding_id is None else padding_id

    @contextmanager
    def _forwards_counted(self) -> Iterator[list[int]]:
        """Tokens whose logits the model computed. Only where drafts are checked: there each has no call of its own."""
        counted = [0]

        def count(module: Any, arguments: Any, output: Any) -> None:
            rows, positions = output.logits.shape[:2]
            counted[0] += rows * positions

        if not self._drafts:
            yield counted
            return
        handle = self._model.register_forward_hook(count)
        try:
            yield counted
        finally:
            handle.remove()


def seed_everything(seed: int, *, batch_index: int) -> None:
    """Make the draws of a batch depend on the seed and the batch alone, not on what ran before."""
    drawn = random.Random(f"{seed}:{batch_index}").getrandbits(32)
    if torch.cuda.is_initialized():
        torch.manual_seed(drawn)
    else:
        # the same draws; torch.manual_seed would queue a call for each GPU that may be used one day, with its stack
        torch.default_generator.manual_seed(drawn)


def left_padded(batch: Sequence[EncodedPrompt], *, padding_id: int, device: torch.device) -> tuple[Any, Any]:
    """Ids and attention mask of a batch, as a decoder's `generate` takes them. What fills the left is masked out."""
    width = max(len(prompt.token_ids) for prompt in batch)
    padding = [width - len(prompt.token_ids) for prompt in batch]
    ids = [[padding_id] * left + list(prompt.token_ids) for left, prompt in zip(padding, batch, strict=True)]
    mask = [[0] * left + [1] * (width - left) for left in padding]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
