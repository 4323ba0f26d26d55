"""What is to be measured: TOML and options, resolved into frozen Structs that forbid unknown keys."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(gt=0)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the plan."""


class ModelPlan(Section, frozen=True, kw_only=True):
    """Which model, from where."""

    name: str = "tiny-llama"  # preset, local folder or hub name
    weights: Literal["random", "pretrained"] | None = (
        None  # None: random for presets and configurations, else pretrained
    )
    config: str | None = None  # path to a config.json, for random weights
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    revision: str | None = None
    trust_remote_code: bool = False
    seed: int = 0  # of random weights


class SimulatedEnginePlan(Section, frozen=True, kw_only=True):
    """Delays of the simulated engine."""

    prefill_ms: NonNegativeFloat = 5.0
    token_ms: NonNegativeFloat = 2.0
    load_ms: NonNegativeFloat = 0.0
    jitter: Fraction = 0.0  # spread of the delays, seeded
    fail_requests: list[int] = []  # request ids that end in an error
    crash_after_batches: Positive | None = None


class EnginePlan(Section, frozen=True, kw_only=True):
    """What runs the model."""

    name: Literal["transformers", "simulated"] = "transformers"
    device: str = "auto"  # auto, cpu, cuda
    batch_size: Positive = 4
    simulated: SimulatedEnginePlan = SimulatedEnginePlan()


class LengthPlan(Section, frozen=True, kw_only=True):
    """A distribution of token counts: fixed at `mean`, uniform in [min, max], or lognormal cut to [min, max]."""

    kind: Literal["fixed", "uniform", "lognormal"] = "fixed"
    mean: Positive = 32
    spread: Fraction = 0.3  # lognormal: standard deviation of the logarithm
    min: Positive = 1
    max: Positive = 4096


class WorkloadPlan(Section, frozen=True, kw_only=True):
    """What is asked of the model."""

    source: Literal["synthetic", "file"] = "synthetic"
    path: str | None = None  # .jsonl (field `prompt` or `text`) or text, one prompt a line
    requests: Positive = 32  # over all processes; every process takes its share
    min_duration_s: NonNegativeFloat = 12.0  # the prompt set is repeated until this much time has passed
    max_duration_s: PositiveFloat | None = None
    input_tokens: LengthPlan = LengthPlan(mean=32)
    output_tokens: LengthPlan = LengthPlan(mean=32)
    seed: int = 42
    record_text: bool = False


class DecodingPlan(Section, frozen=True, kw_only=True):
    """How the next token is chosen."""

    sample: bool = False  # False: greedy
    temperature: PositiveFloat = 1.0
    top_k: Positive | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: int = 42
    ignore_eos: bool = False


class SimulatedMeterPlan(Section, frozen=True, kw_only=True):
    """Power curve of the simulated meter: named, or rows of (seconds, watts) that repeat."""

    curve: Literal["constant", "square", "ramp"] | list[tuple[float, float]] = "constant"
    power_w: PositiveFloat = 100.0
    period_s: PositiveFloat = 2.0
    counter_tick_ms: PositiveFloat | None = 10.0  # None: no energy counter


class MeterPlan(Section, frozen=True, kw_only=True):
    """What reads power."""

    name: Literal["auto", "nvml", "rapl", "zeus", "estimate", "simulated"] = "auto"
    sample_hz: Annotated[float, Meta(gt=0, le=100)] | None = None  # None: from the counter's tick
    estimate_watts_per_core: PositiveFloat = 10.0  # stated, not measured
    simulated: SimulatedMeterPlan = SimulatedMeterPlan()


class DevicesPlan(Section, frozen=True, kw_only=True):
    """Where it runs: one process per entry."""

    gpus: list[str] | None = None  # indices, UUIDs or MIG UUIDs; None: all visible, or the CPU
    workers: Positive | None = None
    gpus_per_worker: Positive = 1


class WindowsPlan(Section, frozen=True, kw_only=True):
    """The order of a measurement: baseline, load, cool-down, warm-up, measurement, baseline again."""

    baseline_s: NonNegativeFloat = 3.0
    baseline_after_s: NonNegativeFloat = 2.0
    baseline_from: str | None = None  # an experiment of the store whose idle baseline stands for the first
    baseline_max_age_s: PositiveFloat = 3600.0
    cooldown_max_s: NonNegativeFloat = 30.0  # only where there is a temperature
    warmup_min_batches: Positive = 5
    warmup_max_batches: Positive = 30
    warmup_max_s: PositiveFloat = 30.0
    warmup_cv: PositiveFloat = 0.05


class LogPlan(Section, frozen=True, kw_only=True):
    """How the log is kept."""

    sync: Literal["block", "close"] = "block"


class ValidityPlan(Section, frozen=True, kw_only=True):
    """Thresholds of the verdict; stored beside it."""

    min_duration_s: NonNegativeFloat = 10.0
    min_samples: Positive = 20
    max_sample_gap_s: PositiveFloat = 1.0
    max_temperature_drift_c: PositiveFloat = 10.0
    max_energy_disagreement: PositiveFloat = 0.05
    max_failed_requests: Fraction = 0.05
    max_throttled: Fraction = 0.0
    steady_state_tolerance: PositiveFloat = 0.05
    steady_state_min_s: PositiveFloat = 30.0


class Plan(Section, frozen=True, kw_only=True):
    """One experiment."""

    name: str | None = None
    labels: dict[str, str] = {}
    model: ModelPlan = ModelPlan()
    engine: EnginePlan = EnginePlan()
    workload: WorkloadPlan = WorkloadPlan()
    decoding: DecodingPlan = DecodingPlan()
    meter: MeterPlan = MeterPlan()
    devices: DevicesPlan = DevicesPlan()
    windows: WindowsPlan = WindowsPlan()
    log: LogPlan = LogPlan()
    validity: ValidityPlan = ValidityPlan()
