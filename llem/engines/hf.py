"""The transformers engine: any Hugging Face causal language model, by path, hub name, preset or configuration."""

import gc
import resource
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from transformers.utils import logging as transformers_logging

from llem.engines.base import EncodedPrompt, Prompt
from llem.engines.generation import Generation, requests_of
from llem.engines.hf_decode import BatchInputs, Decoder
from llem.engines.hf_errors import RUNNING_ERRORS, first_line, is_fatal
from llem.engines.hf_facts import model_facts
from llem.engines.hf_load import choose_device, load_model
from llem.engines.hf_sampling import chooser
from llem.engines.hf_steps import step_recorder
from llem.engines.hf_tokens import PromptEncoder, Tokens, load_tokens
from llem.engines.sources import find_model
from llem.errors import EngineError
from llem.plan import Plan
from llem_events.events import ModelLoaded, Request

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub")


class TransformersEngine:
    """Runs batches with its own decoding loop, so that every token has its time."""

    NAME: ClassVar[str] = "transformers"

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._device = device
        self._source = find_model(plan.model)
        self._model: Any = None
        self._tokens: Tokens | None = None

    def load(self) -> ModelLoaded:
        start_ns = time.monotonic_ns()
        self._model = load_model(self._source, self._plan.model, self._device)
        vocabulary_size = self._model.config.get_text_config(decoder=True).vocab_size
        self._tokens = load_tokens(self._source, vocabulary_size=vocabulary_size)
        self._decoder = Decoder(self._model)
        self._eos_ids = end_of_sequence_ids(self._model)
        self._encoder = self._prompt_encoder(self._tokens, vocabulary_size)
        self.synchronize()
        load_time_ns = time.monotonic_ns() - start_ns
        return model_facts(self._model, self._source, tokenizer=self._tokens.name, load_time_ns=load_time_ns)

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        return [self._encoder.encode(prompt) for prompt in prompts]

    def run(
        self,
        batch: Sequence[EncodedPrompt],
        *,
        batch_index: int,
        arrival_ns: int,
        should_stop: Callable[[], bool],
        on_tokens: Callable[[int], None],
    ) -> list[Request]:
        generation = Generation(
            batch, eos_ids=frozenset() if self._plan.decoding.ignore_eos else self._eos_ids
        )
        start_ns = time.monotonic_ns()
        try:
            self._decoder.run(
                generation,
                BatchInputs(batch, self._device),
                choose=chooser(self._plan.decoding, self._device, batch_index=batch_index),
                steps=step_recorder(self._device),
                should_stop=should_stop,
                on_tokens=on_tokens,
            )
        except RUNNING_ERRORS as error:
            self._fail(generation, error)
        return requests_of(
            generation,
            batch_index=batch_index,
            arrival_ns=arrival_ns,
            start_ns=start_ns,
            end_ns=time.monotonic_ns(),
            to_text=self._to_text,
        )

    def synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def peak_memory_bytes(self) -> int | None:
        """On a GPU what torch's allocator held at most; on the CPU the whole process' peak resident memory."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in _PACKAGES}

    def close(self) -> None:
        self._model = self._decoder = None  # type: ignore[assignment]
        gc.collect()
        self._free_cache()

    @property
    def _to_text(self) -> Callable[[Sequence[int]], str] | None:
        return self._tokens.to_text if self._tokens and self._plan.workload.record_text else None

    def _prompt_encoder(self, tokens: Tokens, vocabulary_size: int) -> PromptEncoder:
        config = self._model.config.get_text_config(decoder=True)
        return PromptEncoder(
            tokens,
            vocabulary_size=vocabulary_size,
            reserved_ids=special_ids(config) | self._eos_ids,
            max_length=getattr(config, "max_position_embeddings", None),
        )

    def _fail(self, generation: Generation, error: BaseException) -> None:
        """End the batch with the error, or raise where the device cannot go on."""
        message = f"{type(error).__name__}: {first_line(error)}"
        if is_fatal(error):
            raise EngineError("the device cannot go on", found=message, hint="run `llem doctor`") from error
        generation.end("error", error=message)
        self._free_cache()

    def _free_cache(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def create(plan: Plan, *, device: str | None) -> TransformersEngine:
    """The engine on `device`, or where the plan says."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    return TransformersEngine(plan, choose_device(device, planned=plan.engine.device))


def end_of_sequence_ids(model: Any) -> frozenset[int]:
    """The ids that end a sequence, as `generate` of the model would take them."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if named is None:
        named = getattr(model.config, "eos_token_id", None)
    return frozenset(_ids(named))


def special_ids(config: Any) -> frozenset[int]:
    """Begin, end and padding ids that a configuration names."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return frozenset(token_id for name in names for token_id in _ids(getattr(config, name, None)))


def _ids(named: int | list[int] | None) -> list[int]:
    if named is None:
        return []
    return [named] if isinstance(named, int) else list(named)
