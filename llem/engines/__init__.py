"""Engines by name: only the chosen one is imported."""

import importlib
from typing import Protocol, cast

from llem.engines.base import EncodedPrompt, Engine, Prompt
from llem.errors import EngineError, MissingExtraError
from llem.plan import Plan

__all__ = ["EncodedPrompt", "Engine", "Prompt", "create_engine"]

_MODULES = {"simulated": "llem.engines.simulated", "transformers": "llem.engines.hf"}
_EXTRA_PACKAGES = frozenset({"torch", "transformers", "safetensors", "tokenizers", "huggingface_hub"})


class _EngineModule(Protocol):
    def create(self, plan: Plan, *, device: str | None) -> Engine: ...


def create_engine(plan: Plan, *, device: str | None) -> Engine:
    """The engine that the plan names, not loaded yet; `device` such as "cuda:0" or "cpu", None for the plan's.

    Raises MissingExtraError where the engine's packages are not installed.
    """
    name = plan.engine.name
    if name not in _MODULES:
        raise EngineError("unknown engine", found=name, expected=" or ".join(_MODULES))
    try:
        module = importlib.import_module(_MODULES[name])
    except ModuleNotFoundError as missing:
        raise _missing(missing, engine=name) from missing
    return cast(_EngineModule, module).create(plan, device=device)


def _missing(error: ModuleNotFoundError, *, engine: str) -> Exception:
    """What to install; a module that is not of the extra is a defect and stays what it is."""
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRA_PACKAGES:
        return error
    what = f"engine {engine} needs {package}, which is not installed"
    return MissingExtraError(what, hint="pip install 'llem[torch]'")
