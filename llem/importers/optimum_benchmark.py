"""Optimum-Benchmark's benchmark_report.json or benchmark.json: a mean call of each of its targets."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llem.importers.asked import Asked
from llem.importers.document import Document, Fields
from llem.importers.recording import Mapped, Recording, Sum, measurement, metered, nanoseconds
from llem.units import J_PER_KWH
from llem_events.events import OtherMeter, WorkReported

OPTIONS = frozenset({"timezone", "start"})
TARGETS = ("prefill", "decode", "generate", "call", "forward")
_ZERO = "CodeCarbon, which it asks, writes 0 where it measured nothing"
_MEANS = (
    "figures are those of a mean call: latency and energy were measured in separate passes, "
    "and decode is generate less prefill"
)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of a call."""

    unit: Literal["s"]
    mean: Annotated[float, Meta(gt=0, le=1e9)]


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Of a call."""

    unit: str
    value: Annotated[float, Meta(ge=0, le=1e12)]

    @property
    def counts_tokens(self) -> bool:
        """Others count samples: prompts, or tokens under their name."""
        return self.unit.startswith("tokens")


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Of a call; below nothing where a difference of two is."""

    unit: Literal["kWh"]
    cpu: float = 0.0
    ram: float = 0.0
    gpu: float = 0.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What was done over and over."""

    latency: Latency | None = None
    throughput: Throughput | None = None
    energy: Energy | None = None


def recognises(document: Document) -> bool:
    """Whether it has targets with latencies."""
    return bool(_targets(document))


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """A run for each target. Raises LlemError."""
    began_ns = asked.start_ns()
    if began_ns is None:
        raise document.refuse("Optimum-Benchmark does not write when it ran", hint="say --start TIME")
    config = document.fields.get("config")
    for name, fields in _targets(document).items():
        target = document.convert(fields, Target)
        if target.latency is not None:
            yield _recording(name, target, target.latency, config, began_ns)


def _targets(document: Document) -> Fields:
    report = document.fields.get("report", document.fields)
    if not isinstance(report, dict):
        return {}
    found = {name: report[name] for name in TARGETS if isinstance(report.get(name), dict)}
    return found if any("latency" in fields and "throughput" in fields for fields in found.values()) else {}


def _recording(name: str, target: Target, latency: Latency, config: Any, began_ns: int) -> Recording:
    span = 0, max(nanoseconds(latency.mean), 1)
    energy = target.energy
    gpus = [] if energy is None or not energy.gpu else [_sum("GPUs", "gpu", energy.gpu)]
    others = []
    if energy is not None:
        sums = (_sum("CPU", "cpu_package", energy.cpu), _sum("RAM", "dram", energy.ram))
        others = [each._replace(source="estimated") for each in sums]
    first, beside = (gpus, others) if gpus else (others, [])
    return Recording(
        origin_ns=began_ns,
        measurements=[measurement(span, [*first, *beside])],
        devices=metered(first),
        beside=[OtherMeter(meter="imported:optimum-benchmark", devices=metered(beside))] if beside else [],
        model_name=_model(config),
        labels={"target": name},
        work=_work(target, latency),
        notes=[_MEANS, "when it began is what --start said"],
        mapping=[*_mapping(target, gpus=bool(gpus))],
    )


def _sum(uuid: str, kind: str, energy_kwh: float) -> Sum:
    if not 0 < energy_kwh <= 1e9:
        return Sum(uuid, kind, None, _ZERO)
    return Sum(uuid, kind, energy_kwh * J_PER_KWH)


def _work(target: Target, latency: Latency) -> WorkReported | None:
    """Tokens of a call, where its throughput is one of tokens."""
    if target.throughput is None or not target.throughput.counts_tokens:
        return None
    return WorkReported(output_tokens=round(target.throughput.value * latency.mean))


def _model(config: Any) -> str | None:
    backend = config.get("backend") if isinstance(config, dict) else None
    model = backend.get("model") if isinstance(backend, dict) else None
    return model if isinstance(model, str) else None


def _mapped_tokens(throughput: Throughput | None) -> Mapped:
    if throughput is None:
        return Mapped("total_output_tokens", reason="the report has no throughput")
    if not throughput.counts_tokens:
        return Mapped("total_output_tokens", reason=f"throughput is in {throughput.unit}")
    return Mapped("total_output_tokens", "throughput.value x latency.mean")


def _mapping(target: Target, *, gpus: bool) -> Iterator[Mapped]:
    yield Mapped("start_time", "--start")
    yield Mapped("duration_sec", "latency.mean")
    yield _mapped_tokens(target.throughput)
    if target.energy is None:
        yield Mapped("total_energy_j", reason="the report has no energy")
    else:
        yield Mapped("total_energy_j", "energy.gpu" if gpus else "energy.cpu + energy.ram, estimated")
    yield Mapped("requests, samples", reason="the report has means only")
