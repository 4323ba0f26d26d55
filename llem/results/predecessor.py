"""Results of LLenergyMeasure (schemas 2.0.0 to 3.0) as ours: refused where they cannot be right, every figure as it is, a few names brought up to date."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from llem.errors import ExportError
from llem.results.experiment import ExperimentResult
from llem.results.nullable import ratio, total_count
from llem.results.process import RawProcessResult, Timestamps
from llem.versions import SCHEMA_VERSION

Fields = dict[str, Any]
INT64 = range(-(2**63), 2**63)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
# Clocks of two machines differ, but not by more than this.
LATEST_AHEAD = timedelta(days=1)
MAX_DEPTH = 64
_NOT_FIGURES = frozenset(
    {"effective_config", "environment_snapshot", "labels", "value", "threshold", "gpu_id", "index"}
)
# Of the phases, what was estimated may lie below nothing, and so may how well it fits.
_MAY_BE_NEGATIVE = ("adjusted", "temperature", "phases")
FORMAT = "llenergymeasure-2.0"
REQUIRED = (  # those that the predecessor never leaves out and ours would make up a default for
    "measurement_methodology",
    "total_energy_j",
    "total_flops",
    "avg_tokens_per_second",
    "avg_energy_per_token_j",
)
# Of v0.3 to v0.6, and of the months before v0.7.
OLD_VERSIONS = ("2.0.0", "3.0.0")
# Of what followed v0.9: `backend` is `engine`, surroundings stand in a file of their own.
LATER_VERSIONS = ("3.0", "5.0")
BUNDLE_VERSION = "2.0"  # of the files of 0.7 as PyPI has it, which have no version of a schema
_NOT_KNOWN = {"measurement_methodology": "total", "measurement_config_hash": "unknown"}
_OF_BOTH = (
    *("extended_metrics", "energy_breakdown", "thermal_throttle", "warmup_result"),
    *("environment_snapshot", "timeseries"),
)
_LATER_NAMES = {
    "declared_config_hash": "measurement_config_hash",
    "input_tokens": "total_input_tokens",
    "output_tokens": "total_output_tokens",
}
_PLACEHOLDERS = {
    "energy_metrics": (
        *("gpu_energy_j", "cpu_energy_j", "ram_energy_j", "gpu_power_w", "cpu_power_w", "ram_power_w"),
        *("emissions_kg_co2", "energy_per_token_j"),
    ),
    "compute_metrics": (
        "flops_total",
        "flops_per_token",
        "flops_per_second",
        "peak_memory_mb",
        "model_memory_mb",
    ),
}
_VERSIONS = ", ".join(map(repr, (*OLD_VERSIONS, SCHEMA_VERSION, *LATER_VERSIONS)))
ONE_RESULT = f"a JSON object of one result, with schema_version one of {_VERSIONS}"
IMPORTED = "imported from a result alone: there is no log of what was measured"
WITHOUT_ZONE = "its times have no zone and are taken for UTC: on a host elsewhere it ran earlier or later by that host's offset (--timezone says it)"
MOVED = "results of llem need no import: llem collect STORE --into OTHER brings the runs of one store into another"


def read_predecessor(original: bytes, *, what: str = "result") -> ExperimentResult:
    """The result in a JSON file of LLenergyMeasure. Raises ExportError, which names the field that does not fit or cannot be right."""
    _refuse_other_formats(original, what)
    try:
        document = strict_json(original)
        _refuse_lists(document, what)
        fields = _as_current(msgspec.convert(document, Fields))
        _check(fields, what)
        result = _with_sums(_in_utc(msgspec.convert(_renamed(fields), ExperimentResult)))
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise ExportError(f"{what} is not a result of LLenergyMeasure", found=str(error)) from error
    check_possible(result, what=what)
    return result


def imported(original: bytes, *, experiment_id: str) -> ExperimentResult:
    """The result under its id in this store, said to be imported; what it was called before becomes the label `imported_id`."""
    result = read_predecessor(original)
    replace = msgspec.structs.replace
    return replace(
        result,
        experiment_id=experiment_id,
        measurement_warnings=list(dict.fromkeys([IMPORTED, *result.measurement_warnings])),
        labels={**result.labels, "imported_id": result.experiment_id},
        process_results=[replace(process, experiment_id=experiment_id) for process in result.process_results],
    )


def _as_current(fields: Fields) -> Fields:
    """The same as of v0.8: a result of another version, or the result of one process, which is one of its own."""
    fields = _with_backend(fields)
    if "process_index" in fields and isinstance(fields.get("inference_metrics"), dict):
        return _of_one_process(_without_placeholders(fields))
    version, processes = fields.get("schema_version"), fields.get("process_results")
    if version in LATER_VERSIONS or fields.get("bundle_version") == BUNDLE_VERSION:
        return _as_before(fields)
    if version not in OLD_VERSIONS or not isinstance(processes, list):
        return fields
    known = {"schema_version": SCHEMA_VERSION, "process_results": _parts(processes)}
    flops = {"total_flops": fields.get("total_flops") or None}  # 0 stood for nothing
    return {**_NOT_KNOWN, **fields, **known, **_nothing(fields), **flops}


def _parts(processes: Sequence[object]) -> list[Fields]:
    return [_without_placeholders(_with_backend(_dict(process))) for process in processes]


def _as_before(fields: Fields) -> Fields:
    """A later result under the names of v0.8."""
    renamed = {ours: fields[theirs] for theirs, ours in _LATER_NAMES.items() if theirs in fields}
    processes = fields.get("process_results")
    parts = {"process_results": _parts(processes)} if isinstance(processes, list) else {}
    flops = {"total_flops": fields.get("total_flops") or None} if "total_flops" in fields else {}
    known = {"schema_version": SCHEMA_VERSION, **parts, **flops, **_throttled(fields)}
    baseline = {"baseline_power_w": _dict(fields.get("energy_breakdown")).get("baseline_power_w")}
    return {"measurement_methodology": "total", **baseline, **fields, **renamed, **known}


def _throttled(fields: Fields) -> Fields:
    """The flags of each cause became objects with counts; whether, how long and how hot is told as before."""
    throttle = fields.get("throttle")
    if not isinstance(throttle, dict):
        return {}
    names = ("detected", "throttle_duration_sec", "max_temperature_c", "throttle_timestamps")
    return {"thermal_throttle": {name: throttle[name] for name in names if name in throttle}}


def _nothing(fields: Fields) -> Fields:
    """Its energies where it says that reading them failed: they were 0 then."""
    failed = fields.get("energy_tracking_failed") is True
    return dict.fromkeys(("total_energy_j", "avg_energy_per_token_j")) if failed else {}


def _with_backend(fields: Fields) -> Fields:
    """The engine and its surroundings under the names of v0.8."""
    names = {"engine": "backend", "engine_version": "backend_version", "timeseries_path": "timeseries"}
    renamed = {names[name]: figure for name, figure in fields.items() if name in names}
    return {**renamed, **_snapshot(fields.get("environment")), **fields}


def _snapshot(environment: object) -> Fields:
    """Of hardware alone before v0.7, of everything later."""
    if not isinstance(environment, dict):
        return {}
    return {"environment_snapshot": environment if "hardware" in environment else {"hardware": environment}}


def _of_one_process(fields: Fields) -> Fields:
    """Its figures as an experiment's."""
    times, work = _dict(fields.get("timestamps")), _dict(fields.get("inference_metrics"))
    energy, compute = _dict(fields.get("energy_metrics")), _dict(fields.get("compute_metrics"))
    same = ("experiment_id", "backend", "backend_version", "effective_config", *_OF_BOTH)
    return {
        **_NOT_KNOWN,
        **{name: fields[name] for name in same if name in fields},
        "schema_version": SCHEMA_VERSION,
        "total_tokens": work.get("total_tokens"),
        "total_inference_time_sec": work.get("inference_time_sec"),
        "avg_tokens_per_second": work.get("tokens_per_second"),
        "total_energy_j": energy.get("total_energy_j"),
        "avg_energy_per_token_j": energy.get("energy_per_token_j"),
        "total_flops": compute.get("flops_total"),
        "start_time": times.get("start"),
        "end_time": times.get("end"),
        "process_results": [fields],
        **_nothing(fields),
    }


def _without_placeholders(process: Fields) -> Fields:
    """These figures were 0 where nothing was measured."""
    changed: Fields = {"schema_version": SCHEMA_VERSION}
    for part, names in _PLACEHOLDERS.items():
        figures = process.get(part)
        if isinstance(figures, dict):
            changed[part] = {
                name: None if name in names and not figure else figure for name, figure in figures.items()
            }
    return {**process, **changed}


def _refuse_other_formats(original: bytes, what: str) -> None:
    """Raises ExportError for the other files that llem writes; parsers of JSON would not say what they are."""
    header = set(original.split(b"\n", 1)[0].split(b","))
    if b"experiment_id" in header and header & {
        b"process_index",
        b"schema_version",
        b"measurement_config_hash",
    }:
        raise _foreign(what, found="a CSV file that llem wrote", hint=MOVED)
    if original.startswith(b"PAR1"):
        raise _foreign(what, found="a Parquet file", hint=MOVED)


def _refuse_lists(document: object, what: str) -> None:
    """Raises ExportError for a list: one of llem's own results is told by a field that the predecessor has not."""
    if isinstance(document, list):
        ours = any(
            isinstance(item, dict) and {"weights", "host", "segment_id"} & item.keys() for item in document
        )
        count = "1 item" if len(document) == 1 else f"{len(document)} items"
        hint = MOVED if ours else "write each result to a file of its own"
        raise _foreign(what, found=f"a list of {count}", hint=hint)
    if not isinstance(document, dict):
        raise _foreign(what, found=f"{msgspec.json.encode(document).decode():.40}")


def _foreign(what: str, *, found: str, hint: str | None = None) -> ExportError:
    return ExportError(
        f"{what} is not a result of LLenergyMeasure", found=found, expected=ONE_RESULT, hint=hint
    )


def _check(fields: Fields, what: str) -> None:
    version = fields.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ExportError(
            f"{what}: field schema_version", found=repr(version), expected=f"one of {_VERSIONS}"
        )
    if missing := [name for name in REQUIRED if name not in fields]:
        raise ExportError(f"{what}: field {missing[0]} is missing", hint="is it a result of LLenergyMeasure?")


def _renamed(fields: Fields) -> Fields:
    """Under our names; model, precision and batch size are taken from where the predecessor hid them."""
    config = _dict(fields.get("effective_config"))
    processes = fields.get("process_results")
    parts = (
        [_renamed_parts(_dict(process)) for process in processes]
        if isinstance(processes, list)
        else processes
    )
    first = parts[0] if isinstance(parts, list) and parts else {}
    hidden = {
        "model_name": first.get("model_name") or config.get("model"),
        "dtype": config.get("precision"),
        "batch_size": config.get("batch_size"),
    }
    return hidden | _renamed_parts(fields) | ({} if processes is None else {"process_results": parts})


def _renamed_parts(fields: Fields) -> Fields:
    changed: Fields = {}
    if isinstance(environment := fields.get("environment_snapshot"), dict):
        packages = environment.get("installed_packages")
        named = _by_name(packages) if isinstance(packages, list) else {}
        changed["environment_snapshot"] = {"packages": named, **environment}
    if isinstance(warmup := fields.get("warmup_result"), dict):
        changed["warmup_result"] = {"cooldown_sec": warmup.get("thermal_floor_wait_s"), **warmup}
    if isinstance(latencies := fields.get("latency_stats"), dict):
        changed["latency_stats"] = _latencies(latencies)
    return {**fields, **changed}


def _latencies(fields: Fields) -> Fields:
    """Under our names: what the predecessor calls `itl` has each request's first and last gap left out, `itl_full` has all."""
    if any(name.startswith("itl_trimmed_") for name in fields):
        return fields
    return {_latency_name(name): figure for name, figure in fields.items()}


def _latency_name(name: str) -> str:
    if name.startswith("itl_full_"):
        return name.replace("itl_full_", "itl_", 1)
    return name.replace("itl_", "itl_trimmed_", 1) if name.startswith("itl_") else name


def _dict(part: object) -> Fields:
    """The part where it is an object; anything else is left to the check of the whole, which names it."""
    return part if isinstance(part, dict) else {}


def _by_name(packages: object) -> Mapping[str, str]:
    if not isinstance(packages, list) or not all(isinstance(package, str) for package in packages):
        raise ValueError("field installed_packages: expected a list of texts")
    pairs = (package.partition("==") for package in packages)
    return {name: version for name, _, version in pairs}


def _in_utc(result: ExperimentResult) -> ExperimentResult:
    """The predecessor wrote local times without a zone; they are taken for UTC, with a warning."""
    warnings = result.measurement_warnings
    return msgspec.structs.replace(
        result,
        measurement_warnings=warnings if result.start_time.tzinfo else [*warnings, WITHOUT_ZONE],
        start_time=_aware(result.start_time),
        end_time=_aware(result.end_time),
        process_results=[_process_in_utc(process) for process in result.process_results],
    )


def _with_sums(result: ExperimentResult) -> ExperimentResult:
    """What the predecessor tells of processes and not of their experiment: tokens given and got, and rates where one process ran."""
    work = [process.inference_metrics for process in result.process_results]
    inputs = result.total_input_tokens or total_count(part.input_tokens for part in work)
    outputs = result.total_output_tokens or total_count(part.output_tokens for part in work)
    # of several processes nobody knows how long any of them measured
    measured_sec = result.total_inference_time_sec if result.num_processes == 1 else None
    measured_sec = measured_sec if result.measured_sec is None else result.measured_sec
    rates = {
        "tokens_per_second": ratio(result.total_tokens, measured_sec),
        "output_tokens_per_second": ratio(outputs, measured_sec),
        "energy_per_output_token_j": ratio(result.total_energy_j, outputs),
    }
    known = {name: rate for name, rate in rates.items() if getattr(result, name) is None}
    return msgspec.structs.replace(
        result, total_input_tokens=inputs, total_output_tokens=outputs, measured_sec=measured_sec, **known
    )


def _process_in_utc(process: RawProcessResult) -> RawProcessResult:
    times = process.timestamps
    in_utc = Timestamps(start=_aware(times.start), end=_aware(times.end), duration_sec=times.duration_sec)
    return msgspec.structs.replace(process, timestamps=in_utc)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def strict_json(document: bytes) -> Any:
    """The document, where it has one meaning only: no key twice, no NaN, no number that 64 bits cannot hold. Raises ValueError."""
    try:
        # as it will be read from the log: UTF-8, no half characters, no NaN and nothing infinite
        msgspec.json.decode(document)
        content = json.loads(document, object_pairs_hook=_object, parse_int=_integer)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    _check_depth(content)
    return content


def _check_depth(document: Any) -> None:
    """What is nested deeper than this is no result, and more than who walks through it can bear."""
    level: list[Any] = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in fields if names.count(name) > 1)
        raise ValueError(f"field {_short(twice)} stands there twice")
    return fields


def _integer(digits: str) -> int:
    if len(digits) > len(str(INT64.start)) or int(digits) not in INT64:
        raise ValueError(f"integer {_short(digits)} does not fit into 64 bits")
    return int(digits)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}... ({len(text)} characters)"


def check_possible(result: ExperimentResult, *, what: str) -> None:
    """Raises ExportError, which names the field, for times, counts or figures that no measurement can have."""
    _check_span(result.start_time, result.end_time, what=what)
    for place, process in enumerate(result.process_results):
        times = process.timestamps
        _check_span(times.start, times.end, what=f"{what}: process_results[{place}].timestamps")
    indices = [process.process_index for process in result.process_results]
    if len(set(indices)) < len(indices):
        raise ExportError(f"{what}: process_index", found=sorted(indices), expected="each once")
    for field, number in _negative(msgspec.to_builtins(result), ""):
        raise ExportError(f"{what}: field {field}", found=number, expected="0 or more")


def _check_span(start: datetime, end: datetime, *, what: str) -> None:
    latest = datetime.now(UTC) + LATEST_AHEAD
    for name, moment in (("start", start), ("end", end)):
        if not EARLIEST <= moment <= latest:
            raise ExportError(
                f"{what}: {name} time",
                found=moment.isoformat(),
                expected=f"between {EARLIEST:%Y-%m-%d} and now",
            )
    if end < start:
        raise ExportError(
            f"{what}: end time", found=end.isoformat(), expected=f"not before {start.isoformat()}"
        )


def _negative(part: Any, place: str) -> Iterator[tuple[str, int | float]]:
    match part:
        case bool():
            return
        case int() | float():
            if part < 0:
                yield place, part
        case dict():
            for name, item in part.items():
                if name not in _NOT_FIGURES and not any(word in name for word in _MAY_BE_NEGATIVE):
                    yield from _negative(item, f"{place}.{name}".lstrip("."))
        case list() | tuple():
            for index, item in enumerate(part):
                yield from _negative(item, f"{place}[{index}]")
