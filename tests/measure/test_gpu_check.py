"""The check of a real GPU, as far as it can be tried without one."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pynvml
import pytest

from benchmarks import gpu_sensors
from benchmarks.nvml_functions import FIELD_VALUES, FUNCTIONS
from tests.delays import best_of_rounds, delays
from tests.measure.gpu_host import gpu
from tests.servers.test_real_servers import needs_transformers
from tests.simulated_nvml.build import environment
from tests.simulated_nvml.scenario import NOT_SUPPORTED, Fault, Scenario

ROOT = Path(__file__).parents[2]
HANDLES = {
    "nvmlDeviceGetCount",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetMigDeviceHandleByIndex",
}
# What a check leaves as it is, and what it would have to ask for a clock first.
SETTINGS = {
    "nvmlDeviceGetSupportedGraphicsClocks",
    "nvmlDeviceResetGpuLockedClocks",
    "nvmlDeviceSetGpuLockedClocks",
    "nvmlDeviceSetPowerManagementLimit",
}


def check(folder: Path, scenario: Scenario, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", *options],
        env=environment(scenario, folder, epoch_ns=time.monotonic_ns()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_without_a_gpu_it_says_so(simulated_nvml: Path) -> None:
    """One line and exit status 2."""
    done = check(simulated_nvml, Scenario(gpus=[], driver_absent=True))
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") == 1 and "no GPU" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3000)
@best_of_rounds
def test_on_simulated_gpus_it_is_whole_and_not_kept(simulated_nvml: Path) -> None:
    """Every part is there, what is not supported has its reason, and nothing is written to docs/validation."""
    before = set((ROOT / "docs" / "validation").iterdir())
    without_throttling = [Fault(function="throttle", code=NOT_SUPPORTED)]
    first = gpu(0, load_w=(90.0, 590.0), seen=(1.0, 0.1), faults=without_throttling)
    scenario = Scenario(gpus=[first, gpu(1)])
    options = ("--engine", "simulated", "--seconds", "2", "--calibration-seconds", "8", "--models")
    done = check(simulated_nvml, scenario, *options, "llama-1b")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["device"], found["engine"]) == (scenario.gpus[0].name, "simulated")
    assert found["nvml"]["nvmlDeviceGetCurrentClocksEventReasons"] == {
        "reason": "not supported by this device"
    }
    assert set(found["nvml"]) == {*FUNCTIONS, *FIELD_VALUES}
    measured = found["measurements"]["llama-1b"]
    with delays():
        assert measured["counter_energy_j"] == pytest.approx(measured["integrated_energy_j"], rel=0.2)
        assert measured["sampler"]["counter_tick_ns"] == pytest.approx(20e6, rel=0.2)
    assert 0 < measured["sampler"]["cores"] < 1
    served = found["served"]["simulated"]
    assert served["serving"]["streamed_output_tokens"] == served["serving"]["server_output_tokens"] > 0
    assert served["counter_energy_j"] > 0 and served["sampler"]["samples"] > 0
    assert [row["sensor"] for row in found["calibration"]] == ["power_average_w", "power_w"]
    assert set((ROOT / "docs" / "validation").iterdir()) == before


@pytest.mark.slow
@pytest.mark.timeout(1000)
@needs_transformers
def test_a_served_model_is_checked_as_on_a_gpu(simulated_nvml: Path) -> None:
    """Under a simulated driver, by a small model that `transformers serve` runs on a CPU."""
    options = ("--engine", "simulated", "--seconds", "2", "--models", "--server", "transformers")
    options += ("--calibration-seconds", "8")
    on_a_cpu = ("--device", "cpu", "--served-shape", "128", "2")
    done = check(simulated_nvml, Scenario(gpus=[gpu(0, load_w=(90.0, 590.0))]), *options, *on_a_cpu)
    assert done.returncode == 0, done.stderr
    served = json.loads(done.stdout)["served"]["transformers"]
    assert served["serving"]["usage_output_tokens"] == served["serving"]["streamed_output_tokens"] > 0
    assert served["total_energy_j"] == served["counter_energy_j"] > 0


def test_every_function_that_the_meter_asks_is_checked() -> None:
    """The list of functions holds all that stand in the meters' sources but for those that set a GPU, and no others."""
    sources = "\n".join(path.read_text() for path in (ROOT / "llem" / "meters").glob("nvml*.py"))
    asked = set(re.findall(r"pynvml\.(nvmlDevice\w+)", sources))
    assert asked - HANDLES - SETTINGS == set(FUNCTIONS)
    assert all(hasattr(pynvml, name) for name in FUNCTIONS)
    assert set(re.findall(r"pynvml\.(NVML_FI_\w+)", sources)) == set(FIELD_VALUES)


@pytest.mark.slow
def test_the_page_shows_what_the_recorded_sensors_said() -> None:
    """Every line of the table of square waves is what the recorded trace gives."""
    recorded = gpu_sensors.read(ROOT / "benchmarks" / "data" / "h200_square_waves")
    page = (ROOT / "docs" / "accuracy.md").read_text().splitlines()
    assert [line for line in gpu_sensors.table(recorded) if line not in page] == []
