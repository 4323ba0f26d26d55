"""The surroundings in one line."""

import msgspec

from llem.results import (
    ContainerEnvironment,
    CPUEnvironment,
    CUDAEnvironment,
    EnvironmentSnapshot,
    GPUEnvironment,
    HardwareEnvironment,
    ThermalEnvironment,
)

FULL = EnvironmentSnapshot(
    hardware=HardwareEnvironment(
        gpu=GPUEnvironment(name="NVIDIA A100-SXM4", vram_total_mb=81920.0),
        cuda=CUDAEnvironment(version="12.4", driver_version="535.104"),
        thermal=ThermalEnvironment(temperature_c=42.4),
        cpu=CPUEnvironment(model="EPYC 7742"),
        container=ContainerEnvironment(detected=True, runtime="docker"),
    ),
    python_version="3.11.9",
    packages={"torch": "2.5.0"},
)


def test_summary_of_a_gpu_machine() -> None:
    """GPU with its memory, CUDA, driver, temperature and container."""
    assert FULL.summary_line == "A100-SXM4 80GB | CUDA 12.4 | Driver 535.104 | 42C | container"


def test_summary_without_a_gpu_names_the_processor() -> None:
    """Nothing is said of what is not there."""
    hardware = HardwareEnvironment(cpu=CPUEnvironment(model="EPYC 7742"))
    assert EnvironmentSnapshot(hardware=hardware).summary_line == "EPYC 7742"
    assert EnvironmentSnapshot().summary_line == ""


def test_a_legal_zero_temperature_is_shown() -> None:
    """0 C is a temperature."""
    hardware = HardwareEnvironment(gpu=GPUEnvironment(), thermal=ThermalEnvironment(temperature_c=0.0))
    assert EnvironmentSnapshot(hardware=hardware).summary_line == "unknown GPU | 0C"


def test_snapshots_survive_the_log() -> None:
    """Plain maps, as the log holds them, give the same snapshot; unknown fields are left out."""
    plain = msgspec.to_builtins(FULL)
    assert msgspec.convert(plain | {"later_field": 1}, EnvironmentSnapshot) == FULL
