"""Loads a Hugging Face causal language model, or makes one with random weights, on its device."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llem.engines.hf_errors import LOADING_ERRORS, loading_error
from llem.engines.sources import ModelSource
from llem.errors import EngineError
from llem.plan import ModelPlan


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


def load_model(source: ModelSource, model_plan: ModelPlan, device: torch.device) -> Any:
    """The model in evaluation mode on `device`. Raises EngineError."""
    try:
        config = load_config(source)
        dtype = _dtype(model_plan.dtype, config)
        model = (
            _random(config, dtype, device, seed=model_plan.seed)
            if source.weights == "random"
            else _pretrained(source, dtype)
        )
        return model.eval().to(device)
    except LOADING_ERRORS as error:
        raise loading_error(error, source) from error


def load_config(source: ModelSource) -> Any:
    """The model's configuration, from a preset, a file, a folder or the hub."""
    return AutoConfig.from_pretrained(
        source.location, revision=source.revision, trust_remote_code=source.trust_remote_code
    )


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


def _pretrained(source: ModelSource, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        source.location,
        revision=source.revision,
        trust_remote_code=source.trust_remote_code,
        use_safetensors=True,
        dtype=dtype,
    )


def _random(config: Any, dtype: torch.dtype, device: torch.device, *, seed: int) -> Any:
    """Weights drawn on the device in their final type: an 8 B model needs no host memory."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=dtype)
