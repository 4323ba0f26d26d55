"""The decoding loop: one prefill, then one step per token with the key-value cache, until every sequence has ended."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from llem.engines.base import EncodedPrompt
from llem.engines.generation import Generation
from llem.engines.hf_sampling import Chooser
from llem.engines.hf_steps import StepRecorder

PAD_ID = 0  # masked out, so any id of the vocabulary does


class BatchInputs:
    """Inputs of one batch, step by step: left-padded, with mask and positions only where there is padding.

    Without padding the model needs neither, and transformers then skips a check of the mask that would wait for the
    GPU at every step.
    """

    def __init__(self, batch: Sequence[EncodedPrompt], device: torch.device) -> None:
        lengths = [len(prompt.token_ids) for prompt in batch]
        self._width = max(lengths)
        self._device = device
        self._rows = [[PAD_ID] * (self._width - len(p.token_ids)) + list(p.token_ids) for p in batch]
        self._padded = min(lengths) < self._width
        if self._padded:
            self._prepare_mask(lengths, steps=max(prompt.max_new_tokens for prompt in batch))

    def prefill(self) -> dict[str, Any]:
        """Arguments of the first forward pass."""
        return {
            "input_ids": torch.tensor(self._rows, device=self._device),
            **self._padding(self._width, self._positions),
        }

    def step(self, token_ids: Any) -> dict[str, Any]:
        """Arguments of the next forward pass, one token per sequence."""
        self._width += 1
        positions = self._positions[:, -1:] if self._padded else None
        self._positions = positions + 1 if positions is not None else None
        return {"input_ids": token_ids[:, None], **self._padding(self._width, self._positions)}

    _positions: Any = None
    _mask: Any = None

    def _prepare_mask(self, lengths: Sequence[int], *, steps: int) -> None:
        padding = torch.tensor([self._width - length for length in lengths], device=self._device)[:, None]
        columns = torch.arange(self._width + steps, device=self._device)[None, :]
        self._mask = (columns >= padding).long()
        self._positions = (columns[:, : self._width] - padding).clamp(min=0)

    def _padding(self, width: int, positions: Any) -> dict[str, Any]:
        return {"attention_mask": self._mask[:, :width], "position_ids": positions} if self._padded else {}


class Decoder:
    """Runs batches through one model."""

    def __init__(self, model: Any) -> None:
        accepted = inspect.signature(model.forward).parameters
        self._model = model
        self._accepts_positions = "position_ids" in accepted
        self._last_logits_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def run(
        self,
        generation: Generation,
        inputs: BatchInputs,
        *,
        choose: Chooser,
        steps: StepRecorder,
        should_stop: Callable[[], bool],
        on_tokens: Callable[[int], None],
    ) -> None:
        """Fill `generation`. A stop ends it early; a failure of the model is raised."""
        with torch.inference_mode():
            stopped = self._loop(generation, inputs, choose, steps, should_stop, on_tokens)
        for step in steps.rest():
            on_tokens(generation.append(step.token_ids, at_ns=step.at_ns))
        if stopped:
            generation.end("stopped")

    def _loop(
        self,
        generation: Generation,
        inputs: BatchInputs,
        choose: Chooser,
        steps: StepRecorder,
        should_stop: Callable[[], bool],
        on_tokens: Callable[[int], None],
    ) -> bool:
        """Queue steps until the batch has ended (False) or is to stop (True)."""
        arguments, cache = inputs.prefill(), None
        for _ in range(generation.max_steps):
            logits, cache = self._forward(arguments, cache)
            token_ids = choose(logits)
            steps.record(token_ids)
            for step in steps.completed():
                on_tokens(generation.append(step.token_ids, at_ns=step.at_ns))
            if generation.finished:
                return False
            if should_stop():
                return True
            arguments = inputs.step(token_ids)
        return False

    def _forward(self, arguments: dict[str, Any], cache: Any) -> tuple[Any, Any]:
        """Logits of the last position, and the cache."""
        if not self._accepts_positions:
            arguments.pop("position_ids", None)
        output = self._model(**arguments, past_key_values=cache, use_cache=True, **self._last_logits_only)
        return output.logits[:, -1], output.past_key_values
