"""Checks the options that a plan hands to its engine before anything is started; in a child, so that nothing else loads torch."""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping

import msgspec

from llem.errors import EngineError, MissingExtraError, PlanError
from llem.plan import OwnGenerationPlan, Plan
from llem.plan_file import unknown_key

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


def check_options(plan: Plan) -> None:
    """Raises PlanError or EngineError for what the engine would not take, or would take in silence."""
    if plan.engine.name == "simulated":
        _check_simulated(plan)
    elif plan.generate_options or plan.model.load:
        _ask_child(plan)


def _check_simulated(plan: Plan) -> None:
    own = ", ".join(OwnGenerationPlan.__struct_fields__)
    for section, keys in (("generation", plan.generate_options), ("model.load", plan.model.load)):
        for key in keys:
            raise PlanError(
                f"plan key {section}.{key}",
                found="the simulated engine, which generates nothing",
                expected=f"{own}, or another engine",
            )


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
