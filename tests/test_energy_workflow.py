"""The example of a GitHub workflow does what it says, on a simulated meter in the place of the machine's."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LLEM
from tests.delays import best_of_rounds, delays

yaml = pytest.importorskip("yaml")
FILE = Path(__file__).parents[1] / "docs" / "energy-workflow.yml"
MEASURE = "llem measure --meter simulated --set windows.baseline_s=0.1 --set windows.baseline_after_s=0.1 "


def job() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))["jobs"]["compare"]


def script(name: str) -> str:
    """What a step runs, with a simulated meter."""
    step = next(step for step in job()["steps"] if step["name"] == name)
    return step["run"].replace("llem measure ", MEASURE)


def run(name: str, folder: Path, *, reverse: bool = False) -> subprocess.CompletedProcess[str]:
    """A step as GitHub runs it: in bash, which ends at the first command that fails."""
    text = script(name).replace("old new", "new old") if reverse else script(name)
    environment = {
        **os.environ,
        "PATH": f"{LLEM.parent}:{os.environ['PATH']}",
        "LLEM_DIR": str(folder / "data"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_step_has_a_name_and_one_thing_to_do() -> None:
    """Valid YAML, with steps that either use an action of a version or run something."""
    for step in job()["steps"]:
        assert step["name"] and ("run" in step) != ("uses" in step)
        assert "@v" in step.get("uses", "@v")


@pytest.mark.slow
@best_of_rounds
def test_more_energy_fails_and_less_does_not(tmp_path: Path) -> None:
    """Five blocks of a program that becomes shorter pass, with a table and a page; the other way round they fail."""
    for side, seconds in (("old", 0.9), ("new", 0.3)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "generate.py").write_text(f"import time\ntime.sleep({seconds})\n")
    for step in ("Say what can be measured here", "Measure", "Compare", "Write the page"):
        done = run(step, tmp_path)
        with delays():  # of programs that sleep
            assert done.returncode == 0, (step, done.stderr)
    assert "| energy |" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with delays():
        assert run("Compare", tmp_path, reverse=True).returncode == 1
