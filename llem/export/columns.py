"""Columns for export, which depend on the kind of record and never on the data: those of any record, ours, and LLenergyMeasure v0.8's."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints

import msgspec

from llem.results.experiment import ExperimentResult
from llem.results.figures import EXPERIMENT_FIGURES, Figure, follow
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
# A figure's type -> that of its column in a file; lists, maps and JSON are text.
_CELL_TYPES: dict[str, ColumnType] = {
    "BIGINT": "BIGINT",
    "INTEGER": "BIGINT",
    "DOUBLE": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "TIMESTAMP": "TIMESTAMPTZ",
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


def _without_none(declared: Any) -> Any:
    options = get_args(declared)
    kept = [option for option in options if option is not NoneType]
    return kept[0] if NoneType in options and len(kept) == 1 else declared


def _column_type(declared: Any) -> ColumnType:
    return _TYPES.get(declared, "VARCHAR")


AggregatedColumn = Column[ExperimentResult]


def _column(name: str, kind: ColumnType, path: str | Getter) -> AggregatedColumn:
    getter = partial(follow, path.split(".")) if isinstance(path, str) else path
    return Column(name, kind, getter)


def _listed(figure: Figure[ExperimentResult], name: str = "") -> AggregatedColumn:
    """The column of a figure, under its own or another name."""
    if figure.cell is not None:
        return Column(name or figure.name, "VARCHAR", figure.cell)
    return Column(name or figure.name, _CELL_TYPES.get(figure.type, "VARCHAR"), figure.value_of)


OURS: tuple[AggregatedColumn, ...] = tuple(
    _listed(figure) for figure in EXPERIMENT_FIGURES if figure.is_exported
)
_BY_NAME = {figure.predecessor or figure.name: figure for figure in EXPERIMENT_FIGURES}


def _method(result: ExperimentResult) -> str:
    return result.aggregation.method if result.aggregation else "single_process"


def _window(result: ExperimentResult) -> str | None:
    window = result.steady_state_window
    return None if window is None else f"{window[0]}-{window[1]}"


def _predecessors(*columns: str | AggregatedColumn) -> tuple[AggregatedColumn, ...]:
    """Those that are figures of ours by LLenergyMeasure's names, the others as they are given."""
    return tuple(
        _listed(_BY_NAME[column], column) if isinstance(column, str) else column for column in columns
    )


PREDECESSOR = _predecessors(
    "experiment_id",
    _column("schema_version", "VARCHAR", "schema_version"),
    "measurement_config_hash",
    "start_time",
    "end_time",
    "duration_sec",
    "num_processes",
    "total_tokens",
    "energy_raw_j",
    "avg_tokens_per_second",
    "tokens_per_joule",
    "avg_energy_per_token_j",
    "total_flops",
    "total_inference_time_sec",
    _column("aggregation_method", "VARCHAR", _method),
    "temporal_overlap_verified",
    "gpu_attribution_verified",
    "warnings",
    "measurement_methodology",
    _column("steady_state_window", "VARCHAR", _window),
    "energy_adjusted_j",
    "energy_baseline_w",
    _column("energy_baseline_method", "VARCHAR", "energy_breakdown.baseline_method"),
    "thermal_throttle_detected",
    "thermal_throttle_duration_sec",
    "thermal_max_temp_c",
    "env_gpu_name",
    "env_gpu_vram_mb",
    "env_cuda_version",
    "env_driver_version",
    _column("env_gpu_temp_c", "DOUBLE", "environment_snapshot.hardware.thermal.temperature_c"),
    _column("env_power_limit_w", "DOUBLE", "environment_snapshot.hardware.thermal.power_limit_w"),
    _column("env_cpu_governor", "VARCHAR", "environment_snapshot.hardware.cpu.governor"),
    _column("env_in_container", "BOOLEAN", "environment_snapshot.hardware.container.detected"),
    _column("env_summary", "VARCHAR", "environment_snapshot.summary_line"),
    "gpu_util_mean_pct",
    "gpu_mem_peak_mb",
    _column("latency_e2e_mean_ms", "DOUBLE", "extended_metrics.request_latency.e2e_latency_mean_ms"),
    _column("latency_e2e_p95_ms", "DOUBLE", "extended_metrics.request_latency.e2e_latency_p95_ms"),
    _column("batch_effective_size", "DOUBLE", "extended_metrics.batch.effective_batch_size"),
    _column("kv_cache_hit_rate", "DOUBLE", "extended_metrics.kv_cache.kv_cache_hit_rate"),
    _column("timeseries", "VARCHAR", "timeseries"),
)

_THEIRS = {column.name for column in PREDECESSOR}
PRESETS: dict[str, Sequence[AggregatedColumn]] = {
    "llem": OURS,
    "llenergymeasure": (
        *PREDECESSOR,
        *(
            column
            for name, figure in _BY_NAME.items()
            if figure.is_exported and name not in _THEIRS
            for column in [_listed(figure)]
        ),
    ),
}


def aggregated_columns(
    results: Iterable[ExperimentResult], *, preset: str, process_breakdown: bool = False
) -> Sequence[AggregatedColumn]:
    """The fixed columns of a preset; with the breakdown, also four for each process of any experiment, by its real index."""
    fixed = PRESETS[preset]
    if not process_breakdown:
        return fixed
    places = sorted({place for result in results for place in _places(result)})
    return [*fixed, *(column for place in places for column in _of_process(place))]


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
    yield Column(f"{name}_gpu_id", "BIGINT", partial(_process_figure, place, "gpu_id"))
    yield Column(
        f"{name}_tokens", "BIGINT", partial(_process_figure, place, "inference_metrics.total_tokens")
    )
    yield Column(f"{name}_energy_j", "DOUBLE", partial(_process_figure, place, "energy_j"))
    yield Column(
        f"{name}_tokens_per_second",
        "DOUBLE",
        partial(_process_figure, place, "inference_metrics.tokens_per_second"),
    )


def _process_figure(place: Place, path: str, result: ExperimentResult) -> Any:
    return follow(path.split("."), _places(result).get(place))
