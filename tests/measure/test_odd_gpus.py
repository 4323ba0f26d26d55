"""GPUs that a driver describes oddly are measured all the same."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import LLEM
from tests.measure.gpu_host import gpus
from tests.simulated_nvml.build import environment


@pytest.mark.parametrize("command", ["doctor"])
def test_a_name_that_is_not_utf8(command: str, simulated_nvml: Path, store: Path) -> None:
    """It is shown with marks in the place of what is no text, and the other GPU beside it."""
    host = environment(gpus(2), simulated_nvml, epoch_ns=time.monotonic_ns())
    scenario = Path(host["SIMULATED_NVML_SCENARIO"])
    scenario.write_bytes(
        scenario.read_bytes().replace(b"name NVIDIA H100 80GB HBM3", b"name \xf8\x95\xa0GPU", 1)
    )
    done = subprocess.run(
        [LLEM, command, "--store", store], env=host, capture_output=True, text=True, timeout=120, check=False
    )
    assert "internal error" not in done.stderr
    assert "���GPU" in done.stdout and "NVIDIA H100" in done.stdout
