"""What a plan's `[model.load]` means to `from_pretrained`: which keys it may have, what they need, and which are llem's own business."""

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import AutoModelForCausalLM, LlamaConfig, TorchAoConfig
from transformers.quantizers import AutoQuantizationConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from llem.engines.hub import type_and_text
from llem.engines.options import check_key
from llem.engines.sources import find_model
from llem.errors import MissingExtraError, PlanError
from llem.plan import ModelPlan

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
_REFUSED = {
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


def check_load(model: ModelPlan) -> None:
    """Raises PlanError for a key or a value that would not be taken, MissingExtraError for a package that is not there."""
    if not model.load:
        return
    _check_names(model)
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


def _check_names(model: ModelPlan) -> None:
    has_files = find_model(model).weights != "random"
    offered = [*OF_A_CONFIGURATION, *_OF_A_FILE]
    for key in model.load:
        check_key("model.load.", key, known=offered, refused=_REFUSED)
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
