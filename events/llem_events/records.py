"""Parts of events: what is measured, what a meter read of it, and what became of a prompt."""

from typing import Literal

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an event."""


class Device(Record, frozen=True, kw_only=True):
    """What is measured, named by host + UUID; `index` is the driver's order on that host."""

    host: str
    uuid: str
    index: int
    name: str
    kind: Literal["gpu", "mig", "cpu_package", "dram", "process", "simulated"]
    mig_profile: str | None = None
    parent_uuid: str | None = None  # the GPU whose power a MIG instance's figure really is
    pci_id: str | None = None
    memory_bytes: int | None = None
    power_limit_mw: int | None = None


class EnergyEdge(Record, frozen=True, kw_only=True):
    """One device's energy counter read at the edge of a window."""

    device_uuid: str
    at_ns: int
    energy_mj: int | None = None
    reason: str | None = None  # why there is no reading


class MeteredDevice(Record, frozen=True, kw_only=True):
    """What a meter can say of one device; a missing column has its reason here."""

    device: Device
    energy_source: Literal["counter", "integrated", "estimated", "simulated"] | None
    power_kind: Literal["instant", "average", "derived"] | None = None
    power_window_ns: int | None = None  # averaging window of the power reading
    counter_tick_ns: int | None = None  # measured time between two changes of the energy counter
    missing: dict[str, str] = {}  # sample column -> why it is not measured


class Request(Record, frozen=True, kw_only=True):
    """One prompt's way through the engine. Padding and tokens after end-of-sequence are not tokens."""

    request_id: int
    batch_index: int
    batch_size: int
    arrival_ns: int
    start_ns: int
    first_token_ns: int | None = None
    end_ns: int
    input_tokens: int
    output_tokens: int
    token_times_ns: list[int] = []  # one per output token
    finish_reason: Literal["length", "eos", "stopped", "error"]
    error: str | None = None
    prompt: str | None = None  # text only when the plan asks for it
    output: str | None = None


class BaselinePower(Record, frozen=True, kw_only=True):
    device_uuid: str
    mean_power_w: float | None
    std_power_w: float | None
    samples: int
    reason: str | None = None
