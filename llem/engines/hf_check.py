"""Checks the plan of a transformers model before anything is started; its options in a child, so that nothing else loads torch."""

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Collection, Mapping

import msgspec

from llem.engines.sources import find_model
from llem.errors import EngineError, MissingExtraError, PlanError
from llem.plan import Plan
from llem.plan_file import unknown_key
from llem.registry import install_hint

NEEDED_PACKAGES = ("torch", "transformers", "safetensors")
LIMIT_S = 300.0  # a network folder may take a minute to give its packages


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An error as the child tells it."""

    kind: str
    what: str
    found: str | None = None
    expected: str | None = None
    hint: str | None = None

    def as_error(self) -> Exception:
        kinds = {"PlanError": PlanError, "MissingExtraError": MissingExtraError}
        return kinds.get(self.kind, EngineError)(
            self.what, found=self.found, expected=self.expected, hint=self.hint
        )


def check_key(place: str, key: str, *, known: Collection[str], refused: Mapping[str, str]) -> None:
    """Raises PlanError for a key that is refused, with the reason, and for one that is not known."""
    if key in refused:
        raise PlanError(f"plan key {place}{key}", found="a key that a plan cannot set", hint=refused[key])
    if key not in known:
        raise unknown_key(place, key, known)


def check(plan: Plan) -> None:
    """Raises LlemError for a model that cannot be found, and options that would not be taken, or taken in silence."""
    _check_model(plan)
    _check_split(plan)
    check_options(plan)


def _check_split(plan: Plan) -> None:
    """A model over several ranks is read from files, each rank its part."""
    if plan.engine.parallel == "none":
        return
    if find_model(plan.model).weights == "random":
        raise PlanError(
            "engine.parallel = tp",
            found="random weights",
            expected="a model whose weights are read from files: each rank reads its part",
        )
    if "device_map" in plan.model.load:
        raise PlanError(
            "engine.parallel = tp", found="model.load.device_map", expected="one of them to place the model"
        )


def check_options(plan: Plan) -> None:
    """Raises PlanError or EngineError for options that transformers would not take, or would take in silence."""
    if plan.generate_options or plan.model.load:
        _ask_child(plan)


def _check_model(plan: Plan) -> None:
    source = find_model(plan.model)
    missing = [package for package in NEEDED_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            "the transformers engine cannot run",
            found=f"no {', '.join(missing)}",
            expected="the torch extra",
            hint=f"{install_hint('torch')}, or --engine simulated",
        )
    if source.kind == "hub":
        # needs a package of the torch extra, so not at the top
        importlib.import_module("llem.engines.hub").check_hub(source)


def _ask_child(plan: Plan) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llem.engines.hf_options"],
        input=msgspec.json.encode(plan),
        capture_output=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise EngineError(
            "the plan's options could not be checked", found=lines[-1] if lines else done.returncode
        )
    if refusal := msgspec.json.decode(done.stdout, type=Refusal | None):
        raise refusal.as_error()
