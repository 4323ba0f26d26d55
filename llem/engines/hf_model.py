"""A Hugging Face causal language model: loaded on its device, split over several processes or made with random weights, and what is doubtful about its files."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
import torch.distributed as dist
import transformers
from huggingface_hub import errors as hub
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from torch import OutOfMemoryError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
)

from llem.engines.hf_options import (
    ADAPTER,
    OF_A_CONFIGURATION,
    QUANTIZATION,
    quantization,
    random_weights_refusal,
)
from llem.engines.hub import causes_of, hub_error, one_line, type_and_text
from llem.engines.sources import ModelSource
from llem.errors import EngineError
from llem.plan import ModelPlan

_NAMED = 3  # of many names, so that one line stays one line
_MAX_HEADER_BYTES = 2**28
# Types of tensors that stand for weights only together with scales, which nobody applies unless a quantisation is named.
_QUANTIZED_TYPES = ("I8", "U8", "I16", "U16", "I32", "U32", "F8_", "F4", "F6_")
_NO_WEIGHTS = ("bias", "mask", "position_ids")  # buffers of older models: causal masks, tables of positions
# All of the hub's own, and of its HTTP client, whichever that is in the installed release.
_HUB_ERRORS = tuple(
    kind for kind in vars(hub).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
# What loading a model is known to raise: these libraries check a model's files by using them.
LOADING_ERRORS: tuple[type[BaseException], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    MemoryError,
    OSError,
    KeyError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    ImportError,
    SafetensorError,
    *_HUB_ERRORS,
)
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
    source: ModelSource,
    model_plan: ModelPlan,
    device: torch.device,
    *,
    config: Any = None,
    split: bool = False,
) -> Weights:
    """The model in evaluation mode on `device`, or this process's part of it. Raises EngineError."""
    config = load_config(source) if config is None else config
    doubts: list[str] = []
    try:
        dtype = _dtype(model_plan.dtype, config)
        if source.weights == "random":
            model = _random(config, dtype, device, source, model_plan)
        else:
            model, doubts = _pretrained(config, dtype, device, source, model_plan, split=split)
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
    config: Any,
    dtype: torch.dtype,
    device: torch.device,
    source: ModelSource,
    model_plan: ModelPlan,
    *,
    split: bool,
) -> tuple[Any, list[str]]:
    options = _loading_options(model_plan.load, config, device) | (splitting_options() if split else {})
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
    is_placed = split or "device_map" in options
    return model.eval() if is_placed else model.eval().to(device), doubts


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


class _Tensor(msgspec.Struct, frozen=True):
    """What a header says of a tensor; the entry about the file itself says none of it."""

    dtype: str | None = None
    shape: list[int] = []


def loading_doubts(report: Mapping[str, Iterable[Any]]) -> list[str]:
    """From the report of from_pretrained: weights drawn at random, tensors that nothing uses, and other shapes."""
    mismatched = [
        entry if isinstance(entry, str) else entry[0] for entry in report.get("mismatched_keys", ())
    ]
    missing = set(report.get("missing_keys", ())) - set(mismatched)
    return [
        *_doubt(missing, "missing from its files and drawn at random"),
        *_doubt(report.get("unexpected_keys", ()), "in its files that the model does not use"),
        *_doubt(mismatched, "of another shape in its files, and drawn at random"),
    ]


def integer_doubts(source: ModelSource) -> list[str]:
    """Tensors of a type that was quantised, where neither the configuration nor the plan names a quantisation."""
    names = [
        f"{name} ({kind})"
        for path in _weight_files(source)
        for name, kind in _tensor_types(path)
        if kind.startswith(_QUANTIZED_TYPES) and not name.endswith(_NO_WEIGHTS)
    ]
    return _doubt(names, "quantised in its files, but no quantisation is named")


def _doubt(names: Iterable[str], what: str) -> list[str]:
    ordered = sorted(names)
    if not ordered:
        return []
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    tensors = "tensor" if len(ordered) == 1 else "tensors"
    return [f"{len(ordered)} {tensors} {what}: {', '.join(ordered[:_NAMED])}{more}"]


def _weight_files(source: ModelSource) -> list[Path]:
    """The safetensors files that a model is loaded from."""
    if source.kind == "path":
        return sorted(Path(source.location).glob("model*.safetensors"))
    config = try_to_load_from_cache(source.location, "config.json", revision=source.revision)
    return sorted(Path(config).parent.glob("model*.safetensors")) if isinstance(config, str) else []


def _tensor_types(path: Path) -> Iterator[tuple[str, str]]:
    """Name and type of each tensor, from the header: eight bytes of its length, then JSON; none of a damaged file,
    which is told where it is loaded.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = msgspec.json.decode(file.read(min(length, _MAX_HEADER_BYTES)), type=dict[str, _Tensor])
    except (OSError, msgspec.DecodeError):
        return
    for name, tensor in header.items():
        if tensor.dtype is not None and len(tensor.shape) > 1:
            yield name, tensor.dtype


def loading_error(error: BaseException, source: ModelSource) -> EngineError:
    """Why a model could not be loaded and what to try."""
    causes = causes_of(error)
    if any(isinstance(cause, OutOfMemoryError | MemoryError) for cause in causes):
        return EngineError(
            f"model {source.name} does not fit into memory",
            found=one_line(error),
            hint="try model.dtype = 'bfloat16' or a smaller model",
        )
    if source.kind == "hub":
        return hub_error(error, source, hint=_code_hint(error))
    pretrained = source.weights == "pretrained"
    return EngineError(
        f"{_model(source)} cannot be loaded",
        found=type_and_text(error),
        expected="config.json and *.safetensors"
        if pretrained
        else "the configuration of a causal language model",
        hint=_code_hint(error),
    )


def is_fatal(error: BaseException) -> bool:
    """Whether the CUDA context is lost, after which no batch can run; being out of memory is not that."""
    if isinstance(error, OutOfMemoryError):
        return False
    return "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError"


def _model(source: ModelSource) -> str:
    return f"model {source.name}" + (f" of {source.location}" if source.location != source.name else "")


def _code_hint(error: BaseException) -> str | None:
    if "trust_remote_code" in str(error):
        return "the model brings its own code: set model.trust_remote_code, and model.revision to a full commit hash"
    return None


def join_group(device: torch.device) -> None:
    """Meet the other processes, by the variables that torchrun sets."""
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def leave_group() -> None:
    """May be called twice."""
    if dist.is_initialized():
        dist.destroy_process_group()


def said_by_rank_0(goes_on: bool, device: torch.device) -> bool:
    """What rank 0 passed, on every rank."""
    told = torch.tensor([int(goes_on)], device=device)
    dist.broadcast(told, src=0)
    return bool(told.item())


def splitting_options() -> dict[str, Any]:
    """What from_pretrained takes to load this process's part of each layer: releases before 5 know another name."""
    try:
        from transformers.distributed import DistributedConfig  # noqa: PLC0415 -- newer than the oldest release that we take

        return {"distributed_config": DistributedConfig(tp_plan="auto", tp_size=dist.get_world_size())}
    except (ImportError, TypeError):
        return {"tp_plan": "auto"}
