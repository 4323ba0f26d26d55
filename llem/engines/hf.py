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

from llem.engines.base import EncodedPrompt, Generation, Prompt, requests_of
from llem.engines.hf_facts import LoadFacts, model_facts
from llem.engines.hf_generate import BatchJob, Generator, seed_everything, step_recorder
from llem.engines.hf_model import (
    Weights,
    check_architecture,
    choose_device,
    is_fatal,
    join_group,
    leave_group,
    load_config,
    load_model,
    said_by_rank_0,
)
from llem.engines.hf_options import ASSISTANT, generation_config
from llem.engines.hf_prompts import PromptEncoder, ids_of, load_encoder
from llem.engines.hub import type_and_text
from llem.engines.sources import find_model
from llem.errors import EngineError
from llem.plan import ModelPlan, Plan
from llem_events.events import ModelLoaded, Request

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub")


class LoadedModel(NamedTuple):
    """A model on its device and what belongs to it."""

    model: Any
    generator: Generator
    eos_ids: frozenset[int]


class TransformersEngine:
    """Runs batches through the model's own `generate`, and times every token of it."""

    NAME: ClassVar[str] = "transformers"

    def __init__(self, plan: Plan, device: torch.device) -> None:
        """Raises EngineError for a model whose configuration alone tells that it cannot be measured."""
        self._plan = plan
        self._device = device
        self._source = find_model(plan.model)
        self._config = load_config(self._source)
        check_architecture(self._config, self._source)
        self._loaded: LoadedModel | None = None
        self._encoder: PromptEncoder | None = None

    def load(self) -> ModelLoaded:
        start_ns = time.monotonic_ns()
        if self._on_cuda:
            torch.cuda.init()
            torch.cuda.set_device(self._device)
            for device in self._cuda_devices:
                torch.cuda.reset_peak_memory_stats(device)
        if self._is_grouped:
            join_group(self._device)
        weights = load_model(
            self._source, self._plan.model, self._device, config=self._config, split=self._is_grouped
        )
        self._loaded = loaded = self._ready_to_generate(weights)
        self.synchronize()
        load_time_ns = time.monotonic_ns() - start_ns
        cache = self._try_out(loaded)
        tokenizer = self._prompt_encoder.tokens.name
        return model_facts(weights, LoadFacts(self._source, self._plan.model, tokenizer, cache, load_time_ns))

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        return [self._prompt_encoder.encode(prompt) for prompt in prompts]

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
        seed_everything(self._plan.own_generation.seed, batch_index=batch_index)
        job = BatchJob(generation, step_recorder(self._device), should_stop, on_tokens)
        tokens_computed = None
        start_ns = time.monotonic_ns()
        try:
            tokens_computed = self._ready.generator.run(batch, job)
        except Exception as error:  # noqa: BLE001 -- a model may raise anything, and its next batch may go well
            self._fail(generation, error)
        return requests_of(
            generation,
            batch_index=batch_index,
            arrival_ns=arrival_ns,
            start_ns=start_ns,
            end_ns=time.monotonic_ns(),
            tokens_computed=tokens_computed,
            to_text=self._to_text,
        )

    def synchronize(self) -> None:
        for device in self._cuda_devices:
            torch.cuda.synchronize(device)

    def agree(self, goes_on: bool) -> bool:
        """What rank 0 of the ranks that share the model says."""
        return said_by_rank_0(goes_on, self._device)

    def peak_memory_bytes(self) -> int | None:
        """On a GPU what torch's allocator held at most; on the CPU the whole process' peak resident memory."""
        if self._on_cuda:
            return sum(int(torch.cuda.max_memory_allocated(device)) for device in self._cuda_devices)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in _PACKAGES}

    def close(self) -> None:
        if self._loaded is not None and self._is_grouped:
            leave_group()
        self._loaded = None
        gc.collect()
        self._free_cache()

    @property
    def _is_grouped(self) -> bool:
        return self._plan.engine.parallel == "tp"

    @property
    def _cuda_devices(self) -> list[torch.device]:
        """Where the model may be: on its device, or with a device map on all that this process sees."""
        if not self._on_cuda:
            return []
        if "device_map" not in self._plan.model.load:
            return [self._device]
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]

    @property
    def _on_cuda(self) -> bool:
        return bool(self._device.type == "cuda")

    @property
    def _ready(self) -> LoadedModel:
        if self._loaded is None:
            raise EngineError("the model is not loaded", expected="load() before run()")
        return self._loaded

    @property
    def _prompt_encoder(self) -> PromptEncoder:
        """Made of the tokenizer and the configuration alone, so that it is there before the model is."""
        if self._encoder is None:
            self._encoder = load_encoder(self._source, self._plan.workload)
        return self._encoder

    @property
    def _to_text(self) -> Callable[[Sequence[int]], str] | None:
        return self._prompt_encoder.tokens.to_text if self._plan.workload.record_text else None

    def _ready_to_generate(self, weights: Weights) -> LoadedModel:
        """The model with what belongs to it, told what the plan asks of `generate`."""
        model, plan = weights.model, self._plan
        if not model.can_generate():
            raise EngineError(f"model {self._source.name} cannot generate", found=type(model).__name__)
        model.generation_config = generation_config(
            model.generation_config, plan.generate_options, ignore_eos=plan.own_generation.ignore_eos
        )
        eos_ids = ids_of(model.generation_config.eos_token_id)
        return LoadedModel(model, Generator(model, assistant=self._assistant()), eos_ids)

    def _assistant(self) -> Any:
        """The model that drafts for ours, where the plan names one."""
        name = self._plan.generate_options.get(ASSISTANT)
        if name is None:
            return None
        assistant = ModelPlan(name=name, dtype=self._plan.model.dtype, seed=self._plan.model.seed)
        return load_model(find_model(assistant), assistant, self._device).model

    def _try_out(self, loaded: LoadedModel) -> str:
        """The kind of cache that `generate` keeps. Raises EngineError for a model that it cannot run."""
        try:
            return loaded.generator.try_out(self._prompt_encoder.any_ids(2))
        except Exception as error:
            if is_fatal(error):
                raise _lost_device(error) from error
            raise EngineError(
                f"model {self._source.name} cannot generate",
                found=type_and_text(error),
                expected="two tokens of generate, with the options of the plan",
            ) from error

    def _fail(self, generation: Generation, error: BaseException) -> None:
        """End the batch with the error, or raise where the device cannot go on."""
        if is_fatal(error):
            raise _lost_device(error) from error
        generation.end("error", error=type_and_text(error))
        traceback.clear_frames(error.__traceback__)  # they hold the failed batch's tensors
        self._free_cache()

    def _free_cache(self) -> None:
        if self._on_cuda:
            torch.cuda.empty_cache()


def _lost_device(error: BaseException) -> EngineError:
    return EngineError("the device cannot go on", found=type_and_text(error), hint="run `llem doctor`")


def create(plan: Plan, *, device: str | None) -> TransformersEngine:
    """The engine on `device`, or where the plan says; the libraries' own progress lines are switched off."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    return TransformersEngine(plan, choose_device(device, planned=plan.engine.device))
