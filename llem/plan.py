"""What is to be measured: TOML and options, resolved into frozen Structs that forbid unknown keys."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llem.registry import ENGINES, METERS, SERVERS

if TYPE_CHECKING:
    EngineName = str
    MeterName = str
    OtherMeterName = str
    ServerName = str
else:
    EngineName = Literal[*ENGINES]
    MeterName = Literal["auto", *METERS]
    OtherMeterName = Literal[*METERS]
    ServerName = Literal[*SERVERS]

MAX_TOKENS = 10_000_000
MAX_REQUESTS = 1_000_000
YEAR_S = 366 * 24 * 3600
MAX_PAUSE_S = 60.0

Positive = Annotated[int, Meta(gt=0, lt=2**31)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Connections = Annotated[int, Meta(gt=0, le=65_536)]
Tokens = Annotated[int, Meta(gt=0, le=MAX_TOKENS)]
Seconds = Annotated[float, Meta(ge=0, le=YEAR_S)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=YEAR_S)]
Milliseconds = Annotated[float, Meta(ge=0, le=YEAR_S)]
Watts = Annotated[float, Meta(gt=0, le=1e9)]
# no text of a plan is longer than a path
Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(max_length=256)]
Labels = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=128)], Annotated[str, Meta(max_length=1024)]],
    Meta(max_length=64, description="stored with the experiment"),
]
RequestIds = Annotated[list[Annotated[int, Meta(ge=0, le=2**63 - 1)]], Meta(max_length=10_000)]
GpuNames = Annotated[list[Name], Meta(min_length=1, max_length=4096)]
Curve = Annotated[list[tuple[Seconds, Annotated[float, Meta(ge=0, le=1e9)]]], Meta(max_length=10_000)]


def says(meaning: str) -> Meta:
    """The meaning of a key, which `llem measure --dry-run` prints beside it."""
    return Meta(description=meaning)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the plan."""


class ModelPlan(Section, frozen=True, kw_only=True):
    """Which model, from where."""

    name: Annotated[Text, says("preset, local folder or hub name")] = "tiny-llama"
    weights: Annotated[
        Literal["random", "pretrained"] | None,
        says("not set: random for presets and configurations, else pretrained"),
    ] = None
    config: Annotated[Text | None, says("path to a config.json, for random weights")] = None
    dtype: Annotated[Literal["auto", "float32", "float16", "bfloat16"], says("of the weights")] = "auto"
    revision: Annotated[Text | None, says("of a hub name: a branch, a tag or a commit")] = None
    trust_remote_code: Annotated[bool, says("run code of the model's repository; needs a commit")] = False
    seed: Annotated[Seed, says("of random weights")] = 0
    allow_missing: Annotated[
        bool, says("measure and label a model whose weights are not all in its files")
    ] = False
    load: Annotated[
        dict[str, Any],
        says("handed to from_pretrained: attn_implementation, quantization_config, device_map ..."),
    ] = {}


class SimulatedEnginePlan(Section, frozen=True, kw_only=True):
    """Delays of the simulated engine."""

    prefill_ms: Annotated[Milliseconds, says("until the first token of a batch")] = 5.0
    token_ms: Annotated[Milliseconds, says("between two tokens")] = 2.0
    load_ms: Annotated[Milliseconds, says("for loading")] = 0.0
    jitter: Annotated[Fraction, says("spread of the delays, seeded")] = 0.0
    fail_requests: Annotated[RequestIds, says("request ids that end in an error")] = []
    fail_after_batches: Annotated[Positive | None, says("after so many, every request ends in an error")] = (
        None
    )
    crash_after_batches: Annotated[Positive | None, says("end the worker with an error after so many")] = None


class EnginePlan(Section, frozen=True, kw_only=True):
    """What runs the model."""

    name: Annotated[EngineName, says("the engine")] = "transformers"
    device: Annotated[Text, says("auto, cpu, cuda or cuda:N")] = "auto"
    batch_size: Annotated[Positive, says("prompts that run together")] = 4
    parallel: Annotated[
        Literal["none", "tp"], says("tp: all ranks of the launcher hold a part of each layer of one model")
    ] = "none"
    simulated: SimulatedEnginePlan = SimulatedEnginePlan()


class LengthPlan(Section, frozen=True, kw_only=True):
    """A distribution of token counts: fixed at `mean`, uniform in [min, max], or lognormal cut to [min, max]."""

    kind: Annotated[Literal["fixed", "uniform", "lognormal"], says("the distribution")] = "fixed"
    mean: Annotated[Tokens, says("of fixed and lognormal lengths, before the cut")] = 32
    spread: Annotated[Fraction, says("lognormal: standard deviation of the logarithm")] = 0.3
    min: Annotated[Tokens, says("of uniform and lognormal lengths")] = 1
    max: Annotated[Tokens, says("of uniform and lognormal lengths")] = 4096


class PrefixPlan(Section, frozen=True, kw_only=True):
    """Tokens that synthetic prompts begin with and have in common, as those of one application do."""

    share: Annotated[Fraction, says("of the prompts, those that begin with them")] = 0.0
    tokens: Annotated[Tokens, says("put before the prompt's own")] = 512
    groups: Annotated[Positive, says("so many different beginnings")] = 1


class WorkloadPlan(Section, frozen=True, kw_only=True):
    """What is asked of the model."""

    source: Annotated[
        Literal["synthetic", "file"],
        says("seeded token ids, or the prompts of a file; a path means the file"),
    ] = "synthetic"
    path: Annotated[
        Text | None, says("JSON Lines, JSON array, CSV with a header, or one prompt a line; also .gz, .zst")
    ] = None
    chat: Annotated[
        Literal["auto", "always", "never"],
        says("apply the model's chat template: to messages, to every prompt, or never: their texts alone"),
    ] = "auto"
    special_tokens: Annotated[
        Literal["auto", "always", "never"],
        says("what the tokenizer adds: no second begin token, all that it adds, or nothing"),
    ] = "auto"
    too_long: Annotated[
        Literal["fail", "skip", "truncate"],
        says("a prompt too long for the model: fails, is left out, or loses its beginning"),
    ] = "fail"
    requests: Annotated[
        Annotated[int, Meta(gt=0, le=MAX_REQUESTS)], says("over all processes; every process takes its share")
    ] = 32
    min_duration_s: Annotated[Seconds, says("the prompts are repeated until so much time has passed")] = 12.0
    max_duration_s: Annotated[
        PositiveSeconds | None, says("stop at the next batch's end after so much time")
    ] = None
    max_failed_batches: Annotated[
        Positive, says("end the run after so many batches in a row without a request that succeeded")
    ] = 10
    shift_pauses_s: Annotated[
        Annotated[float, Meta(ge=0, le=MAX_PAUSE_S)],
        says("random pauses of up to so long between batches: the load keeps no step with a sensor"),
    ] = 0.0
    input_tokens: LengthPlan = LengthPlan(mean=32)
    output_tokens: LengthPlan = LengthPlan(mean=32)
    prefix: PrefixPlan = PrefixPlan()
    seed: Annotated[Seed, says("of lengths and synthetic prompts")] = 42
    record_text: Annotated[bool, says("keep prompts and outputs as text in the log")] = False


class LoadPlan(Section, frozen=True, kw_only=True):
    """When requests are sent to a server."""

    kind: Annotated[
        Literal["closed", "open", "trace"],
        says("closed: the next when one ends; open: at a rate; trace: at a file's times"),
    ] = "closed"
    concurrency: Annotated[Connections, says("closed: requests that are always in flight")] = 8
    rate: Annotated[PositiveFloat | None, says("open: requests a second; set alone, it means open")] = None
    arrival: Annotated[
        Literal["poisson", "constant", "gamma"], says("open: how the times between two requests are spread")
    ] = "poisson"
    burstiness: Annotated[
        Annotated[float, Meta(ge=0.01, le=1000)],
        says("gamma: shape of the times between two requests; 1 is Poisson, less comes in bursts"),
    ] = 1.0
    max_concurrency: Annotated[
        Connections | None,
        says("open, trace: at most so many in flight; a request that waits keeps its due time"),
    ] = None
    ramp_s: Annotated[Seconds, says("the rate, or the concurrency, rises to its value over so much time")] = (
        0.0
    )
    trace: Annotated[
        Text | None,
        says("JSON Lines of timestamp (ms), input_length and output_length; set alone, it means trace"),
    ] = None
    time_scale: Annotated[PositiveFloat, says("trace: 2 takes twice as long")] = 1.0
    endpoint: Annotated[
        Literal["auto", "completions", "chat"], says("auto: chat for prompts of messages, else completions")
    ] = "auto"
    drain_s: Annotated[Seconds, says("for what is in flight when the last request has been sent")] = 30.0
    timeout_s: Annotated[PositiveSeconds, says("a request that brings nothing for so long has failed")] = (
        600.0
    )

    @property
    def offered(self) -> str:
        """In words."""
        return {
            "closed": f"{self.concurrency} request{'' if self.concurrency == 1 else 's'} in flight",
            "open": f"{self.rate or 0:g} requests/s",
            "trace": f"the times of {self.trace}",
        }[self.kind]


class SimulatedServerPlan(Section, frozen=True, kw_only=True):
    """Delays of the simulated server."""

    prefill_ms: Annotated[Milliseconds, says("until the first token of a request")] = 20.0
    token_ms: Annotated[Milliseconds, says("between two tokens")] = 5.0
    tokens_per_chunk: Annotated[Positive, says("tokens in each piece of a stream")] = 1
    load_ms: Annotated[Milliseconds, says("until it says that it is ready")] = 0.0
    jitter: Annotated[Fraction, says("spread of the delays, seeded")] = 0.0
    seed: Annotated[Seed, says("of the jitter")] = 42
    slots: Annotated[Positive | None, says("requests at a time, others wait; not set: all")] = None
    overstates: Annotated[
        Fraction, says("says that it wrote so many more tokens than it did, as a fraction")
    ] = 0.0
    fail_requests: Annotated[RequestIds, says("which requests, counted from 1, get status 500")] = []
    crash_after_requests: Annotated[Positive | None, says("end the server after so many")] = None


class ServerPlan(Section, frozen=True, kw_only=True):
    """A serving engine in processes of its own, in the place of [engine]; set, requests are sent to it as [load] says."""

    kind: Annotated[
        ServerName | None, says("what serves; a url alone means url, a command alone command")
    ] = None
    url: Annotated[Text | None, says("of a server that runs already, and is left running")] = None
    command: Annotated[
        list[Text], says("starts any other server; {host}, {port} and {model} in it are filled in")
    ] = []
    args: Annotated[list[Text], says("put at the end of the server's command line")] = []
    env: Annotated[dict[Name, Text], says("variables of the server")] = {}
    api_key_env: Annotated[Name | None, says("the variable that holds the key which requests carry")] = None
    port: Annotated[Annotated[int, Meta(gt=0, lt=2**16)] | None, says("not set: a free one")] = None
    ready_timeout_s: Annotated[PositiveSeconds, says("until the server has answered a first request")] = 900.0
    stop_timeout_s: Annotated[Seconds, says("for the server to end before it is killed")] = 30.0
    simulated: SimulatedServerPlan = SimulatedServerPlan()


class OwnGenerationPlan(Section, frozen=True, kw_only=True):
    """The keys of `generation` that are llem's and are never handed on."""

    seed: Annotated[Seed, says("of all draws; a batch's depend on it and on the batch's index")] = 42
    ignore_eos: Annotated[bool, says("run every request to its limit")] = False


class SimulatedMeterPlan(Section, frozen=True, kw_only=True):
    """Power curve of the simulated meter: named, or rows of (seconds, watts) that repeat."""

    curve: Annotated[
        Literal["constant", "square", "ramp"] | Curve, says("or rows such as [[0.5, 100.0], [1.0, 200.0]]")
    ] = "constant"
    power_w: Annotated[Watts, says("of the named curves at most")] = 100.0
    period_s: Annotated[Annotated[float, Meta(ge=0.001, le=YEAR_S)], says("of the named curves")] = 2.0
    counter_tick_ms: Annotated[Milliseconds, says("of the energy counter; 0: it has none")] = 10.0


class MeterPlan(Section, frozen=True, kw_only=True):
    """What reads power."""

    name: Annotated[MeterName, says("auto: the best that is here")] = "auto"
    also: Annotated[list[OtherMeterName], says('read beside it, such as ["rapl"]; no part of the total')] = []
    sample_hz: Annotated[
        Annotated[float, Meta(ge=0.001, le=100)] | None,
        says("samples a second; not set: from the counter's tick"),
    ] = None
    estimate_watts_per_core: Annotated[Watts, says("of the estimate: stated, not measured")] = 10.0
    simulated: SimulatedMeterPlan = SimulatedMeterPlan()

    @property
    def names(self) -> list[str]:
        """Every meter, the first of which is that of the total."""
        return [self.name, *self.also]


class DevicesPlan(Section, frozen=True, kw_only=True):
    """Where it runs: one process per entry."""

    gpus: Annotated[
        GpuNames | None, says('indices or UUIDs such as ["0"]; not set: all visible, or the CPU')
    ] = None
    workers: Annotated[Annotated[int, Meta(gt=0, le=4096)] | None, says("processes; not set: one a GPU")] = (
        None
    )
    gpus_per_worker: Annotated[Annotated[int, Meta(gt=0, le=4096)], says("GPUs of each process")] = 1
    power_limit_w: Annotated[
        Watts | None, says("set on each GPU for the run, and put back after it; needs permission")
    ] = None
    lock_clocks_mhz: Annotated[
        Annotated[int, Meta(gt=0, le=100_000)] | None, says("the same: the SM clock is held there")
    ] = None

    @property
    def settings(self) -> dict[str, float]:
        """What is set on every device for the length of the run, by the key's name."""
        found = {"power_limit_w": self.power_limit_w, "lock_clocks_mhz": self.lock_clocks_mhz}
        return {setting: float(value) for setting, value in found.items() if value is not None}


class WindowsPlan(Section, frozen=True, kw_only=True):
    """The order of a measurement: baseline, load, cool-down, warm-up, measurement, baseline again."""

    baseline_s: Annotated[Seconds, says("idle before loading")] = 3.0
    guard_s: Annotated[
        Seconds | None,
        says(
            "idle right after the measurement; not set: 1.6 where a 1 s average is all that tells power, else 0"
        ),
    ] = None
    baseline_after_s: Annotated[Seconds, says("idle after the measurement")] = 2.0
    baseline_from: Annotated[
        Text | None, says("an experiment of the store whose idle baseline stands for the first")
    ] = None
    baseline_max_age_s: Annotated[PositiveSeconds, says("of a baseline that is reused")] = 3600.0
    cooldown_max_s: Annotated[Seconds, says("wait for the temperature, where there is one")] = 30.0
    warmup_min_batches: Annotated[Positive, says("at least so many")] = 5
    warmup_max_batches: Annotated[Positive, says("at most so many")] = 30
    warmup_max_s: Annotated[PositiveSeconds, says("at most so long")] = 30.0
    warmup_cv: Annotated[PositiveFloat, says("done when the last batches' times vary less than this")] = 0.05


class LogPlan(Section, frozen=True, kw_only=True):
    """How the log is kept."""

    sync: Annotated[Literal["block", "close"], says("write to the disk at every block, or at the end")] = (
        "block"
    )


class ValidityPlan(Section, frozen=True, kw_only=True):
    """Thresholds of the verdict; stored beside it."""

    min_duration_s: Annotated[NonNegativeFloat, says("of the measurement")] = 10.0
    min_samples: Annotated[Positive, says("of each device")] = 20
    max_sample_gap_s: Annotated[PositiveFloat, says("between two samples")] = 1.0
    max_temperature_drift_c: Annotated[PositiveFloat, says("over the measurement")] = 10.0
    max_energy_disagreement: Annotated[PositiveFloat, says("between counter and integrated power")] = 0.05
    max_uncertainty: Annotated[PositiveFloat, says("of the energy, as far as its bound is known")] = 0.10
    max_failed_requests: Annotated[Fraction, says("of all requests")] = 0.05
    max_send_lag_ms: Annotated[
        PositiveFloat,
        says("of a load process: 99th percentile from when a request is due to when it is sent"),
    ] = 10.0
    max_client_cpu: Annotated[PositiveFloat, says("cores that a load process may use")] = 0.8
    max_client_lag_ms: Annotated[
        PositiveFloat, says("of a load process: 99th percentile of how late it comes to what it planned")
    ] = 5.0
    min_rate_held: Annotated[
        Fraction, says("of the rate at which requests are due, that at which they are sent")
    ] = 0.99
    max_count_disagreement: Annotated[PositiveFloat, says("between our tokens and the server's counts")] = (
        0.01
    )
    max_clock_error: Annotated[
        PositiveFloat,
        says("of the measurement: how well clocks of several hosts are known, and how far apart they begin"),
    ] = 0.01
    max_throttled: Annotated[Fraction, says("of the samples")] = 0.0
    steady_state_tolerance: Annotated[PositiveFloat, says("of throughput and power in the steady state")] = (
        0.05
    )
    steady_state_min_s: Annotated[PositiveFloat, says("of the steady state")] = 30.0


class Plan(Section, frozen=True, kw_only=True):
    """One experiment."""

    name: Annotated[Name | None, says("to find the experiment by")] = None
    labels: Labels = {}
    model: ModelPlan = ModelPlan()
    engine: EnginePlan = EnginePlan()
    server: ServerPlan = ServerPlan()
    workload: WorkloadPlan = WorkloadPlan()
    load: LoadPlan = LoadPlan()
    generation: Annotated[
        dict[str, Any],
        says("how tokens are chosen: llem's own keys, and any of transformers' GenerationConfig"),
    ] = {}
    meter: MeterPlan = MeterPlan()
    devices: DevicesPlan = DevicesPlan()
    windows: WindowsPlan = WindowsPlan()
    log: LogPlan = LogPlan()
    validity: ValidityPlan = ValidityPlan()

    def __post_init__(self) -> None:
        """Fill in llem's own keys of `generation`, so that a plan as resolved shows them."""
        own = msgspec.structs.asdict(OwnGenerationPlan())
        msgspec.structs.force_setattr(self, "generation", own | self.generation)

    @property
    def is_served(self) -> bool:
        """A serving engine is measured, and no engine in a worker."""
        return self.server.kind is not None

    @property
    def names_model(self) -> bool:
        """Whether a model was named: the preset that stands for none is nothing that a server knows."""
        return self.model.name != ModelPlan().name

    @property
    def own_generation(self) -> OwnGenerationPlan:
        """Seed and ignore_eos."""
        own = {key: self.generation[key] for key in OwnGenerationPlan.__struct_fields__}
        return msgspec.convert(own, OwnGenerationPlan)

    @property
    def generate_options(self) -> dict[str, Any]:
        """What `generate` of the model is told."""
        return {
            key: value
            for key, value in self.generation.items()
            if key not in OwnGenerationPlan.__struct_fields__
        }
