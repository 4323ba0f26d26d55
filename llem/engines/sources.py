"""Where a model comes from: preset, configuration, local folder or hub, and with which weights."""

import difflib
import re
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from llem.errors import EngineError
from llem.plan import ModelPlan
from llem.plan_file import path_of

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PRESETS = files("llem.engines") / "presets"


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """A model found: `location` is a file, a folder or a hub name."""

    kind: Literal["preset", "config", "path", "hub"]
    name: str
    location: str
    weights: Literal["random", "pretrained"]
    revision: str | None = None
    trust_remote_code: bool = False


def preset_names() -> list[str]:
    """The shipped configurations, by name."""
    return sorted(
        entry.name.removesuffix(".json") for entry in _PRESETS.iterdir() if entry.name.endswith(".json")
    )


def find_model(model: ModelPlan) -> ModelSource:
    """The source that the plan names. Raises EngineError; whether a hub name exists shows when it is loaded."""
    _check_remote_code(model)
    if model.config is not None:
        return _configuration(model, path_of(model.config))
    if model.name in preset_names():
        return _preset(model)
    folder = path_of(model.name)
    if folder.is_dir():
        return _source(model, kind="path", location=str(folder))
    return _hub(model)


def suggestion(name: str) -> str | None:
    """A did-you-mean over the presets."""
    close = difflib.get_close_matches(name.lower(), preset_names(), n=1)
    return f"did you mean the preset {close[0]}?" if close else None


def _check_remote_code(model: ModelPlan) -> None:
    if model.trust_remote_code and not _COMMIT.fullmatch(model.revision or ""):
        raise EngineError(
            "trust_remote_code runs the repository's own code and needs an exact commit",
            found=f"revision {model.revision}",
            expected="a full commit hash of 40 hexadecimal digits in model.revision",
        )


def _configuration(model: ModelPlan, path: Path) -> ModelSource:
    if model.weights == "pretrained":
        raise EngineError(
            "a configuration has no weights",
            found="weights pretrained with model.config",
            expected="weights random",
            hint="name the model's folder in model.name to load its weights",
        )
    if not path.exists():
        raise EngineError("model configuration does not exist", found=path, expected="path to a config.json")
    name = str(path) if model.name in preset_names() else model.name
    return ModelSource(kind="config", name=name, location=str(path), weights="random")


def _preset(model: ModelPlan) -> ModelSource:
    if model.weights == "pretrained":
        raise EngineError(
            f"preset {model.name} has no pretrained weights",
            expected="weights random",
            hint="name a folder or a hub model to load weights",
        )
    location = str(_PRESETS / f"{model.name}.json")
    return ModelSource(kind="preset", name=model.name, location=location, weights="random")


def _hub(model: ModelPlan) -> ModelSource:
    if path_of(model.name).is_file():
        raise EngineError(
            "model is a file",
            found=model.name,
            expected="preset, folder or hub name",
            hint="for random weights from a config.json set model.config to it",
        )
    if not _HUB_NAME.fullmatch(model.name):
        raise EngineError(
            "model folder does not exist",
            found=model.name,
            expected=f"an existing folder, a hub name such as org/model, or a preset ({', '.join(preset_names())})",
            hint=suggestion(model.name),
        )
    return _source(model, kind="hub", location=model.name)


def _source(model: ModelPlan, *, kind: Literal["path", "hub"], location: str) -> ModelSource:
    return ModelSource(
        kind=kind,
        name=model.name,
        location=location,
        weights=model.weights or "pretrained",
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
    )
