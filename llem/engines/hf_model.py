"""Loads a Hugging Face causal language model, or makes one with random weights, on its device."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
)

from llem.engines.hf_errors import LOADING_ERRORS, loading_error
from llem.engines.hf_load_options import (
    ADAPTER,
    OF_A_CONFIGURATION,
    QUANTIZATION,
    quantization,
    random_weights_refusal,
)
from llem.engines.hf_weights import integer_doubts, loading_doubts
from llem.engines.sources import ModelSource
from llem.errors import EngineError
from llem.plan import ModelPlan

_ENCODERS_THAT_FILL_NO_MASKS = ("bert-generation",)
# Their generate appends a mask and fills it in, token by token.
_GENERATE_BY_FILLING_MASKS = ("xlm",)
# Asked to, transformers 4 leaves some models half loaded; newer releases report the tensors of another shape.
_NAMES_MISMATCHES = not transformers.__version__.startswith("4.")


def choose_device(requested: str | None, *, planned: str) -> torch.device:
    """The device asked for, else the plan's; "auto" is the GPU where there is one."""
    name = requested or planned
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EngineError("unknown device", found=name, expected="auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        _check_cuda(device)
        return torch.device("cuda", device.index or 0)
    return device


class Weights(NamedTuple):
    """A model on its device, and what is doubtful about its weights."""

    model: Any
    doubts: list[str]


def load_model(
    source: ModelSource, model_plan: ModelPlan, device: torch.device, *, config: Any = None
) -> Weights:
    """The model in evaluation mode on `device`. Raises EngineError."""
    config = load_config(source) if config is None else config
    doubts: list[str] = []
    try:
        dtype = _dtype(model_plan.dtype, config)
        if source.weights == "random":
            model = _random(config, dtype, device, source, model_plan)
        else:
            model, doubts = _pretrained(config, dtype, device, source, model_plan)
    except LOADING_ERRORS as error:
        raise loading_error(error, source) from error
    if doubts and not model_plan.allow_missing:
        raise _doubtful(source, doubts)
    return Weights(model, doubts)


def _doubtful(source: ModelSource, doubts: Sequence[str]) -> EngineError:
    return EngineError(
        f"the files of model {source.name} do not hold its weights",
        found="; ".join(doubts),
        expected="every weight of the model, and no others",
        hint="--set model.allow_missing=true measures it all the same, and labels the result",
    )


def check_architecture(config: Any, source: ModelSource) -> None:
    """Raises EngineError for what the configuration alone tells is no decoder: before anything is loaded or measured."""
    name = type(config).__name__
    if not getattr(config, "auto_map", None) and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise EngineError(
            f"model {source.name} is no causal language model",
            found=name,
            expected="a configuration of AutoModelForCausalLM",
        )
    if _is_encoder(config):
        raise EngineError(
            f"model {source.name} is an encoder: each of its tokens sees the ones after it",
            found=f"{name} with is_decoder false",
            expected="a decoder",
            hint='"is_decoder": true in its config.json makes it one',
        )


def _is_encoder(config: Any) -> bool:
    """Models that fill in masks unless their configuration makes them decoders; the decoder part of a pair always is one."""
    if getattr(config, "is_decoder", True) or config.is_encoder_decoder:
        return False
    if config.model_type in _GENERATE_BY_FILLING_MASKS:
        return False
    return type(config) in MODEL_FOR_MASKED_LM_MAPPING or config.model_type in _ENCODERS_THAT_FILL_NO_MASKS


def load_config(source: ModelSource) -> Any:
    """The model's configuration, from a preset, a file, a folder or the hub. Raises EngineError."""
    try:
        return AutoConfig.from_pretrained(
            source.location, revision=source.revision, trust_remote_code=source.trust_remote_code
        )
    except LOADING_ERRORS as error:
        raise loading_error(error, source) from error


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise EngineError(
            "no CUDA device",
            found=f"torch {torch.__version__}",
            hint="engine.device = 'cpu', or run `llem doctor`",
        )
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise EngineError("no such CUDA device", found=str(device), expected=f"cuda:0 to cuda:{count - 1}")


def _dtype(planned: str, config: Any) -> torch.dtype:
    """The plan's data type; "auto" is the configuration's, float32 where it names none."""
    if planned != "auto":
        return getattr(torch, planned)
    named = getattr(config, "dtype", None) or torch.float32
    return getattr(torch, named) if isinstance(named, str) else named


def _pretrained(
    config: Any, dtype: torch.dtype, device: torch.device, source: ModelSource, model_plan: ModelPlan
) -> tuple[Any, list[str]]:
    options = _loading_options(model_plan.load, config, device)
    adapter = options.pop(ADAPTER, None)
    doubts = [] if is_quantized(config, model_plan.load) else integer_doubts(source)
    if doubts and not model_plan.allow_missing:
        raise _doubtful(source, doubts)
    model, report = AutoModelForCausalLM.from_pretrained(
        source.location,
        config=config,
        revision=source.revision,
        trust_remote_code=source.trust_remote_code,
        use_safetensors=True,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=model_plan.allow_missing or _NAMES_MISMATCHES,
        **options,
    )
    doubts = [*loading_doubts(report), *doubts]
    if adapter is not None:
        model.load_adapter(adapter)
    return model.eval() if "device_map" in options else model.eval().to(device), doubts


def _loading_options(load: Mapping[str, Any], config: Any, device: torch.device) -> dict[str, Any]:
    """The plan's options as from_pretrained takes them; a quantised model is put on its device while it is loaded."""
    options = dict(load)
    if (quantization_config := quantization(load)) is not None:
        options[QUANTIZATION] = quantization_config
    if isinstance(limits := load.get("max_memory"), Mapping):
        options["max_memory"] = {
            int(name) if name.isdigit() else name: limit for name, limit in limits.items()
        }
    if is_quantized(config, load):
        options.setdefault("device_map", {"": str(device)})
    return options


def is_quantized(config: Any, load: Mapping[str, Any]) -> bool:
    """Whether the plan or the model's own configuration names a quantisation."""
    return QUANTIZATION in load or bool(getattr(config, QUANTIZATION, None))


def _random(
    config: Any, dtype: torch.dtype, device: torch.device, source: ModelSource, model_plan: ModelPlan
) -> Any:
    """Weights drawn on the device in their final type: an 8 B model needs no host memory."""
    for key in model_plan.load.keys() - set(OF_A_CONFIGURATION):
        raise random_weights_refusal(key)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(model_plan.seed)
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, trust_remote_code=source.trust_remote_code, **model_plan.load
        )
    return model.eval().to(device)
