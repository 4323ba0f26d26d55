"""What a process ran on: hardware, driver, Python and package versions."""

from datetime import datetime

import msgspec


class GPUEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """The first GPU of the process."""

    name: str | None = None
    vram_total_mb: float | None = None
    compute_capability: str | None = None
    pcie_gen: int | None = None
    mig_enabled: bool | None = None


class CUDAEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """CUDA runtime and driver."""

    version: str | None = None
    driver_version: str | None = None
    cudnn_version: str | None = None


class ThermalEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """Temperature and power limits of the GPU when the process started."""

    temperature_c: float | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    fan_speed_pct: float | None = None


class CPUEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """Processor and operating system."""

    governor: str | None = None
    model: str | None = None
    platform: str | None = None


class ContainerEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the process ran in a container."""

    detected: bool | None = None
    runtime: str | None = None


class HardwareEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine; `gpu` and `cuda` are None where there is none."""

    gpu: GPUEnvironment | None = None
    cuda: CUDAEnvironment | None = None
    thermal: ThermalEnvironment = ThermalEnvironment()
    cpu: CPUEnvironment = CPUEnvironment()
    container: ContainerEnvironment = ContainerEnvironment()
    collected_at: datetime | None = None


class EnvironmentSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about the surroundings that can change a figure."""

    hardware: HardwareEnvironment = HardwareEnvironment()
    python_version: str | None = None
    packages: dict[str, str] = {}  # name -> version
    tool_version: str | None = None
    cuda_version: str | None = None
    cuda_version_source: str | None = None

    @property
    def summary_line(self) -> str:
        """The surroundings in one line, as in "A100-SXM4 80GB | CUDA 12.4 | Driver 535.104 | 42C | container"."""
        words = [*_processor_words(self.hardware), *_state_words(self.hardware)]
        return " | ".join(words)


def _processor_words(hardware: HardwareEnvironment) -> list[str]:
    if hardware.gpu is None:
        return [hardware.cpu.model] if hardware.cpu.model else []
    name = (hardware.gpu.name or "unknown GPU").removeprefix("NVIDIA ")
    memory_mb = hardware.gpu.vram_total_mb
    return [name if memory_mb is None else f"{name} {round(memory_mb / 1024)}GB"]


def _state_words(hardware: HardwareEnvironment) -> list[str]:
    cuda = hardware.cuda or CUDAEnvironment()
    facts = (
        ("CUDA {}", cuda.version),
        ("Driver {}", cuda.driver_version),
        ("{:.0f}C", hardware.thermal.temperature_c),
        ("container", hardware.container.detected or None),
    )
    return [text.format(fact) for text, fact in facts if fact is not None]
