"""The list of figures: each is declared once, and tables, rows, screens, exports and docs/figures.md are made from it.

`python -m llem.results.figures` prints that page.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

import msgspec

from llem.results.energy import adjusted
from llem.results.experiment import ExperimentResult
from llem.results.latency import INTERVALS, SERIES, STATISTICS, WITH_INTERVALS
from llem.results.nullable import ratio
from llem.results.percentiles import least_count
from llem.results.process import RawProcessResult
from llem.units import J_PER_KWH
from llem.versions import RESULTS_VERSION
from llem_events.events import Request

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMMENT = re.compile(r"^(?:\[(.*?)\] )?(.+)$")
_COLUMN_TYPES = {"integer": "BIGINT", "number": "DOUBLE", "string": "VARCHAR", "boolean": "BOOLEAN"}
_UNIT = re.compile("_(ms|ns|sec|j|w|mb|c|g|l|pct|per_s)$")
_WORDS = {
    "ttft": "time to first token",
    "itl": "inter-token latency",
    "tpot": "time per output token",
    "e2e": "end to end",
    "inter_chunk": "time between chunks",
    "vllm": "vLLM",
    "avg": "average",
    "kwh": "kWh",
    "flops": "FLOPs",
    "gpu": "GPU",
}
_SHORT = re.compile(rf"(?<![a-z])({'|'.join(_WORDS)})(?![a-z])")
Record = TypeVar("Record")
Formula = Callable[[Any], Any]


def told_by_the_log(_: Any) -> None:
    """The formula of what the log tells and a result does not."""


class Figure(msgspec.Struct, Generic[Record], frozen=True):
    """One column of results: `name` is the same in tables, CSV and Parquet, `type` is DuckDB's.

    `of` is a formula, or the path of a field of the record; without one the field has the figure's name. `shown` is its
    name on the screen of `llem show`, `predecessor` LLenergyMeasure's name for it. `better` says which way one wants it
    to be, where there is one. `cell` stands in CSV in its place.
    """

    name: str
    type: str
    unit: str
    meaning: str
    of: str | Callable[[Record], Any] = ""
    shown: str | None = None
    predecessor: str | None = None
    better: Literal["lower", "higher"] | None = None
    cell: Callable[[Record], Any] | None = None

    @property
    def title(self) -> str:
        """Its name for people: `shown`, or the words of its name without the unit."""
        words = _SHORT.sub(lambda short: _WORDS[short[0]], _UNIT.sub("", self.name))
        return self.shown or words.replace("_", " ")

    @property
    def comment(self) -> str:
        """[unit] meaning."""
        return f"[{self.unit}] {self.meaning}" if self.unit else self.meaning

    @property
    def is_exported(self) -> bool:
        """Whether a result alone tells it, in one cell."""
        return self.of is not told_by_the_log and self.type != "JSON"

    def value_of(self, record: Record) -> Any:
        """The figure of one record; None where it was not measured."""
        if callable(self.of):
            return self.of(record)
        return follow((self.of or self.name).split("."), record)


def follow(path: Sequence[str], record: Any) -> Any:
    """The value at a path of fields; None where the path ends early."""
    for name in path:
        if record is None:
            return None
        record = getattr(record, name)
    return record


def row(figures: Sequence[Figure[Record]], record: Record) -> dict[str, Any]:
    """Column -> value of one record."""
    return {figure.name: figure.value_of(record) for figure in figures}


def create_table(table: str, meaning: str, figures: Sequence[Figure[Any]]) -> str:
    """The statement that makes the table, a column a line with its comment."""
    lines = [f"    {figure.name} {figure.type}, -- {figure.comment}" for figure in figures]
    return "\n".join([f"CREATE TABLE {table} ( -- {meaning}", *lines, ");", ""])


def _first_of(*paths: str) -> Formula:
    """The first path's value that there is; a zero is one."""
    parts = [path.split(".") for path in paths]

    def value_of(record: Any) -> Any:
        return next((known for part in parts if (known := follow(part, record)) is not None), None)

    return value_of


def _wall_ns(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1) * 1_000


def _edge_of_steady_state(place: int) -> Formula:
    return lambda result: result.steady_state_window[place] if result.steady_state_window else None


def _times(value: float | None, factor: int) -> float | None:
    """Before a division, so that all is rounded as seldom as can be."""
    return None if value is None else value * factor


def _mean_e2e_ms(result: RawProcessResult) -> float | None:
    latencies = result.inference_metrics.latency_measurements
    return latencies.e2e_mean_ms if latencies else None


def _prompts(result: ExperimentResult) -> str | None:
    workload = result.effective_config.get("workload")
    if not isinstance(workload, dict):
        return None
    return workload.get("path") or workload.get("source")


def _warnings(result: ExperimentResult) -> list[str]:
    joining = result.aggregation.warnings if result.aggregation else []
    return list(dict.fromkeys([*joining, *result.measurement_warnings]))


def _itself(record: Any) -> Any:
    return record


def _latencies() -> Iterator[Figure[ExperimentResult]]:
    """Each statistic of each series."""
    for series in SERIES:
        for statistic, words in STATISTICS.items():
            name = f"{series.name}_{statistic}_ms"
            yield Figure(
                name,
                "DOUBLE",
                "ms",
                f"{words} of {series.meaning}",
                f"latency_stats.{name}",
                shown=series.shown if statistic == "median" else None,
                better="lower",
            )


def _fields_of_requests() -> Iterator[Figure[Request]]:
    """Each field of a request, as the log's published schema describes it."""
    fields = msgspec.json.schema(Request)["$defs"]["Request"]["properties"]
    for name, schema in fields.items():
        [(unit, meaning)] = _COMMENT.findall(schema["description"])
        yield Figure(name, _column_type(schema), unit, meaning)


def _column_type(schema: Mapping[str, Any]) -> str:
    """DuckDB's type for a JSON Schema."""
    choices = [choice for choice in schema.get("anyOf", [schema]) if choice["type"] != "null"]
    if choices[0]["type"] == "array":
        return f"{_column_type(choices[0]['items'])}[]"
    return _COLUMN_TYPES[choices[0]["type"]]


def _served(
    name: str, kind: str, unit: str, meaning: str, *, shown: str | None = None
) -> Figure[ExperimentResult]:
    """A figure of a server and its load; NULL without one."""
    return Figure(name, kind, unit, meaning, f"serving.{name}", shown=shown)


def _above_server_idle_j(result: ExperimentResult) -> float | None:
    idle_w = result.serving.server_idle_power_w if result.serving else None
    return adjusted(result.total_energy_j, baseline_w=idle_w, duration_sec=result.duration_sec)


def _of_phase(phase: Literal["prefill", "decode"], token: str) -> Iterator[Figure[ExperimentResult]]:
    """What is estimated of a phase, and of each of its tokens."""
    of_phase, within = (
        f"phases.{phase}",
        "the truth lies within this of {}, with a probability of 95 %, if energy follows tokens",
    )
    energy, per_token = f"{phase}_energy_estimate_j", f"energy_per_{token}_token_estimate_j"
    yield Figure(
        energy,
        "DOUBLE",
        "J",
        f"energy above idle of the {phase} of all requests, by regression over time: an estimate; NULL where phase_fit_reason says why",
        f"{of_phase}.energy_j",
    )
    yield Figure(f"{phase}_energy_within_j", "DOUBLE", "J", within.format(energy), f"{of_phase}.within_j")
    yield Figure(
        per_token,
        "DOUBLE",
        "J",
        f"{energy} over the tokens that it computed: {_TOKENS_OF[phase]}",
        f"{of_phase}.per_token_j",
        shown=f"energy per {token} token",
        better="lower",
    )
    yield Figure(
        f"energy_per_{token}_token_within_j",
        "DOUBLE",
        "J",
        within.format(per_token),
        f"{of_phase}.per_token_within_j",
    )


_TOKENS_OF = {
    "prefill": "those of prompts that were in no cache",
    "decode": "output tokens but the first of each request, which the prompt's pass brings",
}
PHASE_FIGURES: tuple[Figure[ExperimentResult], ...] = (
    *_of_phase("prefill", "prompt"),
    *_of_phase("decode", "decoded"),
    Figure(
        "phase_fit_r2",
        "DOUBLE",
        "1",
        "part of the variance of the energy over time that tokens explain; below 0 where a constant power explains more; NULL without an estimate",
        "phases.r2",
    ),
    Figure(
        "phase_fit_reason",
        "VARCHAR",
        "",
        "why the energy of prefill and decoding cannot be estimated; NULL where it is",
        "phases.reason",
    ),
)

SERVING_FIGURES: tuple[Figure[ExperimentResult], ...] = (
    _served(
        "server_idle_power_w",
        "DOUBLE",
        "W",
        "power with the server's weights loaded and nothing to do, sum over devices; NULL without a server",
        shown="server idle",
    ),
    Figure(
        "energy_above_server_idle_j",
        "DOUBLE",
        "J",
        "total_energy_j - server_idle_power_w x duration_sec, may be negative; NULL without a server",
        _above_server_idle_j,
        shown="energy above server idle",
        better="lower",
    ),
    _served(
        "idle_energy_j",
        "DOUBLE",
        "J",
        "part of total_energy_j while no request was in flight; NULL without a server",
    ),
    _served(
        "drain_sec",
        "DOUBLE",
        "s",
        "from the measurement's end, when no request is due any more, to the last answer; NULL without a drain",
    ),
    _served(
        "drain_energy_j",
        "DOUBLE",
        "J",
        "energy in this time, no part of total_energy_j; NULL without a drain",
    ),
    _served(
        "drain_requests",
        "BIGINT",
        "",
        "requests that ended in this time, counted in requests, and in latencies where they ended well; NULL without a drain",
    ),
    _served(
        "drain_output_tokens",
        "BIGINT",
        "",
        "output tokens that came in this time: with output_tokens, all that came for the requests; NULL without a drain",
    ),
    _served(
        "server_start_sec",
        "DOUBLE",
        "s",
        "from the server's start to its first answer; NULL where it ran already",
    ),
    _served(
        "offered_rate_per_s", "DOUBLE", "1/s", "rate at which requests became due; NULL without a server"
    ),
    _served(
        "sent_rate_per_s", "DOUBLE", "1/s", "rate at which the same requests were sent; NULL without a server"
    ),
    _served(
        "send_lag_p99_ms",
        "DOUBLE",
        "ms",
        "99th percentile of the time from when a request was due, and held back by no cap, to its first byte; NULL without a server",
    ),
    _served(
        "max_in_flight", "BIGINT", "", "most requests that were in flight at one time; NULL without a server"
    ),
    _served(
        "usage_input_tokens",
        "BIGINT",
        "",
        "input tokens by the usage that the server states; NULL where it states none",
    ),
    _served(
        "usage_output_tokens",
        "BIGINT",
        "",
        "output tokens by the usage that the server states; NULL where it states none",
    ),
    _served(
        "server_input_tokens", "BIGINT", "", "input tokens by the server's counters; NULL where it has none"
    ),
    _served(
        "server_output_tokens", "BIGINT", "", "output tokens by the server's counters; NULL where it has none"
    ),
    _served(
        "cached_input_tokens",
        "BIGINT",
        "",
        "input tokens that the server had in its cache; NULL where it does not say",
    ),
)


STUDY_FIGURES: tuple[Figure[ExperimentResult], ...] = (
    Figure("study_id", "VARCHAR", "", "study that it is a run of; NULL for none", told_by_the_log),
    Figure(
        "cell",
        "MAP(VARCHAR, VARCHAR)",
        "",
        "key of the plan and what the study sets it to; NULL without a study",
        told_by_the_log,
    ),
    Figure("block", "INTEGER", "", "repetition within the study, from 0; NULL without one", told_by_the_log),
    Figure(
        "position", "INTEGER", "", "place within the block, from 0; NULL without a study", told_by_the_log
    ),
    Figure(
        "cell_hash",
        "VARCHAR",
        "",
        "digest of the configuration without the seeds that repeats may differ in; NULL in old logs",
        told_by_the_log,
    ),
)


def _intervals() -> Iterator[Figure[ExperimentResult]]:
    """Both ends of each percentile's interval."""
    meanings = {series.name: series.meaning for series in SERIES}
    for series in WITH_INTERVALS:
        for statistic, share in INTERVALS.items():
            what = f"{STATISTICS[statistic]} of {meanings[series]} lies with 95 %, were requests independent"
            for end, word in (("low", "above"), ("high", "below")):
                name = f"{series}_{statistic}_{end}_ms"
                needed = f"NULL below {least_count(share)} requests"
                yield Figure(
                    name, "DOUBLE", "ms", f"{word} this the {what}; {needed}", f"latency_stats.{name}"
                )


SPREAD_FIGURES: tuple[Figure[ExperimentResult], ...] = (
    *_intervals(),
    Figure(
        "interval_reason",
        "VARCHAR",
        "",
        "why percentiles have no interval; NULL where all have one, and where there are no requests",
        "latency_stats.interval_reason",
    ),
    Figure(
        "batch_means_cv",
        "DOUBLE",
        "1",
        "relative standard deviation of the mean times from arrival to end of ten equal parts of the requests in their order; NULL below 20 requests",
        "latency_stats.batch_means_cv",
    ),
    Figure(
        "batch_means_lag1",
        "DOUBLE",
        "1",
        "correlation of each of these ten means with the next: far above 0, the run drifts or is too short for them; NULL below 20 requests or without a spread",
        "latency_stats.batch_means_lag1",
    ),
)

EXPERIMENT_FIGURES: tuple[Figure[ExperimentResult], ...] = (
    Figure("experiment_id", "VARCHAR", "", "experiment"),
    Figure(
        "name",
        "VARCHAR",
        "",
        "name in the plan; NULL where it has none",
        lambda result: result.effective_config.get("name"),
    ),
    Figure(
        "status",
        "VARCHAR",
        "",
        "running, completed, interrupted, incomplete, failed, damaged or newer (of a later llem)",
    ),
    Figure("model_name", "VARCHAR", "", "model"),
    Figure("weights", "VARCHAR", "", "pretrained, random or simulated"),
    Figure("engine", "VARCHAR", "", "what ran the model", "backend"),
    Figure("engine_version", "VARCHAR", "", "its version; NULL where it does not say", "backend_version"),
    Figure("dtype", "VARCHAR", "", "type of the weights"),
    Figure("batch_size", "BIGINT", "", "requests per batch in the plan"),
    Figure(
        "prompts", "VARCHAR", "", "file or set of prompts in the plan; NULL where it names none", _prompts
    ),
    Figure("measurement_methodology", "VARCHAR", "", "total, steady_state or windowed"),
    Figure(
        "processes",
        "BIGINT",
        "",
        "processes that measured",
        "num_processes",
        shown="processes",
        predecessor="num_processes",
    ),
    Figure("expected_processes", "BIGINT", "", "processes in the plan"),
    Figure(
        "start_ns",
        "BIGINT",
        "ns since 1970, UTC",
        "when the first measurement window opened",
        lambda result: _wall_ns(result.start_time),
    ),
    Figure(
        "end_ns",
        "BIGINT",
        "ns since 1970, UTC",
        "when the last one closed",
        lambda result: _wall_ns(result.end_time),
    ),
    Figure("start_time", "TIMESTAMP", "", "start_ns to the microsecond"),
    Figure("end_time", "TIMESTAMP", "", "end_ns to the microsecond"),
    Figure("duration_sec", "DOUBLE", "s", "end minus start", shown="duration", better="lower"),
    Figure(
        "measured_sec",
        "DOUBLE",
        "s",
        "wall clock of all measurement windows together, pauses left out; NULL where not known",
        shown="measured",
    ),
    Figure("requests", "BIGINT", "", "requests measured", "total_requests", shown="requests"),
    Figure("failed_requests", "BIGINT", "", "of these, failed", better="lower"),
    Figure("input_tokens", "BIGINT", "", "tokens of prompts", "total_input_tokens", shown="input tokens"),
    Figure("output_tokens", "BIGINT", "", "tokens generated", "total_output_tokens", shown="output tokens"),
    Figure(
        "total_tokens",
        "BIGINT",
        "",
        "both; NULL where not measured, as of a wrapped program that reports none",
    ),
    Figure("avg_tokens_per_second", "DOUBLE", "1/s", "mean of the processes' own rates", better="higher"),
    Figure(
        "output_tokens_per_second",
        "DOUBLE",
        "1/s",
        "output tokens over measured_sec",
        shown="output tokens/s",
        better="higher",
    ),
    Figure(
        "tokens_per_second",
        "DOUBLE",
        "1/s",
        "total tokens over measured_sec",
        shown="all tokens/s",
        better="higher",
    ),
    Figure(
        "total_energy_j",
        "DOUBLE",
        "J",
        "sum over the first meter's devices, a shared one counted once; NULL where any was not measured",
        shown="energy",
        predecessor="energy_raw_j",
        better="lower",
    ),
    Figure(
        "energy_gpu_j",
        "DOUBLE",
        "J",
        "the same of GPUs, whichever meter read them; NULL where none did",
        shown="energy of GPUs",
    ),
    Figure(
        "energy_cpu_j",
        "DOUBLE",
        "J",
        "the same of CPU packages, each counted once for all processes of its host; NULL where no meter read any",
        shown="energy of CPUs",
    ),
    Figure(
        "energy_dram_j",
        "DOUBLE",
        "J",
        "the same of memory; NULL where no meter read any",
        shown="energy of DRAM",
    ),
    Figure(
        "energy_source",
        "VARCHAR",
        "",
        "counter, integrated, estimated or simulated: the least trusted of its devices",
    ),
    Figure(
        "energy_disagreement",
        "DOUBLE",
        "1",
        "largest distance of counter and integrated power; NULL for an estimate, which no sensor can contradict",
    ),
    Figure(
        "energy_uncertainty_j",
        "DOUBLE",
        "J",
        "the truth lies within this of total_energy_j, as far as the sensors see it; NULL where unknown",
    ),
    Figure(
        "meter", "VARCHAR", "", "what read the power of total_energy_j; devices tells others", told_by_the_log
    ),
    Figure(
        "baseline_power_w",
        "DOUBLE",
        "W",
        "idle power before loading, sum over devices",
        _first_of("baseline_power_w", "energy_breakdown.baseline_power_w"),
        predecessor="energy_baseline_w",
    ),
    Figure(
        "energy_adjusted_j",
        "DOUBLE",
        "J",
        "total_energy_j - baseline_power_w x duration_sec, may be negative",
        _first_of("energy_adjusted_j", "energy_breakdown.adjusted_j"),
        shown="energy above idle",
        better="lower",
    ),
    Figure(
        "avg_energy_per_token_j",
        "DOUBLE",
        "J",
        "energy over total tokens",
        shown="energy per token",
        better="lower",
    ),
    Figure(
        "energy_per_output_token_j",
        "DOUBLE",
        "J",
        "energy over output tokens",
        shown="energy per output token",
        better="lower",
    ),
    Figure(
        "energy_per_request_j",
        "DOUBLE",
        "J",
        "energy over requests",
        lambda result: ratio(result.total_energy_j, result.total_requests),
        shown="energy per request",
        better="lower",
    ),
    *PHASE_FIGURES,
    Figure("tokens_per_joule", "DOUBLE", "1/J", "total tokens over energy", better="higher"),
    Figure(
        "output_tokens_per_kwh",
        "DOUBLE",
        "1/kWh",
        "output tokens over energy, in kilowatt-hours",
        lambda result: ratio(_times(result.total_output_tokens, J_PER_KWH), result.total_energy_j),
        better="higher",
    ),
    Figure(
        "kwh_per_million_output_tokens",
        "DOUBLE",
        "kWh",
        "energy in kilowatt-hours over millions of output tokens",
        lambda result: ratio(
            _times(result.total_energy_j, 10**6), _times(result.total_output_tokens, J_PER_KWH)
        ),
        better="lower",
    ),
    Figure("mean_power_w", "DOUBLE", "W", "total_energy_j over duration_sec"),
    *SERVING_FIGURES,
    *_latencies(),
    Figure(
        "throttle_detected",
        "BOOLEAN",
        "",
        "whether any device slowed itself down; NULL where the driver does not tell",
        "thermal_throttle.detected",
        predecessor="thermal_throttle_detected",
    ),
    Figure(
        "throttle_sec",
        "DOUBLE",
        "s",
        "time throttled, of the device with most",
        "thermal_throttle.throttle_duration_sec",
        shown="throttled",
        predecessor="thermal_throttle_duration_sec",
        better="lower",
    ),
    Figure(
        "max_temperature_c",
        "DOUBLE",
        "C",
        "hottest sample",
        "thermal_throttle.max_temperature_c",
        predecessor="thermal_max_temp_c",
        better="lower",
    ),
    Figure(
        "gpu_utilisation_pct",
        "DOUBLE",
        "%",
        "mean over samples and devices",
        "extended_metrics.gpu_utilisation.sm_utilisation_mean",
        predecessor="gpu_util_mean_pct",
    ),
    Figure(
        "peak_memory_mb",
        "DOUBLE",
        "MiB",
        "peak memory of a process",
        "extended_metrics.memory.peak_memory_mb",
        predecessor="gpu_mem_peak_mb",
        better="lower",
    ),
    Figure(
        "power_limit_set_w",
        "DOUBLE",
        "W",
        "power limit that the plan had set for the run, as read back, of the device with the lowest; NULL where it set none",
        shown="power limit",
    ),
    Figure(
        "clocks_locked_mhz",
        "DOUBLE",
        "MHz",
        "the same of the SM clock; as it was asked where the driver does not tell, for samples have the clock that ran; NULL where it set none",
        shown="clocks locked",
    ),
    Figure("total_flops", "DOUBLE", "FLOP", "NULL where the model is unknown", shown="FLOPs"),
    Figure("flops_method", "VARCHAR", "", "how they were counted"),
    Figure("flops_per_second", "DOUBLE", "1/s", "total_flops over measured_sec", better="higher"),
    Figure(
        "model_flops_utilisation",
        "DOUBLE",
        "1",
        "FLOPs over what all devices could do at their peak (MFU); NULL where a peak is unknown",
        better="higher",
    ),
    Figure("total_inference_time_sec", "DOUBLE", "s", "sum over processes", better="lower"),
    Figure(
        "steady_state_from_sec",
        "DOUBLE",
        "s",
        "start of the steady state, or of the window that was chosen, after start_time; NULL where there is none",
        _edge_of_steady_state(0),
    ),
    Figure(
        "steady_state_to_sec", "DOUBLE", "s", "its end; NULL where there is none", _edge_of_steady_state(1)
    ),
    Figure(
        "temporal_overlap_verified",
        "BOOLEAN",
        "",
        "whether all processes ran together for at least half of the shortest one's time; NULL where that is not known",
        "aggregation.temporal_overlap_verified",
    ),
    Figure(
        "gpu_attribution_verified",
        "BOOLEAN",
        "",
        "whether no device was shared by processes at one time; NULL where that is not known",
        "aggregation.gpu_attribution_verified",
    ),
    Figure(
        "gpu_name",
        "VARCHAR",
        "",
        "product name of the first GPU; NULL without one",
        "environment_snapshot.hardware.gpu.name",
        predecessor="env_gpu_name",
    ),
    Figure(
        "gpu_memory_mb",
        "DOUBLE",
        "MiB",
        "its memory; NULL without one",
        "environment_snapshot.hardware.gpu.vram_total_mb",
        predecessor="env_gpu_vram_mb",
    ),
    Figure(
        "cuda_version",
        "VARCHAR",
        "",
        "of CUDA; NULL without it",
        "environment_snapshot.hardware.cuda.version",
        predecessor="env_cuda_version",
    ),
    Figure(
        "driver_version",
        "VARCHAR",
        "",
        "of the GPU's driver; NULL without one",
        "environment_snapshot.hardware.cuda.driver_version",
        predecessor="env_driver_version",
    ),
    Figure("valid", "BOOLEAN", "", "whether the result can be relied on; NULL while it runs"),
    Figure(
        "invalid_reasons",
        "VARCHAR[]",
        "",
        "every reason against it",
        lambda result: [reason.text for reason in result.invalid_reasons],
        cell=lambda result: "; ".join(reason.code for reason in result.invalid_reasons) or None,
    ),
    Figure(
        "warnings",
        "VARCHAR[]",
        "",
        "every doubt about its figures",
        _warnings,
        cell=lambda result: "; ".join(_warnings(result)) or None,
    ),
    Figure("labels", "MAP(VARCHAR, VARCHAR)", "", "labels in the plan, as llem label has changed them since"),
    Figure(
        "measurement_config_hash",
        "VARCHAR",
        "",
        "digest of everything in the plan that can change a figure",
    ),
    Figure("results_version", "INTEGER", "", "version of the formulas", lambda _: RESULTS_VERSION),
    Figure("result", "JSON", "", "the whole ExperimentResult; NULL where nothing was measured", _itself),
    *STUDY_FIGURES,
    *SPREAD_FIGURES,
)

PROCESS_FIGURES: tuple[Figure[RawProcessResult], ...] = (
    Figure("experiment_id", "VARCHAR", "", "experiment"),
    Figure("process_index", "INTEGER", "", "worker"),
    Figure("status", "VARCHAR", "", "completed, interrupted, incomplete or failed"),
    Figure("host", "VARCHAR", "", "machine"),
    Figure("gpu_id", "BIGINT", "", "first GPU's index on its host; NULL without one"),
    Figure("gpu_name", "VARCHAR", "", "its product name"),
    Figure("engine", "VARCHAR", "", "what ran the model", "backend"),
    Figure("model_name", "VARCHAR", "", "model"),
    Figure("attention", "VARCHAR", "", "implementation of attention that the model used; NULL where unknown"),
    Figure(
        "cache",
        "VARCHAR",
        "",
        "what generate kept between steps; none where every step computes all tokens again, NULL where unknown",
    ),
    Figure("quantization", "VARCHAR", "", "method; none for weights in a plain type, NULL where unknown"),
    Figure(
        "start_ns",
        "BIGINT",
        "ns since 1970, UTC",
        "when its first measurement window opened",
        lambda result: _wall_ns(result.timestamps.start),
    ),
    Figure(
        "end_ns",
        "BIGINT",
        "ns since 1970, UTC",
        "when its last one closed",
        lambda result: _wall_ns(result.timestamps.end),
    ),
    Figure("start_time", "TIMESTAMP", "", "start_ns to the microsecond", "timestamps.start"),
    Figure("end_time", "TIMESTAMP", "", "end_ns to the microsecond", "timestamps.end"),
    Figure(
        "inference_time_sec",
        "DOUBLE",
        "s",
        "time in measurement windows",
        "inference_metrics.inference_time_sec",
    ),
    Figure("input_tokens", "BIGINT", "", "tokens of prompts", "inference_metrics.input_tokens"),
    Figure("output_tokens", "BIGINT", "", "tokens generated", "inference_metrics.output_tokens"),
    Figure(
        "total_tokens",
        "BIGINT",
        "",
        "both; NULL where not measured, as of a wrapped program that reports none",
        "inference_metrics.total_tokens",
    ),
    Figure(
        "tokens_per_second",
        "DOUBLE",
        "1/s",
        "total tokens over inference time",
        "inference_metrics.tokens_per_second",
    ),
    Figure(
        "output_tokens_per_second",
        "DOUBLE",
        "1/s",
        "output tokens over inference time",
        "inference_metrics.output_tokens_per_second",
    ),
    Figure("requests", "BIGINT", "", "requests measured"),
    Figure("failed_requests", "BIGINT", "", "of these, failed"),
    Figure(
        "total_energy_j",
        "DOUBLE",
        "J",
        "energy of the first meter's devices; NULL where not measured",
        "energy_j",
    ),
    Figure(
        "energy_gpu_j",
        "DOUBLE",
        "J",
        "of its GPUs, whichever meter read them; NULL where none did",
        "energy_metrics.gpu_energy_j",
    ),
    Figure(
        "energy_cpu_j",
        "DOUBLE",
        "J",
        "of the whole host's CPU packages in its time; NULL where no meter read any",
        "energy_metrics.cpu_energy_j",
    ),
    Figure(
        "energy_dram_j",
        "DOUBLE",
        "J",
        "of the whole host's memory in its time; NULL where no meter read any",
        "energy_metrics.ram_energy_j",
    ),
    Figure("energy_source", "VARCHAR", "", "the least trusted of its devices"),
    Figure(
        "baseline_power_w", "DOUBLE", "W", "idle power of its devices", "energy_breakdown.baseline_power_w"
    ),
    Figure(
        "energy_adjusted_j",
        "DOUBLE",
        "J",
        "total_energy_j - baseline_power_w x inference_time_sec, may be negative",
        "energy_breakdown.adjusted_j",
    ),
    Figure("flops_total", "DOUBLE", "FLOP", "NULL where the model is unknown", "compute_metrics.flops_total"),
    Figure("flops_method", "VARCHAR", "", "how they were counted", "compute_metrics.flops_method"),
    Figure(
        "peak_memory_mb",
        "DOUBLE",
        "MiB",
        "peak memory of the model's process",
        "compute_metrics.peak_memory_mb",
    ),
    Figure(
        "gpu_utilisation_pct",
        "DOUBLE",
        "%",
        "mean over samples and devices",
        "extended_metrics.gpu_utilisation.sm_utilisation_mean",
    ),
    Figure("max_temperature_c", "DOUBLE", "C", "hottest sample", "thermal_throttle.max_temperature_c"),
    Figure(
        "throttle_sec",
        "DOUBLE",
        "s",
        "time throttled, of the device with most",
        "thermal_throttle.throttle_duration_sec",
    ),
    Figure(
        "ttft_mean_ms", "DOUBLE", "ms", "mean time to first token", "inference_metrics.time_to_first_token_ms"
    ),
    Figure("e2e_mean_ms", "DOUBLE", "ms", "mean time of a request", _mean_e2e_ms),
    Figure("result", "JSON", "", "the whole RawProcessResult", _itself),
)

REQUEST_FIGURES: tuple[Figure[Request], ...] = (
    Figure("experiment_id", "VARCHAR", "", "experiment"),
    Figure("process_index", "INTEGER", "", "worker"),
    Figure("segment_id", "VARCHAR", "", "segment that it stands in"),
    Figure("event_number", "BIGINT", "", "event that reported it"),
    Figure("window_kind", "VARCHAR", "", "warmup or measurement"),
    *_fields_of_requests(),
)

_TABLES: tuple[tuple[str, str, Sequence[Figure[Any]]], ...] = (
    ("requests", "one row per prompt's way through the engine", REQUEST_FIGURES),
    ("raw_process_results", "what each process measured", PROCESS_FIGURES),
    (
        "experiment_results",
        "what each experiment measured: one row per experiment, figures NULL where nothing was measured",
        EXPERIMENT_FIGURES,
    ),
)
REQUESTS_SQL, *_RESULTS_SQL = (create_table(*table) for table in _TABLES)
RESULTS_SQL = "".join(_RESULTS_SQL)
_PAGE = """# Figures

Made from the list in `llem/results/figures.py` by `just figures`; do not edit. A figure has the same name in the tables, in CSV and in Parquet; JSON
holds whole records, `ExperimentResult` and `RawProcessResult`. `llem query --list` names the other tables, `llem query "FROM duckdb_columns()"` tells their columns. NULL is not measured, and never zero.
"""


def as_markdown() -> str:
    """The page of all figures: those of experiments first, for they are asked for most."""
    return "\n".join([_PAGE, *(_section(*table) for table in reversed(_TABLES))])


def _section(table: str, meaning: str, figures: Sequence[Figure[Any]]) -> str:
    head = "| figure | unit | type | meaning | on the screen | LLenergyMeasure's name |"
    lines = [f"| {' | '.join(_cells(figure))} |" for figure in figures]
    return "\n".join(
        [f"## {table}", "", f"{meaning[0].upper()}{meaning[1:]}.", "", head, "|---" * 6 + "|", *lines, ""]
    )


def _cells(figure: Figure[Any]) -> tuple[str, ...]:
    names = (figure.shown or "", f"`{figure.predecessor}`" if figure.predecessor else "")
    return (f"`{figure.name}`", figure.unit, figure.type, figure.meaning, *names)


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
