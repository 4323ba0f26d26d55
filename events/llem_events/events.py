"""The vocabulary: every fact that a log can hold, one frozen Struct per event version, and the parts that they are made of."""

from typing import Annotated, Any, ClassVar, NamedTuple, Self

import msgspec
from msgspec import Meta

from llem_events.cleaning import clean, scrub_json

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
RUNNING_COLUMNS = 3  # the first of the columns, kept as differences: they go on from sample to sample
SCHEMA_VERSION = 2


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of an event."""


class Device(Record, frozen=True, kw_only=True):
    """What is measured, named by host + UUID; `index` is the driver's order on that host."""

    host: str
    uuid: str
    index: Int32
    name: str
    kind: str  # gpu, mig, cpu_package, dram, process, simulated, or wall: a whole machine at its plug
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


class OtherMeter(Record, frozen=True, kw_only=True):
    """A meter that a sampler reads beside its first, and what it can say of its devices."""

    meter: str
    devices: list[MeteredDevice]


# It holds texts and lists of numbers, so none is part of a cycle, and nobody needs to look for one in a million of them.
class Request(Record, frozen=True, kw_only=True, gc=False):
    """One prompt's way through the engine. Padding and tokens after end-of-sequence are not tokens.

    Its times are one for each output token, or one for each chunk with how many tokens it brought, or none, with a reason:
    `llem_events.request_events` holds the rule. What is said of a field here is its description in the published schema and
    the comment of its column in the tables.
    """

    request_id: Annotated[Int64, Meta(description="unique within the experiment's measurement")]
    batch_index: Annotated[Int32, Meta(description="batch that it ran in")]
    batch_size: Annotated[Int32, Meta(description="requests in that batch")]
    arrival_ns: Annotated[Int64, Meta(description="[ns, monotonic] when it was due")]
    start_ns: Annotated[
        Int64, Meta(description="[ns, monotonic] when work on it began, or its first byte was sent")
    ]
    first_token_ns: Annotated[
        Int64 | None, Meta(description="[ns, monotonic] first output token; NULL where none came")
    ] = None
    end_ns: Annotated[Int64, Meta(description="[ns, monotonic] when it was done")]
    input_tokens: Annotated[Int32, Meta(description="tokens of the prompt, without padding")]
    output_tokens: Annotated[Int32, Meta(description="tokens generated, without those after end-of-sequence")]
    token_times_ns: Annotated[
        list[Int64], Meta(description="[ns, monotonic] time of every output token")
    ] = []
    finish_reason: Annotated[
        str, Meta(description="length, eos, finished (of an import: one of both), stopped or error")
    ]
    error: Annotated[str | None, Meta(description="what went wrong; NULL where nothing did")] = None
    prompt: Annotated[str | None, Meta(description="text; NULL unless the plan asked for it")] = None
    output: Annotated[str | None, Meta(description="text; NULL unless the plan asked for it")] = None
    headers_ns: Annotated[
        Int64 | None, Meta(description="[ns, monotonic] when a server's answer began; NULL without a server")
    ] = None
    chunk_times_ns: Annotated[
        list[Int64],
        Meta(
            description="[ns, monotonic] time of every chunk: a piece of a stream, or a step that brought several tokens"
        ),
    ] = []
    chunk_tokens: Annotated[
        list[Int32 | None], Meta(description="tokens of each chunk; NULL in it where nobody counted them")
    ] = []
    times_reason: Annotated[
        str | None, Meta(description="why there are no times of tokens; NULL where there are")
    ] = None
    tokens_computed: Annotated[
        Int64 | None,
        Meta(
            description="tokens computed, with those of other beams and rejected drafts; NULL where not counted"
        ),
    ] = None
    cached_input_tokens: Annotated[
        Int32 | None,
        Meta(description="tokens of the prompt found in the server's cache; NULL where it does not say"),
    ] = None
    usage_input_tokens: Annotated[
        Int32 | None,
        Meta(description="tokens of the prompt as the server counts them; NULL where it does not say"),
    ] = None
    usage_output_tokens: Annotated[
        Int32 | None,
        Meta(description="tokens generated as the server counts them; NULL where it does not say"),
    ] = None
    reasoning_tokens: Annotated[
        Int32 | None,
        Meta(
            description="of the tokens generated, those of reasoning as the server counts them; NULL where it does not say"
        ),
    ] = None
    http_status: Annotated[
        Int32 | None, Meta(description="status of the server's answer; NULL without a server")
    ] = None
    connection_reused: Annotated[
        bool | None,
        Meta(description="whether it went over a connection that was open before; NULL without a server"),
    ] = None
    session_id: Annotated[
        str | None, Meta(description="conversation that it belongs to; NULL where it stands alone")
    ] = None
    turn: Annotated[
        Int32 | None, Meta(description="place within the conversation, from 0; NULL where it stands alone")
    ] = None


class BaselinePower(Record, frozen=True, kw_only=True):
    device_uuid: str
    mean_power_w: float | None
    std_power_w: float | None
    samples: Int64
    reason: str | None = None


# As many as steps of a training: none is part of a cycle.
class Region(Record, frozen=True, kw_only=True, gc=False):
    """A part of a wrapped program that it named itself; where two have one index, the later one says how it ended."""

    index: Int64  # unique within the worker, in the order of beginning
    name: str
    parent_index: Int64 | None = None  # the region that it stands in; None: in none
    process: str  # of the program, as it names itself: its id and when it started
    began_ns: Int64
    ended_ns: Int64 | None = None  # None: it had not ended yet
    tokens: Int64 | None = None  # that the program reported in it; None: it reported none
    requests: Int64 | None = None


class Estimated(Record, frozen=True, kw_only=True):
    """A value that was estimated, with the interval in which it lies at 95 %, or why there is none."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class StudyPlace(Record, frozen=True, kw_only=True):
    """Where in a study an experiment stands: which configuration it measures, and when in the schedule."""

    study_id: str
    cell_index: Int32
    cell: dict[str, Any]  # key of the plan -> what this cell sets it to
    block: Int32
    position: Int32  # within the block
    attempt: Int32 = 0
    # how often its block was begun anew after too long a pause: runs of earlier beginnings do not count
    block_restarts: Int32 = 0
    # of the study when this was started: its name, and how many cells and blocks were planned
    name: str | None = None
    cells: Int32 | None = None
    blocks: Int32 | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A past-tense fact; `TYPE` and `VERSION` are its name on the wire."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 2**20  # of its message: small bytes can become large objects in a reader

    def cleaned(self) -> Self:
        """The event as it may be kept: see `llem_events.cleaning`."""
        return clean(self)


class ExperimentStarted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "experiment_started"
    experiment_id: str
    plan: dict[str, Any]  # as resolved
    measurement_config_hash: str
    expected_processes: Int32
    labels: dict[str, str] = {}
    llem_version: str
    command: list[str] = []  # the wrapped program, for engine "command"
    study: StudyPlace | None = None  # None: not part of a study
    cell_hash: str | None = None  # of the configuration without what the study itself sets for each block
    # how many `llem measure` a launcher started for this experiment; None: one, without a launcher
    rank_count: Int32 | None = None


class ExperimentLabelled(Event, frozen=True, kw_only=True):
    """Somebody changed the labels of an experiment, which may long have ended."""

    TYPE: ClassVar[str] = "experiment_labelled"
    labels: dict[str, str | None]  # None: the label is removed


class StatedFactor(Record, frozen=True, kw_only=True):
    """A figure of a site that no sensor reads, and who says so."""

    factor: str  # pue, g_per_kwh, price_per_kwh, l_per_kwh or embodied_g_per_h
    value: float | None = None  # None: it depends on the time
    low: float | None = None
    high: float | None = None
    unit: str
    basis: str | None = None
    source: str
    date: str


class StatedIntensity(Record, frozen=True, kw_only=True):
    """Grams of CO2 equivalents per kilowatt-hour from one moment to another, in ns since 1970."""

    from_ns: Int64
    to_ns: Int64
    g_per_kwh: float
    low: float | None = None
    high: float | None = None


class FactorsStated(Event, frozen=True, kw_only=True):
    """A report of the experiment was written with these factors."""

    TYPE: ClassVar[str] = "factors_stated"
    MAX_BYTES: ClassVar[int] = 8 * 2**20
    report: str  # name of its file
    report_sha256: str
    factors: list[StatedFactor]
    hourly: list[StatedIntensity] = []  # those of the time in which the report's runs were measured


class ProcessStarted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "process_started"
    process_index: Int32
    devices: list[Device]
    engine: str
    versions: dict[str, str] = {}
    environment: dict[str, Any] = {}
    group_id: str | None = None  # processes that run one copy of the model together
    group_rank: Int32 | None = None  # within the group; tokens count on rank 0 only


class MeterStarted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "meter_started"
    meter: str
    process_index: Int32
    sample_hz: float
    devices: list[MeteredDevice]
    beside: list[OtherMeter] = []  # read at the same moments; their devices are no part of the total


class WindowOpened(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "window_opened"
    kind: str  # baseline, warmup, measurement, drain or guard
    window_index: Int32 = 0  # counts the windows of one kind within a process
    edges: list[EnergyEdge] = []


class WindowClosed(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "window_closed"
    kind: str  # baseline, warmup, measurement, drain or guard
    window_index: Int32 = 0
    edges: list[EnergyEdge] = []


class SamplesTaken(Event, frozen=True, kw_only=True):
    """Samples of one device by one meter, a column for each name in `llem_events.events.SAMPLE_COLUMNS`, in that order.

    Sample i of a column is least + n[i], and of a running column first + (least + n[1]) + ... + (least + n[i]), modulo 2^64,
    signed. `least` holds a signed 64-bit little-endian integer for each column, `first` one for each running column. `used` holds a byte
    for each column: bit k says that byte k of its numbers n, the lowest being byte 0, is anywhere above zero. Only these are in `planes`:
    `count` bytes for each, column by column, lowest byte first. `missing` marks values that were not measured,
    a row of bits for each column, most significant bit first, filled up to a whole byte; empty where all were.
    """

    TYPE: ClassVar[str] = "samples_taken"
    VERSION: ClassVar[int] = 2
    MAX_COUNT: ClassVar[int] = 2**16
    meter: str
    device_uuid: str
    count: int
    first: bytes
    least: bytes
    used: bytes
    planes: bytes
    missing: bytes = b""

    def __post_init__(self) -> None:
        """Raises ValueError where the lengths do not fit each other, so that no decoder reads beyond them."""
        columns, planes = len(self.used), int.from_bytes(self.used, "little").bit_count()
        if not 0 <= self.count <= self.MAX_COUNT:
            raise ValueError(f"samples: found {self.count}, expected at most {self.MAX_COUNT}")
        if columns < RUNNING_COLUMNS:
            raise ValueError(f"columns: found {columns}, expected at least {RUNNING_COLUMNS}")
        missing = columns * ((self.count + 7) // 8) if self.missing else 0
        lengths = 8 * RUNNING_COLUMNS, 8 * columns, self.count * planes, missing
        if (len(self.first), len(self.least), len(self.planes), len(self.missing)) != lengths:
            for name, expected in zip(("first", "least", "planes", "missing"), lengths, strict=True):
                if (found := len(getattr(self, name))) != expected:
                    raise ValueError(f"{name}: found {found} bytes, expected {expected}")


class SamplesDropped(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "samples_dropped"
    count: Int64
    reason: str


class BaselineMeasured(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "baseline_measured"
    position: str  # before, after or server_idle
    duration_s: float
    devices: list[BaselinePower]
    age_s: float = 0.0  # how old a reused baseline is
    reused_from: str | None = None  # the experiment it was measured in


class ModelLoaded(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "model_loaded"
    model_name: str
    weights: str  # pretrained, random or simulated
    source: str  # "hub", "path", "preset", "config" or "simulated"
    revision: str | None = None
    trust_remote_code: bool = False
    dtype: str | None = None
    device: str | None = None
    tokenizer: str | None = None
    parameters: Int64 | None = None
    # all that multiply a token: without look-up tables, with the output head
    non_embedding_parameters: Int64 | None = None
    layers: Int64 | None = None
    attention_heads: Int64 | None = None
    head_size: Int64 | None = None
    sliding_window: Int64 | None = None
    sliding_window_layers: Int64 | None = None  # layers that see only the window; None with a window: all
    output_head_parameters: Int64 | None = None  # part of the above, used for a prompt's last position only
    weights_bytes: Int64 | None = None
    load_time_ns: Int64 | None = None
    attention: str | None = None  # the implementation that transformers chose or was told: sdpa, eager ...
    # what generate kept between steps; "none" where every step computes all tokens again
    cache: str | None = None
    compiled: bool | None = None  # whether generate was told to compile the model
    quantization: str | None = None  # the method; None with a reason in `missing` where it is unknown
    adapter: str | None = None
    # what generate does otherwise than by default: the model's own, then the plan's
    generation: dict[str, Any] = {}
    doubts: list[str] = []  # why its figures may not be those of the model that is named
    missing: dict[str, str] = {}  # field -> why it is not known


class PromptsEncoded(Event, frozen=True, kw_only=True):
    """What the engine really gets; repeats of the set are not counted."""

    TYPE: ClassVar[str] = "prompts_encoded"
    prompts: Int64
    input_tokens: Int64
    prompt_set_sha256: str


class WarmupCompleted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "warmup_completed"
    latencies_ms: list[float]
    coefficient_of_variation: float | None
    converged: bool
    reason: str  # what ended the warm-up
    cooldown_s: float = 0.0
    temperature_start_c: float | None = None
    temperature_end_c: float | None = None


class RequestsCompleted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "requests_completed"
    MAX_BYTES: ClassVar[int] = 8 * 2**20  # a batch of 512 requests with 1,500 token times each
    window: str  # warmup or measurement
    requests: list[Request]


class RegionsReported(Event, frozen=True, kw_only=True):
    """Regions of a wrapped program that have ended since the event before, and those that began and have lasted for a second."""

    TYPE: ClassVar[str] = "regions_reported"
    regions: list[Region]


class WorkReported(Event, frozen=True, kw_only=True):
    """All work that a wrapped program has reported so far; None for what it never named."""

    TYPE: ClassVar[str] = "work_reported"
    tokens: Int64 | None = None
    input_tokens: Int64 | None = None
    output_tokens: Int64 | None = None
    requests: Int64 | None = None


class LoadPlanned(Event, frozen=True, kw_only=True):
    """What a load process is about to offer, written before its first request."""

    TYPE: ClassVar[str] = "load_planned"
    process_index: Int32
    window: str  # warmup or measurement
    kind: str  # open, closed or trace
    arrival: str | None = None  # constant, poisson or gamma; None where nothing is drawn
    rate_per_s: float | None = None
    burstiness: float | None = None  # shape of the gamma distribution; None without one
    concurrency: Int32 | None = None  # of a closed loop
    max_concurrency: Int32 | None = None  # cap of an open loop; None: no cap
    ramp_s: float = 0.0
    time_scale: float | None = None  # of a trace
    seed: Int64 | None = None
    requests: Int64 | None = None  # of the schedule; of a closed loop the least that are asked
    # of the intended times after `starts_ns`, as signed 64-bit little-endian ns; None for a closed loop
    schedule_sha256: str | None = None
    starts_ns: Int64


class RequestProgressed(Event, frozen=True, kw_only=True):
    """What a request that takes longer than a second has brought since the event before: together all of it so far."""

    TYPE: ClassVar[str] = "request_progressed"
    MAX_BYTES: ClassVar[int] = 8 * 2**20
    window: str
    request_id: Int64
    arrival_ns: Int64
    start_ns: Int64
    chunk_times_ns: list[Int64]
    chunk_tokens: list[Int32 | None]


class LoadCompleted(Event, frozen=True, kw_only=True):
    """A load process's account of one window: what it offered, and whether it could keep up."""

    TYPE: ClassVar[str] = "load_completed"
    process_index: Int32
    window: str
    requests: Int64  # that were due and have ended, however they did
    failed_requests: Int64
    input_tokens: Int64
    output_tokens: Int64
    starts_ns: Int64
    offered_ns: Int64  # when the last was sent, or the load was ended
    ended_ns: Int64
    connections: Int64  # that were opened
    # that the server had closed when they were used again; their requests were sent anew
    stale_connections: Int64
    # from when a request was due, and held back by no cap, to when the client turned to it: what the server takes to connect is not in it
    send_lag_p50_ns: Int64 | None = None
    send_lag_p99_ns: Int64 | None = None
    send_lag_max_ns: Int64 | None = None
    # how late the event loop came to a regular call
    loop_lag_p99_ns: Int64 | None = None
    loop_lag_max_ns: Int64 | None = None
    cpu_time_ns: Int64 | None = None  # of the whole process within the window
    peak_memory_bytes: Int64 | None = None  # of the process, since it started
    max_in_flight: Int32 = 0
    max_waiting: Int32 = 0  # due, and held back by the cap
    gave_up: str | None = None  # why it ended before its plan did


class DeviceSettingChanged(Event, frozen=True, kw_only=True):
    """A device was set otherwise for the length of the run, or put back after it."""

    TYPE: ClassVar[str] = "device_setting_changed"
    device_uuid: str
    setting: str  # power_limit_w or lock_clocks_mhz: a key of the plan's devices, with its unit
    before: float | None  # None: the driver decided, or does not tell
    asked: float | None  # None: left to the driver
    read_back: float | None = None  # what the driver says after it
    reason: str | None = None  # why nothing was read back
    restored: bool = False  # put back as it was before the run


class HostJoined(Event, frozen=True, kw_only=True):
    """One of several `llem measure` that a launcher started for this experiment is there; each writes its own."""

    TYPE: ClassVar[str] = "host_joined"
    rank: Int32
    size: Int32
    host: str
    launcher: str  # llem, torchrun, openmpi, pmi, slurm or kubernetes
    local_rank: Int32 | None = None  # None: the launcher does not say it
    local_size: Int32 | None = None
    node_rank: Int32 | None = None
    restart: Int32 = 0  # how often the launcher has started all ranks anew


class ClocksCompared(Event, frozen=True, kw_only=True):
    """The clocks of this rank's host minus those of rank 0's; the truth is within `error_ns` of both offsets."""

    TYPE: ClassVar[str] = "clocks_compared"
    position: str  # before or after what was measured
    rank: Int32
    host: str
    reference_host: str  # rank 0's
    offset_ns: Int64  # of the wall clocks
    monotonic_offset_ns: Int64  # of the monotonic clocks
    error_ns: Int64  # half of the least round trip
    exchanges: Int32


class SensorCalibrated(Event, frozen=True, kw_only=True):
    """What one power sensor of a device makes of a load that is known: in the log of the run that found it out, and of each that relies on it."""

    TYPE: ClassVar[str] = "sensor_calibrated"
    host: str
    device_uuid: str
    driver: str | None = None  # version; None: the device has no driver of its own
    sensor: str  # the column of samples: power_mw or power_average_mw
    reason: str | None = None  # why nothing that was found is to be relied on
    # another process had the device open, as the driver said when the load had ended
    others_busy: bool = False
    # boxcar, none (a reading is the power of a moment, as far as can be told) or other
    averages: str | None = None
    explained: float | None = None  # share of the readings' variance that the load explains
    power_refresh_s: Estimated = Estimated()
    energy_refresh_s: Estimated = Estimated()  # of the energy counter
    averaging_window_s: Estimated = Estimated()
    delay_s: Estimated = Estimated()  # of the averaging window's end behind the reading
    seen_share: Estimated = Estimated()  # of the time
    counter_over_power: Estimated = Estimated()  # at constant load
    idle_w: Estimated = Estimated()
    idle_spread_w: Estimated = Estimated()
    load_w: Estimated = Estimated()
    settling_s: Estimated = Estimated()  # of constant load, until the temperature stands still
    experiment_id: str | None = None  # that found it out; None: the one whose log this is
    age_s: float = 0.0  # since then


class WarningRaised(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "warning_raised"
    code: str
    text: str
    value: float | None = None
    threshold: float | None = None
    device_uuid: str | None = None


class ServerStarted(Event, frozen=True, kw_only=True):
    """A serving engine answers: started here, or found running. None of its times opens a window."""

    TYPE: ClassVar[str] = "server_started"
    kind: str
    managed: bool  # False: somebody else's, which is left running
    adopted_from: str | None = None  # the experiment that started it, where an earlier one did
    url: str
    model: str | None = None  # its name in requests
    pid: Int64 | None = None
    version: str | None = None
    argv: list[str] = []
    started_ns: Int64 | None = None
    port_open_ns: Int64 | None = None
    healthy_ns: Int64 | None = None
    first_answer_ns: Int64 | None = None
    # the counters of tokens among what it says of itself; None: it is not known to have any
    input_tokens_metric: str | None = None
    output_tokens_metric: str | None = None


class ServerStopped(Event, frozen=True, kw_only=True):
    """A server that was started here is gone, asked to or not."""

    TYPE: ClassVar[str] = "server_stopped"
    exit_status: Int64 | None = None  # None: ended by a signal, or not known
    signal: str | None = None
    # from being asked to end until the last of its processes was gone; None: not asked
    stop_ns: Int64 | None = None
    memory_returned: bool | None = None  # of its GPUs; None: not known
    last_lines: list[str] = []


class ServerMetricsRead(Event, frozen=True, kw_only=True):
    """What a server says of itself: for each name of a metric its values at these times, None where it was not there."""

    TYPE: ClassVar[str] = "server_metrics_read"
    MAX_BYTES: ClassVar[int] = 8 * 2**20
    names: list[str]  # with their labels, as the server writes them
    times_ns: list[Int64]
    values: list[list[float | None]]


class StudyStarted(Event, frozen=True, kw_only=True):
    """What is to be measured, and in which order; stands in a segment of its own beside the experiments'."""

    TYPE: ClassVar[str] = "study_started"
    study_id: str
    name: str | None = None
    plan: dict[str, Any]  # as written, the study's own part included
    command: list[str] = []  # the wrapped program
    cells: list[dict[str, Any]]  # of each configuration, key of the plan -> what it sets it to
    schedule: list[list[Int32]]  # block, position within it, index of the cell
    order: str  # how the schedule was made: random or as_written
    seed: Int64  # of that
    reference_cell: Int32 = 0  # with which the others are compared
    llem_version: str


class StudyResumed(Event, frozen=True, kw_only=True):
    """It goes on after it was left, or with more blocks."""

    TYPE: ClassVar[str] = "study_resumed"
    study_id: str
    runs_left: Int32
    reason: str  # interrupted, or more blocks were asked for
    schedule: list[list[Int32]]  # the whole schedule from now on, of which the one before is the beginning


class StudyCompleted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "study_completed"
    study_id: str
    runs: Int32  # that count: one for each place of the schedule
    failed_runs: Int32  # places of the schedule that no attempt filled


class StudyInterrupted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "study_interrupted"
    study_id: str
    reason: str
    runs: Int32
    runs_left: Int32


class ProcessCompleted(Event, frozen=True, kw_only=True):
    """The completion marker; a process without it makes its experiment incomplete."""

    TYPE: ClassVar[str] = "process_completed"
    process_index: Int32
    requests: Int64 | None = None  # None for a wrapped program, which has no requests
    failed_requests: Int64 | None = None
    input_tokens: Int64 | None = None
    output_tokens: Int64 | None = None
    batches: Int64 | None = None
    peak_memory_bytes: Int64 | None = None
    stopped_early: bool = False
    exit_status: Int64 | None = None  # of the wrapped program


class ProcessFailed(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "process_failed"
    process_index: Int32
    error_type: str
    message: str
    stage: str


class SamplingCompleted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "sampling_completed"
    samples: Int64
    samples_dropped: Int64
    deadlines_missed: Int64
    max_gap_ns: Int64 | None = None
    jitter_p99_ns: Int64 | None = None
    cpu_time_ns: Int64 | None = None


class ClockRead(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "clock_read"
    monotonic_ns: Int64
    wall_ns: Int64


class LogFailed(Event, frozen=True, kw_only=True):
    """Written from the reserve when the disk refused a block; what `events_lost` counts was never acknowledged."""

    TYPE: ClassVar[str] = "log_failed"
    error: str
    events_lost: Int64


class ResultImported(Event, frozen=True, kw_only=True):
    """What another program measured, with its file, or of a file with several runs the part that is of this one.

    Without the secrets in it, unless somebody asked for every byte.
    """

    TYPE: ClassVar[str] = "result_imported"
    MAX_BYTES: ClassVar[int] = 8 * 2**20
    format: str  # "llenergymeasure-2.0", "nvidia-smi" ...
    file_name: str
    file_sha256: str
    original: bytes
    bytes_kept: bool = True  # False: secrets were taken out, so that `file_sha256` is of another text

    def cleaned(self) -> Self:
        """The same, with the file's texts cleaned where its bytes need not be kept."""
        return clean(
            self if self.bytes_kept else msgspec.structs.replace(self, original=scrub_json(self.original))
        )


class ExperimentCompleted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "experiment_completed"
    processes_completed: Int64
    processes_failed: Int64
    # what went wrong though every worker has measured to its end: a sampler died, or a wrapped program says that it failed
    failure: str | None = None


class ExperimentInterrupted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "experiment_interrupted"
    reason: str
    processes_completed: Int64
    processes_failed: Int64


EVENT_TYPES: tuple[type[Event], ...] = (
    ExperimentStarted,
    ExperimentLabelled,
    FactorsStated,
    ProcessStarted,
    MeterStarted,
    WindowOpened,
    WindowClosed,
    SamplesTaken,
    SamplesDropped,
    BaselineMeasured,
    ModelLoaded,
    PromptsEncoded,
    WarmupCompleted,
    RequestsCompleted,
    RegionsReported,
    WorkReported,
    LoadPlanned,
    RequestProgressed,
    LoadCompleted,
    DeviceSettingChanged,
    HostJoined,
    ClocksCompared,
    SensorCalibrated,
    WarningRaised,
    ServerStarted,
    ServerStopped,
    ServerMetricsRead,
    ProcessCompleted,
    ProcessFailed,
    SamplingCompleted,
    ClockRead,
    LogFailed,
    ResultImported,
    StudyStarted,
    StudyResumed,
    StudyCompleted,
    StudyInterrupted,
    ExperimentCompleted,
    ExperimentInterrupted,
)


class Reading(NamedTuple):
    """Integers in the meter's own resolution; None where the device has no such figure."""

    at_ns: int  # host's monotonic clock, taken just after the power was read
    energy_mj: int | None = None  # energy counter since the driver was loaded
    power_average_mw: int | None = None  # the driver's 1 s average, where it differs from power_mw
    power_mw: int | None = None
    temperature_c: int | None = None
    gpu_utilisation_pct: int | None = None
    memory_utilisation_pct: int | None = None
    memory_used_bytes: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: int | None = None  # NVML's clocks-event-reasons bit mask
    power_limit_mw: int | None = None


SAMPLE_COLUMNS: tuple[str, ...] = Reading._fields
