"""Simulated GPUs for whole runs."""

from pathlib import Path

import pytest

from tests.measure.gpu_host import GpuHost
from tests.simulated_nvml.build import build, has_compiler


@pytest.fixture(scope="session")
def simulated_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the simulated NVML, compiled once."""
    if not has_compiler():
        pytest.skip("no C compiler: the simulated NVML cannot be built")
    folder = tmp_path_factory.mktemp("simulated-nvml")
    build(folder)
    return folder


@pytest.fixture
def gpu_host(simulated_nvml: Path, tmp_path: Path) -> GpuHost:
    """A host whose GPUs are simulated."""
    return GpuHost(simulated_nvml, tmp_path)
