"""Runs batches through the model's own `generate`, and learns the time of every step from what that documents."""

import copy
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from llem.engines.base import EncodedPrompt
from llem.engines.generation import Generation
from llem.engines.hf_steps import Step, StepRecorder
from llem.plan import DecodingPlan

NOT_FINITE = "the model's logits are not finite"


class BatchJob(NamedTuple):
    """One batch to generate: what comes out, and who is told."""

    generation: Generation
    steps: StepRecorder
    should_stop: Callable[[], bool]
    on_tokens: Callable[[int], None]

    def take(self, steps: Iterable[Step]) -> None:
        """Count the tokens of steps that are done."""
        for step in steps:
            self.on_tokens(self.generation.append(step.token_ids, at_ns=step.at_ns))


class StepWatch(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Asked by `generate` after every step: takes its tokens and time, and says which sequences have ended."""

    def __init__(self, job: BatchJob, *, prompt_width: int, device: torch.device) -> None:
        limits = [sequence.prompt.max_new_tokens for sequence in job.generation.sequences]
        self._job = job
        self._prompt_width = self._width = prompt_width
        self._shortest = min(limits)
        self._limits = torch.tensor(limits, device=device)
        self._none_done = torch.zeros(len(limits), dtype=torch.bool, device=device)
        self.stopped = False

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._job.steps.record(input_ids[:, self._width :])
        self._width = input_ids.shape[1]
        self._job.take(self._job.steps.completed())
        if self.stopped or self._job.should_stop():
            self.stopped = True
            return ~self._none_done
        return self._past_their_limit(self._width - self._prompt_width)

    def _past_their_limit(self, produced: int) -> Any:
        return self._none_done if produced < self._shortest else self._limits <= produced


class LogitsWatch(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Changes nothing: notices logits that are no numbers, without waiting for the device.

    A sum of the largest logits keeps a NaN or an infinity for ever. Single tokens may be ruled out with minus infinity.
    """

    def __init__(self) -> None:
        self._sum: Any = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        largest = scores.amax(dim=-1)
        self._sum = largest if self._sum is None else self._sum.add_(largest)
        return scores

    def broken_rows(self) -> list[int]:
        """The sequences whose logits were not finite at some step; waits for the device."""
        if self._sum is None:
            return []
        return [row for row, is_finite in enumerate(self._sum.isfinite().tolist()) if not is_finite]


def generate(model: Any, batch: Sequence[EncodedPrompt], job: BatchJob) -> None:
    """Fill the job's generation. A stop ends it early; a failure of the model is raised."""
    input_ids, attention_mask = left_padded(
        batch, padding_id=model.generation_config.pad_token_id, device=model.device
    )
    steps = StepWatch(job, prompt_width=input_ids.shape[1], device=model.device)
    logits = LogitsWatch()
    model.generate(
        input_ids,
        attention_mask=attention_mask,
        max_new_tokens=job.generation.max_steps,
        stopping_criteria=StoppingCriteriaList([steps]),
        logits_processor=LogitsProcessorList([logits]),
    )
    job.take(job.steps.rest())
    job.generation.fail([batch[row].request_id for row in logits.broken_rows()], error=NOT_FINITE)
    if steps.stopped:
        job.generation.end("stopped")


def apply_plan(model: Any, decoding: DecodingPlan) -> None:
    """Let `generate` of this model do what the plan says; what the plan leaves out stays as the model has it."""
    options = {
        "do_sample": decoding.sample,
        "temperature": decoding.temperature if decoding.sample else None,
        "top_k": decoding.top_k,
        "top_p": decoding.top_p,
    }
    config = copy.deepcopy(model.generation_config)
    config.update(**options)
    if decoding.ignore_eos:
        config.eos_token_id = None
    model.generation_config = config


def seed_everything(seed: int, *, batch_index: int) -> None:
    """Make the draws of a batch depend on the seed and the batch alone, not on what ran before."""
    torch.manual_seed(random.Random(f"{seed}:{batch_index}").getrandbits(32))


def left_padded(
    batch: Sequence[EncodedPrompt], *, padding_id: int | None, device: torch.device
) -> tuple[Any, Any]:
    """Ids and attention mask of a batch, as a decoder's `generate` takes them. What fills the left is masked out."""
    width = max(len(prompt.token_ids) for prompt in batch)
    padding = [width - len(prompt.token_ids) for prompt in batch]
    ids = [
        [padding_id or 0] * left + list(prompt.token_ids) for left, prompt in zip(padding, batch, strict=True)
    ]
    mask = [[0] * left + [1] * (width - left) for left in padding]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
