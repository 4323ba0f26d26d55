"""The decoding loop: one prefill, then one step per token with the key-value cache, until every sequence has ended."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch

from llem.engines.base import EncodedPrompt
from llem.engines.generation import Generation
from llem.engines.hf_sampling import Chooser
from llem.engines.hf_steps import Step, StepRecorder
from llem.errors import EngineError

PAD_ID = 0  # masked out, so any id of the vocabulary does


class BatchInputs:
    """Inputs of one batch, step by step: left-padded, with mask and positions only where there is padding.

    Without padding the model needs neither, and transformers then skips a check of the mask that would wait for the
    GPU at every step.
    """

    def __init__(self, batch: Sequence[EncodedPrompt], device: torch.device) -> None:
        lengths = [len(prompt.token_ids) for prompt in batch]
        self._width = max(lengths)
        rows = [[PAD_ID] * (self._width - len(prompt.token_ids)) + list(prompt.token_ids) for prompt in batch]
        self._rows = torch.tensor(rows, device=device)
        self._mask = self._positions = None
        if min(lengths) < self._width:
            padding = self._width - torch.tensor(lengths, device=device)[:, None]
            columns = torch.arange(
                self._width + max(prompt.max_new_tokens for prompt in batch), device=device
            )
            self._mask = (columns >= padding).long()
            self._positions = (columns[: self._width] - padding).clamp(min=0)

    def prefill(self) -> dict[str, Any]:
        """Arguments of the first forward pass."""
        return self._arguments(self._rows)

    def step(self, token_ids: Any) -> dict[str, Any]:
        """Arguments of the next forward pass, one token per sequence."""
        self._width += 1
        if self._positions is not None:
            self._positions = self._positions[:, -1:] + 1
        return self._arguments(token_ids[:, None])

    def _arguments(self, input_ids: Any) -> dict[str, Any]:
        if self._mask is None:
            return {"input_ids": input_ids}
        mask = self._mask[:, : self._width]
        return {"input_ids": input_ids, "attention_mask": mask, "position_ids": self._positions}


class BatchJob(NamedTuple):
    """One batch to decode: what goes in, what comes out, and who is told."""

    generation: Generation
    inputs: BatchInputs
    choose: Chooser
    steps: StepRecorder
    should_stop: Callable[[], bool]
    on_tokens: Callable[[int], None]

    def take(self, steps: Iterable[Step]) -> None:
        """Count the tokens of steps that are done."""
        for step in steps:
            self.on_tokens(self.generation.append(step.token_ids, at_ns=step.at_ns))


class Decoder:
    """Runs batches through one model. Raises EngineError for a model that has no key-value cache."""

    def __init__(self, model: Any) -> None:
        accepted = inspect.signature(model.forward).parameters
        if "past_key_values" not in accepted:
            raise EngineError(
                "the model keeps no key-value cache", found=type(model).__name__, expected="a transformer"
            )
        self._model = model
        self._accepts_positions = "position_ids" in accepted
        self._last_logits_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def run(self, job: BatchJob) -> None:
        """Fill the job's generation. A stop ends it early; a failure of the model is raised."""
        with torch.inference_mode():
            stopped = self._loop(job)
        job.take(job.steps.rest())
        if stopped:
            job.generation.end("stopped")

    def _loop(self, job: BatchJob) -> bool:
        """Queue steps until the batch has ended (False) or is to stop (True)."""
        arguments, cache = job.inputs.prefill(), None
        for _ in range(job.generation.max_steps):
            logits, cache = self._forward(arguments, cache)
            token_ids = job.choose(logits)
            job.steps.record(token_ids)
            job.take(job.steps.completed())
            if job.generation.finished:
                return False
            if job.should_stop():
                return True
            arguments = job.inputs.step(token_ids)
        return False

    def _forward(self, arguments: dict[str, Any], cache: Any) -> tuple[Any, Any]:
        """Logits of the last position, and the cache."""
        if not self._accepts_positions:
            arguments.pop("position_ids", None)
        output = self._model(**arguments, past_key_values=cache, use_cache=True, **self._last_logits_only)
        return output.logits[:, -1], output.past_key_values
