"""Columns for export, which depend on the kind of record and never on the data: those of any record, and the 42 of LLenergyMeasure v0.8 with ours."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints

import msgspec

from llem.results.experiment import ExperimentResult
from llem.results.process import RawProcessResult

ColumnType = Literal["VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ"]
Record = TypeVar("Record")
_TYPES: dict[type, ColumnType] = {
    str: "VARCHAR",
    int: "BIGINT",
    float: "DOUBLE",
    bool: "BOOLEAN",
    datetime: "TIMESTAMPTZ",
}
Getter = Callable[[ExperimentResult], Any]
Place = tuple[int, int]  # index of a process, and which of those with that index


class Column(msgspec.Struct, Generic[Record], frozen=True):
    """A column by name, DuckDB type, and how its value is found in a record."""

    name: str
    type: ColumnType
    value_of: Callable[[Record], Any]


def rows(columns: Sequence[Column[Record]], records: Iterable[Record]) -> Iterator[list[Any]]:
    """One row per record."""
    return ([column.value_of(record) for column in columns] for record in records)


def flattened(kind: type[msgspec.Struct], path: tuple[str, ...] = ()) -> Iterator[Column[Any]]:
    """A column for every field, those of nested records prefixed with its name; lists and maps stay in one cell."""
    hints = get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        here = (*path, field.name)
        declared = _without_none(hints[field.name])
        if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
            yield from flattened(declared, here)
        else:
            yield Column("_".join(here), _column_type(declared), partial(follow, here))


def follow(path: Sequence[str], record: Any) -> Any:
    """The value at a path of fields; None where the path ends early."""
    for name in path:
        if record is None:
            return None
        record = getattr(record, name)
    return record


def _without_none(declared: Any) -> Any:
    options = get_args(declared)
    kept = [option for option in options if option is not NoneType]
    return kept[0] if NoneType in options and len(kept) == 1 else declared


def _column_type(declared: Any) -> ColumnType:
    return _TYPES.get(declared, "VARCHAR")


AggregatedColumn = Column[ExperimentResult]


def _text(name: str, path: str | Getter = "") -> AggregatedColumn:
    return _column(name, "VARCHAR", path)


def _count(name: str, path: str | Getter = "") -> AggregatedColumn:
    return _column(name, "BIGINT", path)


def _figure(name: str, path: str | Getter = "") -> AggregatedColumn:
    return _column(name, "DOUBLE", path)


def _flag(name: str, path: str | Getter = "") -> AggregatedColumn:
    return _column(name, "BOOLEAN", path)


def _moment(name: str) -> AggregatedColumn:
    return _column(name, "TIMESTAMPTZ", name)


def _column(name: str, kind: ColumnType, path: str | Getter) -> AggregatedColumn:
    getter = partial(follow, (path or name).split(".")) if isinstance(path, str) else path
    return Column(name, kind, getter)


def _method(result: ExperimentResult) -> str:
    return result.aggregation.method if result.aggregation else "single_process"


def _warnings(result: ExperimentResult) -> str | None:
    joining = result.aggregation.warnings if result.aggregation else []
    return "; ".join(dict.fromkeys([*joining, *result.measurement_warnings])) or None


def _window(result: ExperimentResult) -> str | None:
    window = result.steady_state_window
    return None if window is None else f"{window[0]}-{window[1]}"


def _either(first: str, second: str) -> Getter:
    """The first path's value, or the second's where the first has none; a zero is a value."""

    def value_of(result: ExperimentResult) -> Any:
        found = follow(first.split("."), result)
        return follow(second.split("."), result) if found is None else found

    return value_of


def _prompts(result: ExperimentResult) -> str | None:
    workload = result.effective_config.get("workload")
    if not isinstance(workload, dict):
        return None
    return workload.get("path") or workload.get("source")


def _reasons(result: ExperimentResult) -> str | None:
    return "; ".join(reason.code for reason in result.invalid_reasons) or None


PREDECESSOR: tuple[AggregatedColumn, ...] = (
    _text("experiment_id"),
    _text("schema_version"),
    _text("measurement_config_hash"),
    _moment("start_time"),
    _moment("end_time"),
    _figure("duration_sec"),
    _count("num_processes"),
    _count("total_tokens"),
    _figure("energy_raw_j", "total_energy_j"),
    _figure("avg_tokens_per_second"),
    _figure("tokens_per_joule"),
    _figure("avg_energy_per_token_j"),
    _figure("total_flops"),
    _figure("total_inference_time_sec"),
    _text("aggregation_method", _method),
    _flag("temporal_overlap_verified", "aggregation.temporal_overlap_verified"),
    _flag("gpu_attribution_verified", "aggregation.gpu_attribution_verified"),
    _text("warnings", _warnings),
    _text("measurement_methodology"),
    _text("steady_state_window", _window),
    _figure("energy_adjusted_j", _either("energy_adjusted_j", "energy_breakdown.adjusted_j")),
    _figure("energy_baseline_w", _either("baseline_power_w", "energy_breakdown.baseline_power_w")),
    _text("energy_baseline_method", "energy_breakdown.baseline_method"),
    _flag("thermal_throttle_detected", "thermal_throttle.detected"),
    _figure("thermal_throttle_duration_sec", "thermal_throttle.throttle_duration_sec"),
    _figure("thermal_max_temp_c", "thermal_throttle.max_temperature_c"),
    _text("env_gpu_name", "environment_snapshot.hardware.gpu.name"),
    _figure("env_gpu_vram_mb", "environment_snapshot.hardware.gpu.vram_total_mb"),
    _text("env_cuda_version", "environment_snapshot.hardware.cuda.version"),
    _text("env_driver_version", "environment_snapshot.hardware.cuda.driver_version"),
    _figure("env_gpu_temp_c", "environment_snapshot.hardware.thermal.temperature_c"),
    _figure("env_power_limit_w", "environment_snapshot.hardware.thermal.power_limit_w"),
    _text("env_cpu_governor", "environment_snapshot.hardware.cpu.governor"),
    _flag("env_in_container", "environment_snapshot.hardware.container.detected"),
    _text("env_summary", "environment_snapshot.summary_line"),
    _figure("gpu_util_mean_pct", "extended_metrics.gpu_utilisation.sm_utilisation_mean"),
    _figure("gpu_mem_peak_mb", "extended_metrics.memory.peak_memory_mb"),
    _figure("latency_e2e_mean_ms", "extended_metrics.request_latency.e2e_latency_mean_ms"),
    _figure("latency_e2e_p95_ms", "extended_metrics.request_latency.e2e_latency_p95_ms"),
    _figure("batch_effective_size", "extended_metrics.batch.effective_batch_size"),
    _figure("kv_cache_hit_rate", "extended_metrics.kv_cache.kv_cache_hit_rate"),
    _text("timeseries"),
)

OURS: tuple[AggregatedColumn, ...] = (
    _text("model_name"),
    _text("engine", "backend"),
    _text("engine_version", "backend_version"),
    _text("dtype"),
    _count("batch_size"),
    _text("weights"),
    _text("prompts", _prompts),
    _count("requests", "total_requests"),
    _count("failed_requests"),
    _count("input_tokens", "total_input_tokens"),
    _count("output_tokens", "total_output_tokens"),
    _text("energy_source"),
    _figure("energy_disagreement"),
    _figure("energy_uncertainty_j"),
    _figure("energy_per_output_token_j"),
    _figure("mean_power_w"),
    _figure("measured_sec"),
    _figure("tokens_per_second"),
    _figure("output_tokens_per_second"),
    *(
        _figure(f"{series}_{statistic}_ms", f"latency_stats.{series}_{statistic}_ms")
        for series in ("ttft", "itl", "itl_trimmed", "e2e")
        for statistic in ("mean", "median", "p95", "p99")
    ),
    _text("flops_method"),
    _figure("flops_per_second"),
    _figure("model_flops_utilisation"),
    _text("status"),
    _flag("valid"),
    _text("invalid_reasons", _reasons),
    _text("labels"),
)

AGGREGATED = (*PREDECESSOR, *OURS)


def aggregated_columns(
    results: Iterable[ExperimentResult], *, process_breakdown: bool = False
) -> Sequence[AggregatedColumn]:
    """The fixed columns; with the breakdown, also four for each process of any experiment, by its real index."""
    if not process_breakdown:
        return AGGREGATED
    places = sorted({place for result in results for place in _places(result)})
    return [*AGGREGATED, *(column for place in places for column in _of_process(place))]


def _places(result: ExperimentResult) -> dict[Place, RawProcessResult]:
    """Processes by index; of several with one index, the first, the second and so on."""
    by_place: dict[Place, RawProcessResult] = {}
    seen: Counter[int] = Counter()
    for process in result.process_results:
        seen[process.process_index] += 1
        by_place[process.process_index, seen[process.process_index]] = process
    return by_place


def _of_process(place: Place) -> Iterable[AggregatedColumn]:
    index, nth = place
    name = f"process_{index}" if nth == 1 else f"process_{index}_{nth}"
    yield _count(f"{name}_gpu_id", partial(_process_figure, place, "gpu_id"))
    yield _count(f"{name}_tokens", partial(_process_figure, place, "inference_metrics.total_tokens"))
    yield _figure(f"{name}_energy_j", partial(_process_figure, place, "energy_j"))
    yield _figure(
        f"{name}_tokens_per_second", partial(_process_figure, place, "inference_metrics.tokens_per_second")
    )


def _process_figure(place: Place, path: str, result: ExperimentResult) -> Any:
    return follow(path.split("."), _places(result).get(place))
