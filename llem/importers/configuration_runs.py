"""Lists that LLenergyMeasure wrote before v0.3, of configurations that it ran: totals of tokens, and CodeCarbon's energies."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llem.importers.asked import Asked
from llem.importers.document import Count, Document, Fields
from llem.importers.recording import Mapped, Recording, Sum, measurement, metered, nanoseconds
from llem.units import J_PER_KWH
from llem_events.events import OtherMeter, WorkReported

NAME = "CONFIGURATION_RUN_#"
_DATE = "%B %d, %Y at %I:%M:%S %p"
_KilowattHours = Annotated[float, Meta(ge=0, le=1e9)]
_SEVERAL = "every process tracked it, and whether each saw the others' devices too is not in the file"
_ZERO = "0 stood for nothing"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when."""

    date_time: str
    model: str
    gpu_model: str = "unknown"
    cpu_model: str = "unknown"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Of all processes."""

    number_input_prompts: Count
    total_input_tokens: Count
    total_generated_tokens: Count


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """Its rates follow from this."""

    total_inference_time_sec: Annotated[float, Meta(gt=0, le=1e9)]


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, and how long it took."""

    raw_inference_metrics: Counts
    inference_performance: Performance


class Energies(msgspec.Struct, frozen=True, kw_only=True):
    """Of a process each."""

    cpu_energy: dict[str, _KilowattHours] = {}
    gpu_energy: dict[str, _KilowattHours] = {}
    ram_energy: dict[str, _KilowattHours] = {}


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Of all processes."""

    local_process_results: Energies = Energies()


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    inference_metrics: Inference
    global_energy_metrics: Energy = Energy()


class ConfigurationRun(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the list, without its name."""

    setup: Setup
    variables: dict[str, Any] = {}
    results: Results


def configuration_runs(document: Document) -> dict[str, Fields]:
    """Name -> run: each process of one appended it, and the last counts. None where any item is something else."""
    items = document.json if isinstance(document.json, list) else []
    named = [next(iter(item.items())) for item in items if isinstance(item, dict) and len(item) == 1]
    are_runs = len(named) == len(items) and all(name.startswith(NAME) for name, _ in named)
    return dict(named) if are_runs else {}


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """Those of a list. Raises ExportError."""
    for name, fields in configuration_runs(document).items():
        run = document.convert(fields, ConfigurationRun)
        yield _recording(document, name, run, asked, msgspec.json.encode([{name: fields}]))


def _recording(
    document: Document, name: str, run: ConfigurationRun, asked: Asked, original: bytes
) -> Recording:
    inference = run.results.inference_metrics
    duration_ns = nanoseconds(inference.inference_performance.total_inference_time_sec)
    energies = run.results.global_energy_metrics.local_process_results
    gpus = _sum("GPUs", "gpu", energies.gpu_energy, run.setup.gpu_model)
    others = [
        _sum("CPU", "cpu_package", energies.cpu_energy, run.setup.cpu_model)._replace(source="estimated"),
        _sum("RAM", "dram", energies.ram_energy)._replace(source="estimated"),
    ]
    counts = inference.raw_inference_metrics
    return Recording(
        origin_ns=asked.unix_ns(_date(document, run.setup.date_time)),
        measurements=[measurement((0, max(duration_ns, 1)), [gpus, *others])],
        devices=metered([gpus]),
        beside=[OtherMeter(meter="imported:llenergymeasure", devices=metered(others))],
        model_name=run.setup.model,
        labels={"imported_id": name, "configuration": str(run.variables.get("config_name", ""))},
        work=WorkReported(
            tokens=counts.total_input_tokens + counts.total_generated_tokens,
            input_tokens=counts.total_input_tokens,
            output_tokens=counts.total_generated_tokens,
            requests=counts.number_input_prompts,
        ),
        notes=[
            asked.note_of_zone(),
            "its date is that of its setting up: the run is taken to begin there",
            "CodeCarbon tracked more than the inference: its energies are taken to be of it",
        ],
        mapping=[*_mapping([gpus, *others])],
        original=original,
    )


def _sum(uuid: str, kind: str, energies_kwh: dict[str, float], name: str = "unknown") -> Sum:
    """Of the one process that there was."""
    if len(energies_kwh) > 1:
        return Sum(uuid, kind, None, _SEVERAL, name)
    energy_j = sum(energies_kwh.values()) * J_PER_KWH or None
    return Sum(uuid, kind, energy_j, None if energy_j else _ZERO, name)


def _date(document: Document, written: str) -> datetime:
    try:
        return datetime.strptime(written, _DATE)
    except ValueError:
        raise document.refuse(
            "date_time", found=repr(written[:40]), expected="one such as April 16, 2025 at 09:30:16 AM"
        ) from None


def _mapping(sums: list[Sum]) -> Iterator[Mapped]:
    yield Mapped("start_time, duration_sec", "date_time, total_inference_time_sec")
    yield Mapped("model_name", "model")
    yield Mapped("total_input_tokens, total_output_tokens, total_requests", "raw_inference_metrics")
    for each, column in zip(sums, ("energy_gpu_j", "energy_cpu_j", "energy_dram_j"), strict=True):
        yield Mapped(column, None if each.reason else "local_process_results in kWh", each.reason)
    yield Mapped("samples, requests, latencies", reason="the file has totals only")
