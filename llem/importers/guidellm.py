"""GuideLLM's benchmarks.json, of 0.3 and since: an experiment for each of its benchmarks."""

from collections.abc import Iterator
from typing import Any

import msgspec

from llem.importers.asked import Asked
from llem.importers.document import Count, Document, Fields, UnixSeconds
from llem.importers.recording import Mapped, Measurement, Recording, nanoseconds, request
from llem_events.events import Request, WorkReported

OPTIONS: frozenset[str] = frozenset()
PACED = ("constant", "poisson", "async", "trace")
_NO_TOKEN_TIMES = "GuideLLM keeps the first and the last token's time only"


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Moments of a request."""

    targeted_start: UnixSeconds | None = None
    request_start: UnixSeconds | None = None
    resolve_start: UnixSeconds | None = None
    first_token_iteration: UnixSeconds | None = None
    request_end: UnixSeconds | None = None
    resolve_end: UnixSeconds | None = None


class RequestInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    timings: Timings
    error: str | None = None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A request."""

    info: RequestInfo
    prompt_tokens: Count | None = None
    output_tokens: Count | None = None

    @property
    def start(self) -> float | None:
        """Unix seconds when it was sent; None where it never was."""
        return self.info.timings.request_start or self.info.timings.resolve_start

    @property
    def end(self) -> float | None:
        """Unix seconds when it was done."""
        return self.info.timings.request_end or self.info.timings.resolve_end


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """Those of a benchmark that were kept."""

    successful: list[Stats] | None = None
    errored: list[Stats] | None = None
    incomplete: list[Stats] | None = None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests a benchmark had."""

    successful: Count
    errored: Count = 0
    incomplete: Count = 0


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a benchmark."""

    start_time: UnixSeconds
    end_time: UnixSeconds
    config: Any = None
    metrics: dict[str, Any]
    requests: Requests


def _of_today(fields: Fields) -> Fields:
    """A benchmark of 0.3 as one of later: its requests told their times flat, and its totals and strategy stood elsewhere."""
    parts = fields.get("requests"), fields.get("metrics")
    if "request_totals" not in fields or not all(isinstance(part, dict) for part in parts):
        return fields
    groups = {name: _listed(group) for name, group in fields["requests"].items()}
    totals = {"request_totals": fields["request_totals"]}
    return {
        **fields,
        "config": fields.get("args"),
        "metrics": {**fields["metrics"], **totals},
        "requests": groups,
    }


def _listed(group: Any) -> Any:
    return [_request_of_today(stats) for stats in group] if isinstance(group, list) else group


def _request_of_today(stats: Any) -> Any:
    if not isinstance(stats, dict) or "scheduler_info" not in stats:
        return stats
    scheduled = stats["scheduler_info"] if isinstance(stats["scheduler_info"], dict) else {}
    timings = {
        "targeted_start": scheduled.get("targeted_start_time"),
        "request_start": stats.get("start_time"),
        "first_token_iteration": stats.get("first_token_time"),
        "request_end": stats.get("end_time"),
    }
    return {**stats, "info": {"timings": timings, "error": stats.get("error")}}


def recognises(document: Document) -> bool:
    """Whether it lists benchmarks with their requests."""
    benchmarks = document.fields.get("benchmarks")
    first = benchmarks[0] if isinstance(benchmarks, list) and benchmarks else None
    return isinstance(first, dict) and {"requests", "metrics", "start_time"} <= first.keys()


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """A run for each benchmark. Raises ExportError."""
    benchmarks = document.fields["benchmarks"]
    for number, fields in enumerate(benchmarks):
        yield _recording(document, fields, number, alone=len(benchmarks) == 1)


def _recording(document: Document, fields: Fields, number: int, *, alone: bool) -> Recording:
    of_today = _of_today(fields)
    benchmark = document.convert(of_today, Benchmark)
    totals = document.convert(benchmark.metrics.get("request_totals"), Totals)
    kept = [*_kept(benchmark.requests)]
    paced = _text(of_today, "config", "strategy", "type_") in PACED
    known = totals.successful + totals.errored + totals.incomplete
    if not known:
        raise document.refuse(f"benchmark {number + 1} has no requests", hint="did it fail?")
    if benchmark.end_time <= benchmark.start_time:
        raise document.refuse(f"end_time of benchmark {number + 1}", expected="after its start_time")
    is_sample = len(kept) < known
    origin_ns = nanoseconds(min([benchmark.start_time, *(_arrival(stats, paced=paced) for stats, _ in kept)]))
    requests = [
        _request(place, stats, error, origin_ns, paced=paced) for place, (stats, error) in enumerate(kept)
    ]
    ended_ns = nanoseconds(benchmark.end_time) - origin_ns
    model_path, model_name = _model(document.fields, fields)
    original = None if alone else msgspec.json.encode({**document.fields, "benchmarks": [fields]})
    return Recording(
        origin_ns=origin_ns,
        measurements=[
            Measurement((0, ended_ns if is_sample else max([ended_ns, *(each.end_ns for each in requests)])))
        ],
        version=_text(document.fields, "metadata", "guidellm_version"),
        model_name=model_name,
        labels={"benchmark": str(number + 1)},
        requests=None if is_sample else requests,
        work=_work(benchmark, known) if is_sample else None,
        notes=[f"{len(kept)} of {known} requests are in the file: its totals are taken, and no latencies"]
        if is_sample
        else [],
        mapping=[*_mapping(is_sample=is_sample, kept=len(kept), known=known, model=model_path)],
        original=original,
    )


def _kept(requests: Requests) -> Iterator[tuple[Stats, str | None]]:
    """Those that were sent, with what went wrong."""
    groups = (
        (requests.successful, None),
        (requests.errored, "failed"),
        (requests.incomplete, "cut off at the end"),
    )
    for group, error in groups:
        for stats in group or ():
            if stats.start is not None:
                yield stats, error and (stats.info.error or error)


def _arrival(stats: Stats, *, paced: bool) -> float:
    """Without a pace no request is due before it is sent."""
    due = stats.info.timings.targeted_start if paced else None
    return min(due or 1e18, stats.start or 1e18)


def _request(number: int, stats: Stats, error: str | None, origin_ns: int, *, paced: bool) -> Request:
    start, end, first = stats.start or 0.0, stats.end, stats.info.timings.first_token_iteration
    return request(
        number,
        arrival_ns=nanoseconds(_arrival(stats, paced=paced)) - origin_ns,
        start_ns=nanoseconds(start) - origin_ns,
        first_ns=None if first is None else nanoseconds(first) - origin_ns,
        end_ns=nanoseconds(start if end is None else end) - origin_ns,
        input_tokens=0 if error else stats.prompt_tokens or 0,
        output_tokens=0 if error else stats.output_tokens or 0,
        gaps_sec=None,
        error=error,
    )


def _work(benchmark: Benchmark, requests: int) -> WorkReported:
    """Of a benchmark whose requests were not all kept."""
    inputs, outputs = (_sum(benchmark.metrics, name) for name in ("prompt_token_count", "output_token_count"))
    return WorkReported(
        tokens=None if inputs is None or outputs is None else inputs + outputs,
        input_tokens=inputs,
        output_tokens=outputs,
        requests=requests,
    )


def _sum(metrics: Fields, name: str) -> int | None:
    successful = metrics[name].get("successful") if isinstance(metrics.get(name), dict) else None
    total = successful.get("total_sum") if isinstance(successful, dict) else None
    return round(total) if isinstance(total, int | float) and 0 <= total < 2**53 else None


def _text(fields: Fields, *path: str) -> str | None:
    found: Any = fields
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def _model(document: Fields, benchmark: Fields) -> tuple[str | None, str | None]:
    """Where the model is named, and how: it moved from version to version."""
    places = {
        "config.spec.backend.model": _text(document, "config", "spec", "backend", "model"),
        "args.model": _text(document, "args", "model"),
        "worker.backend_model": _text(benchmark, "worker", "backend_model"),
    }
    return next(((path, name) for path, name in places.items() if name is not None), (None, None))


def _mapping(*, is_sample: bool, kept: int, known: int, model: str | None) -> Iterator[Mapped]:
    yield Mapped("start_time, duration_sec", "start_time, end_time")
    yield Mapped("model_name", model, None if model else "not in the file")
    if is_sample:
        yield Mapped("total_input_tokens, total_output_tokens", "metrics: sums over successful requests")
        yield Mapped("requests", reason=f"only {kept} of {known} are in the file")
    else:
        yield Mapped("requests", "requests.successful, errored and incomplete")
        yield Mapped("requests.token_times_ns, itl", reason=_NO_TOKEN_TIMES)
    yield Mapped("total_energy_j, samples", reason="the file has no energy")
