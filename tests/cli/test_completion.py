"""Shells complete commands, options and the runs of the store."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llem.store import Store
from tests.conftest import LLEM
from tests.world import experiment

SHELLS = ("bash", "zsh", "fish")
CASES = (
    ("llem ru", ["runs"]),
    ("llem show t", ["three", "two"]),
    ("llem runs --na", ["--name"]),
    ("llem watch t", ["three", "two"]),
    ("llem compare three t", ["three", "two"]),
    ("llem measure --engine si", ["simulated"]),
    ("llem measure --meter n", ["nvml"]),
    ("llem measure --server ll", ["llamacpp"]),
    ("llem study --set workload.req", ["workload.requests="]),
    ("llem study --resume @", ["@last"]),
    ("llem show --store other f", ["far"]),
)
IN_BASH = """
eval "$(_LLEM_COMPLETE=source_bash llem)"
COMP_WORDS=($1) COMP_CWORD=$(($(wc -w <<< "$1") - 1))
_llem_completion llem
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two experiments."""
    store = Store(tmp_path_factory.mktemp("store") / "data").create()
    experiment(store, experiment_id="two")
    experiment(store, experiment_id="three")
    experiment(Store(store.path.parent / "other").create(), experiment_id="far")
    return store.path


def answer(*command: object, **variables: object) -> str:
    """What a command prints with some variables set and llem on the path."""
    path = f"{LLEM.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(
        [*map(str, command)],
        env=environment,
        # beside the store that is used by default, where another one is
        cwd=Path(environment.get("LLEM_DIR", ".")).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("words", "completed"), CASES)
def test_bash_completes(folder: Path, words: str, completed: list[str]) -> None:
    """A real bash that has read the script for it."""
    assert answer("bash", "-c", IN_BASH, "bash", words, LLEM_DIR=folder).split() == completed


@pytest.mark.slow
@pytest.mark.parametrize(("words", "completed"), CASES)
def test_zsh_is_answered(folder: Path, words: str, completed: list[str]) -> None:
    """The call that zsh evaluates offers each word with its help."""
    call = answer(LLEM, LLEM_DIR=folder, _LLEM_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=words)
    assert call.startswith("_arguments '*: :((")
    assert [word for word in completed if f'"{word}"' not in call] == []


@pytest.mark.slow
@pytest.mark.parametrize(("words", "completed"), CASES)
def test_fish_is_answered(folder: Path, words: str, completed: list[str]) -> None:
    """A word a line, its help behind a tab."""
    asked = {"_LLEM_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    lines = answer(LLEM, LLEM_DIR=folder, _TYPER_COMPLETE_ARGS=words, **asked).splitlines()
    assert [line.partition("\t")[0] for line in lines] == completed


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_of_its_shell(shell: str, tmp_path: Path) -> None:
    """The shell, where it is at hand, finds no mistake in the script for it, which completes llem by asking llem."""
    script = answer(LLEM, _LLEM_COMPLETE=f"source_{shell}")
    assert f"_LLEM_COMPLETE=complete_{shell}" in script
    if shutil.which(shell):
        file = tmp_path / "script"
        file.write_text(script, encoding="utf-8")
        answer(shell, "-n", file)
