"""What a plan's `[generation]` and `[model.load]` mean to transformers: which keys they may have, what those need, and which are llem's own business."""

import copy
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import torch
from transformers import (
    AutoModelForCausalLM,
    CompileConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    TorchAoConfig,
)
from transformers.quantizers import AutoQuantizationConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from llem.engines.hf_check import Refusal, check_key
from llem.engines.hub import type_and_text
from llem.engines.sources import find_model
from llem.errors import LlemError, MissingExtraError, PlanError
from llem.plan import ModelPlan, OwnGenerationPlan, Plan

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
_REFUSED_OPTIONS = {
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
ADAPTER = "adapter"
QUANTIZATION = "quantization_config"
OF_A_CONFIGURATION = ("attn_implementation", "experts_implementation")
_OF_A_FILE = (
    QUANTIZATION,
    "device_map",
    "max_memory",
    "offload_folder",
    "offload_buffers",
    "variant",
    "subfolder",
    "use_kernels",
    ADAPTER,
)
_REFUSED_LOADING = {
    "dtype": "it is model.dtype",
    "torch_dtype": "it is model.dtype",
    "revision": "it is model.revision",
    "trust_remote_code": "it is model.trust_remote_code",
    "use_safetensors": "only safetensors files are loaded",
    "gguf_file": "only safetensors files are loaded",
    "ignore_mismatched_sizes": "it is model.allow_missing",
    "output_loading_info": "it is asked for always: model.allow_missing says what becomes of it",
    "config": "it is model.config",
    "local_files_only": "set HF_HUB_OFFLINE=1 in the environment",
    "token": "secrets are no part of a plan: use `hf auth login`",
    "tp_plan": "a worker is one process: use device_map, or several workers",
}
# Packages that transformers itself does not bring: by module, and how to install it.
_INSTALL = {
    "accelerate": "accelerate",
    "auto_round": "auto-round",
    "aqlm": "aqlm",
    "bitsandbytes": "bitsandbytes",
    "compressed_tensors": "compressed-tensors",
    "gptqmodel": "gptqmodel",
    "hqq": "hqq",
    "kernels": "kernels",
    "optimum.quanto": "optimum-quanto",
    "optimum": "optimum",
    "peft": "peft",
    "torchao": "torchao",
    "vptq": "vptq",
}
_QUANTIZERS_NEED = {
    "bitsandbytes_4bit": ("bitsandbytes",),
    "bitsandbytes_8bit": ("bitsandbytes",),
    "torchao": ("torchao",),
    "quanto": ("optimum.quanto",),
    "hqq": ("hqq",),
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed_tensors",),
    "aqlm": ("aqlm",),
    "vptq": ("vptq",),
    "auto-round": ("auto_round",),
    "mxfp4": ("kernels",),
}


def check_generation(options: Options, *, batch_size: int) -> None:
    """Raises PlanError for a key or a value that `generate` would not take, or would take in silence."""
    _check_generation_names(options)
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
        raise _refusal_by_transformers(error) from error
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
        raise _refusal_by_transformers(error) from error


def _objects(options: Options) -> dict[str, Any]:
    """Keys and values as GenerationConfig has them: a table for the compiler is an object of its own."""
    arguments = {key: setting for key, setting in options.items() if key != ASSISTANT}
    if isinstance(compiling := arguments.get("compile_config"), Mapping):
        arguments["compile_config"] = CompileConfig(**compiling)
    return arguments


def _check_generation_names(options: Options) -> None:
    default = GenerationConfig()
    # older releases leave a table for the compiler out of to_dict
    known = {key for key in (*default.to_dict(), *vars(default)) if not key.startswith("_")} | {ASSISTANT}
    offered = sorted(known - _REFUSED_OPTIONS.keys())
    for key in options:
        check_key(
            "generation.",
            key,
            known=[*offered, *OwnGenerationPlan.__struct_fields__],
            refused=_REFUSED_OPTIONS,
        )


def _refusal_by_transformers(error: Exception) -> PlanError:
    return PlanError("[generation] cannot be used", found=type_and_text(error))


def check_load(model: ModelPlan) -> None:
    """Raises PlanError for a key or a value that would not be taken, MissingExtraError for a package that is not there."""
    if not model.load:
        return
    _check_load_names(model)
    _require(packages_of(model.load))
    quantization(model.load)
    _try_attention(model.load)


def quantization(load: Mapping[str, Any]) -> Any:
    """The quantisation as transformers has it: from a name, or from a table with a name and its options."""
    asked = load.get(QUANTIZATION)
    if asked is None:
        return None
    name, options = _named_quantizer(asked)
    try:
        if name == "torchao":
            return _torchao(options)
        method = name.removesuffix("_4bit").removesuffix("_8bit")
        return AutoQuantizationConfig.from_dict({"quant_method": method, **options})
    except PlanError:
        raise
    except Exception as error:  # each method checks its options in its own way
        raise PlanError(f"plan key model.load.{QUANTIZATION}", found=type_and_text(error)) from error


def _torchao(options: dict[str, Any]) -> Any:
    """Its kinds are classes: `quant_type` names one, and what else is in the table are that class' arguments."""
    known = importlib.import_module("torchao.quantization")
    name = options.pop("quant_type", "Int8WeightOnlyConfig")
    kind = getattr(known, str(name), None)
    if not isinstance(kind, type) or not str(name).endswith("Config"):
        names = sorted(entry for entry in dir(known) if entry.endswith("Config"))
        raise PlanError(
            f"plan key model.load.{QUANTIZATION}.quant_type",
            found=name,
            expected=f"one of {', '.join(names)}",
        )
    return TorchAoConfig(quant_type=kind(**options))


def packages_of(load: Mapping[str, Any]) -> list[str]:
    """The modules that these options need besides transformers."""
    needed = []
    if QUANTIZATION in load:
        needed += [*_QUANTIZERS_NEED.get(_named_quantizer(load[QUANTIZATION])[0], ()), "accelerate"]
    if {"device_map", "max_memory", "offload_folder"} & load.keys():
        needed.append("accelerate")
    if ADAPTER in load:
        needed.append("peft")
    return list(dict.fromkeys(needed))


def _check_load_names(model: ModelPlan) -> None:
    has_files = find_model(model).weights != "random"
    offered = [*OF_A_CONFIGURATION, *_OF_A_FILE]
    for key in model.load:
        check_key("model.load.", key, known=offered, refused=_REFUSED_LOADING)
        if not has_files and key not in OF_A_CONFIGURATION:
            raise random_weights_refusal(key)


def random_weights_refusal(key: str) -> PlanError:
    """Why random weights cannot have an option of files."""
    return PlanError(
        f"plan key model.load.{key}",
        found="random weights, which no file is loaded for",
        expected=f"of model.load only {' and '.join(OF_A_CONFIGURATION)}",
        hint="name a folder or a hub model, without --weights random",
    )


def _named_quantizer(asked: object) -> tuple[str, dict[str, Any]]:
    """Name and options; the name says too how many bits where one name stands for two."""
    options = dict(asked) if isinstance(asked, Mapping) else {"quant_method": asked}
    name = str(options.pop("quant_method", None) or options.pop("name", None))
    if name == "bitsandbytes":
        name += "_4bit" if options.get("load_in_4bit") else "_8bit"
    if name not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise PlanError(
            f"plan key model.load.{QUANTIZATION}",
            found=name,
            expected=f"one of {', '.join(sorted(AUTO_QUANTIZATION_CONFIG_MAPPING))}, or a table with that as its quant_method",
        )
    if name.startswith("bitsandbytes_"):
        options = {f"load_in_{name.removeprefix('bitsandbytes_')}": True, **options}
    return name, options


def _require(modules: Iterable[str]) -> None:
    for module in modules:
        if not _is_installed(module):
            raise MissingExtraError(
                f"the plan's model.load needs {_INSTALL[module]}, which is not installed",
                hint=f"pip install {_INSTALL[module]}",
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _try_attention(load: Mapping[str, Any]) -> None:
    """Build a small stand-in: an attention that transformers does not know shows at once.

    Not for kernels of the hub and for those that need a GPU, which this check must not touch.
    """
    tried = {key: load[key] for key in OF_A_CONFIGURATION if key in load}
    if not tried or any("flash" in str(name) or "/" in str(name) for name in tried.values()):
        return
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    try:
        AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=8, **sizes), **tried)
    except Exception as error:  # whatever these values make transformers raise is the reason
        raise PlanError("[model.load] cannot be used", found=type_and_text(error)) from error


def refusal_of(plan: Plan) -> Refusal | None:
    """Why the plan's options cannot be used."""
    try:
        check_generation(plan.generate_options, batch_size=plan.engine.batch_size)
        check_load(plan.model)
    except LlemError as error:
        found, expected = (None if fact is None else str(fact) for fact in (error.found, error.expected))
        return Refusal(
            kind=type(error).__name__, what=error.what, found=found, expected=expected, hint=error.hint
        )
    return None


def main() -> None:
    """Answer; what the libraries print goes elsewhere."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with answer:
        answer.write(msgspec.json.encode(refusal_of(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))))


if __name__ == "__main__":
    main()
