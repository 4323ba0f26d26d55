"""What a plan's `[generation]` means to `generate`: which keys it may have, and which are llem's own business."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import CompileConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM

from llem.engines.hub import type_and_text
from llem.engines.options import check_key
from llem.errors import PlanError
from llem.plan import OwnGenerationPlan

Options = Mapping[str, Any]

# An argument of `generate` that names a model, not a key of GenerationConfig.
ASSISTANT = "assistant_model"
# What lets one step bring several tokens; `generate` takes a single prompt then.
DRAFTS = (ASSISTANT, "prompt_lookup_num_tokens", "use_mtp", "assistant_early_exit")

_LENGTHS = "the lengths of outputs are workload.output_tokens"
_TEXT_END = "a sequence ends with its end-of-sequence token or at its limit"
_TENSORS = "tensors of every step are not kept, they would be measured too"
_OBJECTS = "it is no value of a plan: llem hands its own observers to generate"
_PROMPTS = "prompts are the workload's"
_REMOTE = "it runs code from the hub"
_REFUSED = {
    "max_new_tokens": _LENGTHS,
    "max_length": _LENGTHS,
    "min_new_tokens": f"{_LENGTHS}, and generation.ignore_eos runs every request to its limit",
    "min_length": f"{_LENGTHS}, and generation.ignore_eos runs every request to its limit",
    "max_time": "the time is workload.max_duration_s",
    "stop_strings": _TEXT_END,
    "num_return_sequences": "a request has one output",
    "return_dict_in_generate": _TENSORS,
    "output_attentions": _TENSORS,
    "output_hidden_states": _TENSORS,
    "output_scores": _TENSORS,
    "output_logits": _TENSORS,
    "streamer": _OBJECTS,
    "stopping_criteria": _OBJECTS,
    "logits_processor": _OBJECTS,
    "prefix_allowed_tokens_fn": _OBJECTS,
    "generation_config": "its keys are those of [generation]",
    "inputs": _PROMPTS,
    "input_ids": _PROMPTS,
    "attention_mask": _PROMPTS,
    "negative_prompt_ids": _PROMPTS,
    "negative_prompt_attention_mask": _PROMPTS,
    "token_healing": "it changes prompts whose tokens are counted",
    "decoder_start_token_id": _PROMPTS,
    "custom_generate": _REMOTE,
    "trust_remote_code": "it is model.trust_remote_code",
    "penalty_alpha": _REMOTE,
    "dola_layers": _REMOTE,
    "num_beam_groups": _REMOTE,
    "diversity_penalty": _REMOTE,
    "constraints": _REMOTE,
    "force_words_ids": _REMOTE,
    "continuous_batching_config": "batches are engine.batch_size",
    "synced_gpus": "it is for models that are spread over processes",
    "is_assistant": "it is set by generate itself",
    "transformers_version": "it is the installed one",
}
_BOOLEANS = frozenset(
    {"do_sample", "use_cache", "renormalize_logits", "remove_invalid_values", "disable_compile", "low_memory"}
)
# Beyond these, generate takes a value in silence and it has no effect.
_FRACTIONS = frozenset({"top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})
# Checked on the model itself while it is loaded: a stand-in has other caches, and compiling one takes a minute.
_NEEDS_THE_MODEL = frozenset(
    {"cache_implementation", "cache_config", "max_cache_len", "compile_config", *DRAFTS[2:], ASSISTANT}
)
_STAND_IN_VOCABULARY = 2**19


def check_generation(options: Options, *, batch_size: int) -> None:
    """Raises PlanError for a key or a value that `generate` would not take, or would take in silence."""
    _check_names(options)
    _check_types(options)
    _check_batch(options, batch_size)
    _try_values(options, _configuration(options))


def generation_config(base: GenerationConfig, options: Options, *, ignore_eos: bool) -> GenerationConfig:
    """What `generate` of a model is to do: the model's own configuration, with the plan's keys over it."""
    config = copy.deepcopy(base)
    config.update(**_objects(options))
    if ignore_eos:
        config.eos_token_id = None
    return config


def _check_names(options: Options) -> None:
    default = GenerationConfig()
    # older releases leave a table for the compiler out of to_dict
    known = {key for key in (*default.to_dict(), *vars(default)) if not key.startswith("_")} | {ASSISTANT}
    offered = sorted(known - _REFUSED.keys())
    for key in options:
        check_key(
            "generation.", key, known=[*offered, *OwnGenerationPlan.__struct_fields__], refused=_REFUSED
        )


def _check_types(options: Options) -> None:
    for key in _BOOLEANS & options.keys():
        if not isinstance(options[key], bool):
            raise PlanError(f"plan key generation.{key}", found=repr(options[key]), expected="true or false")
    for key in _FRACTIONS & options.keys():
        if not isinstance(options[key], int | float) or not 0 <= options[key] <= 1:
            raise PlanError(
                f"plan key generation.{key}", found=repr(options[key]), expected="between 0 and 1"
            )
    if not isinstance(options.get(ASSISTANT, ""), str):
        raise PlanError(
            f"plan key generation.{ASSISTANT}", found=repr(options[ASSISTANT]), expected="a model's name"
        )
    if options.get("cache_implementation") == "paged":
        raise PlanError(
            "plan key generation.cache_implementation", found="paged", hint="batches are engine.batch_size"
        )


def _check_batch(options: Options, batch_size: int) -> None:
    drafts = [key for key in DRAFTS if options.get(key)]
    if drafts and batch_size > 1:
        raise PlanError(
            f"plan key generation.{drafts[0]}",
            found=f"engine.batch_size {batch_size}",
            expected="1: generate takes one prompt at a time where drafts are checked",
            hint="--batch-size 1, or --set engine.batch_size=1",
        )


def _configuration(options: Options) -> GenerationConfig:
    """The plan's keys as a GenerationConfig that finds nothing to say about them."""
    try:
        config = GenerationConfig(**_objects(options))
        strict = {"strict": True} if "strict" in inspect.signature(config.validate).parameters else {}
        config.validate(**strict)
    except (ValueError, TypeError, AttributeError) as error:
        raise _refusal(error) from error
    return config


def _try_values(options: Options, config: GenerationConfig) -> None:
    """Generate two tokens with a small stand-in: what is out of its range shows only when it is used."""
    tried = {key: setting for key, setting in options.items() if key not in _NEEDS_THE_MODEL}
    if not tried:
        return
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=_STAND_IN_VOCABULARY, eos_token_id=None, **sizes)).eval()
    model.generation_config = generation_config(model.generation_config, tried, ignore_eos=False)
    ids = torch.tensor([[5, 6, 7]])
    try:
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2)
    except Exception as error:  # whatever these values make `generate` raise is the reason
        raise _refusal(error) from error


def _objects(options: Options) -> dict[str, Any]:
    """Keys and values as GenerationConfig has them: a table for the compiler is an object of its own."""
    arguments = {key: setting for key, setting in options.items() if key != ASSISTANT}
    if isinstance(compiling := arguments.get("compile_config"), Mapping):
        arguments["compile_config"] = CompileConfig(**compiling)
    return arguments


def _refusal(error: Exception) -> PlanError:
    return PlanError("[generation] cannot be used", found=type_and_text(error))
