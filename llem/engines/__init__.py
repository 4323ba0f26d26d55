"""Engines by name: only the chosen one is imported."""

import importlib
from typing import Protocol, cast

from llem.engines.base import EncodedPrompt, Engine, Prompt
from llem.errors import MissingExtraError
from llem.plan import Plan
from llem.registry import ENGINES, install_hint

__all__ = ["EncodedPrompt", "Engine", "Prompt", "check_engine", "create_engine"]


class _EngineModule(Protocol):
    def create(self, plan: Plan, *, device: str | None) -> Engine: ...


class _Checks(Protocol):
    def check(self, plan: Plan) -> None: ...


def create_engine(plan: Plan, *, device: str | None) -> Engine:
    """The engine that the plan names, not loaded yet; `device` such as "cuda:0" or "cpu", None for the plan's.

    Raises MissingExtraError where the engine's packages are not installed.
    """
    name = plan.engine.name
    try:
        module = importlib.import_module(ENGINES[name].module)
    except ModuleNotFoundError as missing:
        raise _missing(missing, engine=name) from missing
    return cast(_EngineModule, module).create(plan, device=device)


def _missing(error: ModuleNotFoundError, *, engine: str) -> Exception:
    """What to install; a module that is not of the extra is a defect and stays what it is."""
    package, kind = (error.name or "").partition(".")[0], ENGINES[engine]
    if kind.extra is None or package not in kind.packages:
        return error
    what = f"engine {engine} needs {package}, which is not installed"
    return MissingExtraError(what, hint=install_hint(kind.extra))


def check_engine(plan: Plan) -> None:
    """Raises LlemError for what the engine could not run, or would take in silence; loads no model runtime."""
    checks = importlib.import_module(ENGINES[plan.engine.name].checks)
    cast(_Checks, checks).check(plan)
