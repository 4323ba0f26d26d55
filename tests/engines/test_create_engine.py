"""Engines by name: only the chosen one is loaded, and a missing package is said."""

import subprocess
import sys

import pytest

CHOOSE = """
import sys
from llem.plan import EnginePlan, Plan
from llem.errors import LlemError
from llem.engines import create_engine
try:
    create_engine(Plan(engine=EnginePlan(name={name!r})), device=None).load()
except LlemError as error:
    print(type(error).__name__, error)
print("loaded", *sorted({{"torch", "transformers", "duckdb", "typer", "rich"}} & set(sys.modules)))
"""


def run_fresh(program: str) -> list[str]:
    """Lines printed by a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()


def test_simulated_engine_loads_no_model_runtime() -> None:
    """The simulated engine needs neither torch nor transformers."""
    assert run_fresh(CHOOSE.format(name="simulated")) == ["loaded"]


def test_missing_torch_is_said_with_the_command() -> None:
    """Without torch the transformers engine says which install command is missing."""
    error, _ = run_fresh("import sys; sys.modules['torch'] = None" + CHOOSE.format(name="transformers"))
    assert (
        error
        == "MissingExtraError engine transformers needs torch, which is not installed; pip install 'llem[torch]'"
    )


@pytest.mark.slow
def test_transformers_engine_loads_nothing_of_the_analysis() -> None:
    """A measuring process has torch, and no database or command line."""
    assert run_fresh(CHOOSE.format(name="transformers")) == ["loaded torch transformers"]
