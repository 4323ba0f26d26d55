"""Parts of events: what is measured, what a meter read of it, and what became of a prompt.

Texts that name a kind of something are open: `llem_events.texts` lists those that this llem knows. Integers have the range of the
column that will hold them.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an event."""


class Device(Record, frozen=True, kw_only=True):
    """What is measured, named by host + UUID; `index` is the driver's order on that host."""

    host: str
    uuid: str
    index: Int32
    name: str
    kind: str  # gpu, mig, cpu_package, dram, process or simulated
    mig_profile: str | None = None
    parent_uuid: str | None = None  # the GPU whose power a MIG instance's figure really is
    pci_id: str | None = None
    memory_bytes: Int64 | None = None
    power_limit_mw: Int64 | None = None


class EnergyEdge(Record, frozen=True, kw_only=True):
    """One device's energy counter read at the edge of a window."""

    device_uuid: str
    at_ns: Int64
    energy_mj: Int64 | None = None
    reason: str | None = None  # why there is no reading


class MeteredDevice(Record, frozen=True, kw_only=True):
    """What a meter can say of one device; a missing column has its reason here."""

    device: Device
    energy_source: str | None  # counter, integrated, estimated or simulated
    power_kind: str | None = None  # instant, average or derived
    power_window_ns: Int64 | None = None  # averaging window of the power reading
    counter_tick_ns: Int64 | None = None  # measured time between two changes of the energy counter
    missing: dict[str, str] = {}  # sample column -> why it is not measured


class Request(Record, frozen=True, kw_only=True):
    """One prompt's way through the engine. Padding and tokens after end-of-sequence are not tokens.

    Its times are one for each output token, or one for each chunk with how many tokens it brought, or none, with a reason:
    `llem_events.request_times` holds the rule.
    """

    request_id: Int64
    batch_index: Int32
    batch_size: Int32
    arrival_ns: Int64  # when it was due
    start_ns: Int64  # when work on it began, or its first byte was sent
    first_token_ns: Int64 | None = None
    end_ns: Int64
    input_tokens: Int32
    output_tokens: Int32
    token_times_ns: list[Int64] = []  # one per output token
    finish_reason: str  # length, eos, stopped or error
    error: str | None = None
    prompt: str | None = None  # text only when the plan asks for it
    output: str | None = None
    headers_ns: Int64 | None = None  # when a server's answer began
    # one per chunk: a piece of a stream, or a step that brought several tokens
    chunk_times_ns: list[Int64] = []
    chunk_tokens: list[Int32 | None] = []  # tokens of each chunk; None where nobody counted them
    times_reason: str | None = None  # why there are no times
    tokens_computed: Int64 | None = None  # with those not kept: of other beams, of drafts that were rejected
    cached_input_tokens: Int32 | None = None  # of the prompt, found in the server's cache
    usage_input_tokens: Int32 | None = None  # as the server counts them
    usage_output_tokens: Int32 | None = None
    reasoning_tokens: Int32 | None = None
    http_status: Int32 | None = None
    connection_reused: bool | None = None
    session_id: str | None = None  # requests of one conversation
    turn: Int32 | None = None  # within the session, from 0


class BaselinePower(Record, frozen=True, kw_only=True):
    device_uuid: str
    mean_power_w: float | None
    std_power_w: float | None
    samples: Int64
    reason: str | None = None


class StudyPlace(Record, frozen=True, kw_only=True):
    """Where in a study an experiment stands: which configuration it measures, and when in the schedule."""

    study_id: str
    cell_index: Int32
    cell: dict[str, Any]  # key of the plan -> what this cell sets it to
    block: Int32
    position: Int32  # within the block
    attempt: Int32 = 0
