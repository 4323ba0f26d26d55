"""Any command under simulated GPUs, from a shell."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulated_nvml.build import has_compiler

pytestmark = pytest.mark.skipif(
    not has_compiler(), reason="no C compiler: the simulated NVML cannot be built"
)
LIST_GPUS = (
    "from llem.meters.nvml import list_gpus\nfor device in list_gpus(): print(device.name, device.kind)"
)
SCENARIO = """
call_us = 10

[[gpus]]
uuid = "GPU-1"
name = "NVIDIA A100-SXM4-40GB"
capability = "8.0"
counter_tick_ms = 20
curve = [[0, 60], [1, 400], [2, 60]]
migs = [{uuid = "MIG-1", profile = "1g.5gb", memory_mib = 4864}]
faults = [{function = "temperature", code = 4, from_s = 2.5}]
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulated_nvml", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)


def test_the_command_sees_two_gpus_by_default() -> None:
    """Without a scenario the host has two H100s."""
    done = _run("--", sys.executable, "-c", LIST_GPUS)
    assert done.stdout.splitlines() == ["NVIDIA H100 80GB HBM3 gpu"] * 2


def test_the_command_sees_the_scenario(tmp_path: Path) -> None:
    """A scenario is a TOML file of GPUs."""
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    done = _run(str(path), "--", sys.executable, "-c", LIST_GPUS)
    assert done.stdout.splitlines() == ["NVIDIA A100-SXM4-40GB MIG 1g.5gb mig"]


def test_the_commands_exit_status_is_passed_on() -> None:
    """What the command says is what is said."""
    assert _run("--", sys.executable, "-c", "raise SystemExit(7)").returncode == 7


@pytest.mark.parametrize("arguments", [(), ("--",), ("scenario.toml",)])
def test_a_missing_command_is_explained(arguments: tuple[str, ...]) -> None:
    """Usage goes to stderr."""
    done = _run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "python -m tests.simulated_nvml" in done.stderr
