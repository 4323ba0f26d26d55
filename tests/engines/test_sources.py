"""Where a model comes from, and what is said when it does not."""

from pathlib import Path
from typing import Any

import pytest

from llem.engines.sources import find_model, preset_names
from llem.errors import EngineError
from llem.plan import ModelPlan

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_presets_are_found_by_name() -> None:
    """Every shipped preset is a configuration for random weights."""
    assert preset_names() == ["gpt2-125m", "llama-1b", "llama-8b", "tiny-llama"]
    for name in preset_names():
        source = find_model(ModelPlan(name=name))
        assert (source.kind, source.weights) == ("preset", "random")
        assert Path(source.location).is_file()


def test_folders_and_hub_names_are_pretrained_unless_asked(tmp_path: Path) -> None:
    """A folder that exists is a path, any other well-formed name is the hub's."""
    folder, hub = find_model(ModelPlan(name=str(tmp_path))), find_model(ModelPlan(name="org/model"))
    assert (folder.kind, folder.weights, hub.kind, hub.weights) == ("path", "pretrained", "hub", "pretrained")
    assert find_model(ModelPlan(name="org/model", weights="random")).weights == "random"


def test_configuration_is_random_and_named_after_its_file(tmp_path: Path) -> None:
    """The name of a configuration is the plan's, or its path where the plan has only the default."""
    path = tmp_path / "config.json"
    path.touch()
    assert find_model(ModelPlan(config=str(path))).name == str(path)
    named = find_model(ModelPlan(config=str(path), name="mine"))
    assert (named.name, named.kind, named.weights) == ("mine", "config", "random")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            {"name": "./nowhere"},
            r"model folder does not exist: found \./nowhere, expected an existing folder",
        ),
        ({"name": "/tiny-llama"}, r"found /tiny-llama.*did you mean the preset tiny-llama\?"),
        ({"name": "a/b/c"}, "model folder does not exist: found a/b/c"),
        ({"name": __file__}, r"model is a file.*set model\.config"),
        (
            {"config": "/no/config.json"},
            r"does not exist: found /no/config\.json, expected path to a config\.json",
        ),
        ({"config": "c.json", "weights": "pretrained"}, "a configuration has no weights"),
        ({"name": "tiny-llama", "weights": "pretrained"}, "preset tiny-llama has no pretrained weights"),
        (
            {"name": "a/b", "trust_remote_code": True},
            "found revision None, expected a full commit hash of 40",
        ),
        ({"name": "a/b", "trust_remote_code": True, "revision": "main"}, "found revision main"),
        ({"name": "a/b", "trust_remote_code": True, "revision": COMMIT[:-1]}, "40 hexadecimal digits"),
    ],
)
def test_unusable_models_are_refused(model: dict[str, Any], said: str) -> None:
    """The error says what was found, what was expected and what to try."""
    with pytest.raises(EngineError, match=said):
        find_model(ModelPlan(**model))


def test_remote_code_needs_an_exact_commit() -> None:
    """With a full commit hash the repository's code is allowed."""
    assert find_model(ModelPlan(name="a/b", trust_remote_code=True, revision=COMMIT)).trust_remote_code
