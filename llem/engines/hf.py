"""The transformers engine: any Hugging Face causal language model, by path, hub name, preset or configuration."""

import gc
import logging
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, NamedTuple

import torch
from transformers.utils import logging as transformers_logging

from llem.engines.base import EncodedPrompt, Prompt
from llem.engines.generation import Generation, requests_of
from llem.engines.hf_errors import is_fatal
from llem.engines.hf_facts import model_facts
from llem.engines.hf_generate import BatchJob, apply_plan, generate, seed_everything
from llem.engines.hf_load import choose_device, load_model
from llem.engines.hf_steps import step_recorder
from llem.engines.hf_tokens import PromptEncoder, Tokens, ids_of, load_tokens, special_ids
from llem.engines.hub import one_line
from llem.engines.sources import ModelSource, find_model
from llem.errors import EngineError
from llem.plan import Plan
from llem_events.events import ModelLoaded
from llem_events.records import Request

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub")


class LoadedModel(NamedTuple):
    """A model on its device and what belongs to it."""

    model: Any
    tokens: Tokens
    encoder: PromptEncoder
    eos_ids: frozenset[int]


class TransformersEngine:
    """Runs batches through the model's own `generate`, and times every token of it."""

    NAME: ClassVar[str] = "transformers"

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan = plan
        self._device = device
        self._source = find_model(plan.model)
        self._loaded: LoadedModel | None = None

    def load(self) -> ModelLoaded:
        start_ns = time.monotonic_ns()
        if self._on_cuda:
            torch.cuda.init()
            torch.cuda.set_device(self._device)
            torch.cuda.reset_peak_memory_stats()
        model = load_model(self._source, self._plan.model, self._device)
        apply_plan(model, self._plan.decoding)
        self._loaded = loaded = _loaded(model, self._source)
        self.synchronize()
        load_time_ns = time.monotonic_ns() - start_ns
        return model_facts(model, self._source, tokenizer=loaded.tokens.name, load_time_ns=load_time_ns)

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        encoder = self._ready.encoder
        return [encoder.encode(prompt) for prompt in prompts]

    def run(
        self,
        batch: Sequence[EncodedPrompt],
        *,
        batch_index: int,
        arrival_ns: int,
        should_stop: Callable[[], bool],
        on_tokens: Callable[[int], None],
    ) -> list[Request]:
        generation = Generation(batch, eos_ids=self._ready.eos_ids)
        seed_everything(self._plan.decoding.seed, batch_index=batch_index)
        job = BatchJob(generation, step_recorder(self._device), should_stop, on_tokens)
        start_ns = time.monotonic_ns()
        try:
            generate(self._ready.model, batch, job)
        except Exception as error:  # noqa: BLE001  # a model may raise anything, and its next batch may go well
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
        if self._on_cuda:
            torch.cuda.synchronize(self._device)

    def peak_memory_bytes(self) -> int | None:
        """On a GPU what torch's allocator held at most; on the CPU the whole process' peak resident memory."""
        if self._on_cuda:
            return int(torch.cuda.max_memory_allocated(self._device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in _PACKAGES}

    def close(self) -> None:
        self._loaded = None
        gc.collect()
        self._free_cache()

    @property
    def _on_cuda(self) -> bool:
        return bool(self._device.type == "cuda")

    @property
    def _ready(self) -> LoadedModel:
        if self._loaded is None:
            raise EngineError("the model is not loaded", expected="load() before encode() and run()")
        return self._loaded

    @property
    def _to_text(self) -> Callable[[Sequence[int]], str] | None:
        return self._ready.tokens.to_text if self._plan.workload.record_text else None

    def _fail(self, generation: Generation, error: BaseException) -> None:
        """End the batch with the error, or raise where the device cannot go on."""
        message = f"{type(error).__name__}: {one_line(error)}"
        if is_fatal(error):
            raise EngineError("the device cannot go on", found=message, hint="run `llem doctor`") from error
        generation.end("error", error=message)
        traceback.clear_frames(error.__traceback__)  # they hold the failed batch's tensors
        self._free_cache()

    def _free_cache(self) -> None:
        if self._on_cuda:
            torch.cuda.empty_cache()


def _loaded(model: Any, source: ModelSource) -> LoadedModel:
    config = model.config.get_text_config(decoder=True)
    tokens = load_tokens(source, vocabulary_size=config.vocab_size)
    eos_ids = ids_of(model.generation_config.eos_token_id)
    encoder = PromptEncoder(
        tokens,
        vocabulary_size=config.vocab_size,
        reserved_ids=special_ids(config) | eos_ids,
        max_length=getattr(config, "max_position_embeddings", None),
    )
    return LoadedModel(model, tokens, encoder, eos_ids)


def create(plan: Plan, *, device: str | None) -> TransformersEngine:
    """The engine on `device`, or where the plan says; the libraries' own progress lines are switched off."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    return TransformersEngine(plan, choose_device(device, planned=plan.engine.device))
