"""Starting the program costs little and loads only what the command needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run

HEAVY = ("torch", "transformers", "duckdb", "numpy", "pynvml", "rich", "prompt_toolkit")
LOADED = "import sys; print(*sorted(name for name in sys.modules if '.' not in name))"


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter that has run `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{LOADED}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["measure", "--help"]])
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    """`llem --help` has neither torch nor duckdb nor numpy in memory, nor has that of the command that measures."""
    code = f"from llem.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert loaded_after(code).isdisjoint(HEAVY)


def test_a_shell_in_a_pipe_loads_no_line_editor() -> None:
    """Only a terminal is worth what prompt_toolkit costs."""
    assert "prompt_toolkit" not in loaded_after("import llem.cli.shell, llem.cli.query")


@pytest.mark.parametrize(
    "module",
    [
        "llem.measure.worker",
        "llem.measure.sampler",
        "llem.measure.program",
        "llem.measure.supervisor",
        "llem.live.run",
        "llem.live.study",
    ],
)
def test_measuring_loads_no_database_and_no_screen(module: str) -> None:
    """What measures or watches has no DuckDB, no typer and no rich, and no model runtime before it loads a model."""
    assert loaded_after(f"import {module}").isdisjoint(
        {"duckdb", "typer", "rich", "click", "torch", "transformers"}
    )


@pytest.mark.parametrize("module", ["llem.projections", "llem.results", "llem.query.process", "llem.export"])
def test_analysis_loads_no_model_and_no_gpu_library(module: str) -> None:
    """What analyses runs on a laptop without torch and without a driver."""
    assert loaded_after(f"import {module}").isdisjoint({"torch", "transformers", "pynvml"})


def test_importing_llem_loads_nothing() -> None:
    """`import llem` alone is free."""
    assert loaded_after("import llem").isdisjoint({*HEAVY, "typer", "msgspec"})


def test_the_version_is_data(whole_llem: Run) -> None:
    """--version prints the version on stdout and nothing else."""
    done = whole_llem("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip().count(".") == 2


def test_a_wrong_command_or_option_is_exit_status_2(llem: Run) -> None:
    """A mistyped command or option says so and never shows a traceback."""
    for arguments in (["mesure"], ["measure", "--modle", "x"], ["log", "verfy"]):
        done = llem(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr and "No such" in done.stderr


def test_a_fault_that_nobody_foresaw_is_exit_status_70(whole_llem: Run, tmp_path: Path) -> None:
    """A broken library ends a command with one line that asks for the traceback, not with a traceback."""
    (tmp_path / "duckdb.py").write_text("raise RuntimeError('half installed')\n")
    done = whole_llem("runs", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (70, "")
    assert "internal error: RuntimeError: half installed" in done.stderr and "-vv" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in whole_llem("runs", "-vv", PYTHONPATH=str(tmp_path)).stderr
