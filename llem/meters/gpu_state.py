"""What the NVIDIA driver and every GPU are set to: what changes a figure besides the load."""

import msgspec

from llem_events.events import Device


class GpuState(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; None where the driver does not say."""

    device: Device
    instances: list[Device] = []
    compute_capability: str | None = None
    pcie_generation: int | None = None
    numa_node: int | None = None
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    sm_application_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    fan_speed_pct: int | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    ecc_enabled: bool | None = None
    mig_enabled: bool | None = None
    persistence_enabled: bool | None = None
    compute_mode: str | None = None
    process_ids: list[int] | None = None


class DriverState(msgspec.Struct, frozen=True, kw_only=True):
    """The driver and its GPUs; `cuda_version` is the newest that the driver can run."""

    version: str | None
    cuda_version: str | None
    gpus: list[GpuState]
