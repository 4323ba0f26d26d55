"""`vllm bench serve --save-result`: one run, or one on each line; with --save-detailed its requests too."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from llem.importers.asked import Asked
from llem.importers.document import Count, Document, Joules, Seconds
from llem.importers.recording import Mapped, Recording, Sum, measurement, metered, nanoseconds, request
from llem_events.events import Request, WorkReported

OPTIONS = frozenset({"timezone"})
_KEYS = {"date", "backend", "model_id", "num_prompts", "duration", "completed", "total_output_tokens"}
_NO_TIMES = (
    "the file does not tell when each request was sent (--save-detailed, of a vLLM that writes start_times)"
)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a run; seconds and joules."""

    date: str  # when it was written, local
    backend: str
    model_id: str
    duration: Seconds
    completed: Count
    failed: Count | None = None
    total_input_tokens: Count
    total_output_tokens: Count
    input_lens: list[Count] | None = None
    output_lens: list[Count] | None = None
    ttfts: list[Seconds] | None = None
    itls: list[list[Seconds]] | None = None
    latencies: list[Seconds] | None = None
    start_times: list[Seconds] | None = None
    queue_times: list[Seconds | None] | None = None
    errors: list[str | None] | None = None
    request_rate: Any = "inf"
    gpu_energy_j: Joules | None = None
    energy_gpu_ids: Any = None

    @property
    def is_detailed(self) -> bool:
        """Whether its requests can be put in their places."""
        lists = (self.input_lens, self.output_lens, self.ttfts, self.itls, self.latencies, self.start_times)
        known = [len(each) for each in lists if each is not None]
        return len(known) == len(lists) and len(set(known)) == 1 and known[0] > 0


def recognises(document: Document) -> bool:
    """Whether every object has the keys of a result."""
    return bool(document.objects) and all(fields.keys() >= _KEYS for fields in document.objects)


def recordings(document: Document, asked: Asked) -> Iterator[Recording]:
    """A run for each object. Raises LlemError."""
    for fields in document.objects:
        result = document.convert(fields, Result)
        original = None if len(document.objects) == 1 else msgspec.json.encode(fields)
        yield _recording(document, result, asked, original)


def _recording(document: Document, result: Result, asked: Asked, original: bytes | None) -> Recording:
    duration_ns = nanoseconds(result.duration)
    began_ns = asked.unix_ns(_date(document, result)) - duration_ns
    requests = list(_requests(result)) if result.is_detailed else None
    closed_ns = max([duration_ns, *(each.end_ns for each in requests or ())])
    sums = _energy(result)
    return Recording(
        origin_ns=began_ns,
        measurements=[measurement((0, closed_ns), sums)],
        devices=metered(sums),
        requests=requests,
        work=None if requests is not None else _work(result),
        model_name=result.model_id,
        labels={"client_backend": result.backend},
        notes=[
            asked.note_of_zone(),
            "its date has whole seconds and is that of its writing: the run is taken to end there",
        ],
        mapping=[*_mapping(result)],
        original=original,
    )


def _date(document: Document, result: Result) -> datetime:
    try:
        return datetime.strptime(result.date, "%Y%m%d-%H%M%S")
    except ValueError:
        raise document.refuse(
            "date", found=repr(result.date), expected="one such as 20261126-095142"
        ) from None


def _requests(result: Result) -> Iterator[Request]:
    """In seconds of the client's own clock, the first of which is the run's beginning."""
    starts = result.start_times or []
    # without a rate no request is due before it is sent
    queued = [] if result.request_rate == "inf" else result.queue_times or []
    waited = [wait or 0.0 for wait in queued] or [0.0] * len(starts)
    origin = min(start - wait for start, wait in zip(starts, waited, strict=False))
    errors = result.errors or [""] * len(starts)
    columns = (starts, waited, result.ttfts or [], result.itls or [], result.latencies or [])
    counts = (result.input_lens or [], result.output_lens or [], errors)
    for number, (start, wait, ttft, gaps, latency, given, got, error) in enumerate(
        zip(*columns, *counts, strict=False)
    ):
        failed = error or (None if got else "no token came")
        start_ns = nanoseconds(start - origin)
        yield request(
            number,
            arrival_ns=nanoseconds(start - wait - origin),
            start_ns=start_ns,
            first_ns=None if failed else start_ns + nanoseconds(ttft),
            end_ns=start_ns + nanoseconds(latency),
            # of those that failed it counts none either
            input_tokens=0 if failed else given,
            output_tokens=0 if failed else got,
            gaps_sec=gaps,
            error=failed,
        )


def _work(result: Result) -> WorkReported:
    return WorkReported(
        tokens=result.total_input_tokens + result.total_output_tokens,
        input_tokens=result.total_input_tokens,
        output_tokens=result.total_output_tokens,
        requests=result.completed + (result.failed or 0),
    )


def _energy(result: Result) -> list[Sum]:
    """The GPUs as one device, whose counters were read before and after."""
    if result.gpu_energy_j is None:
        return []
    ids = result.energy_gpu_ids if isinstance(result.energy_gpu_ids, list) else []
    return [Sum(f"GPUs {','.join(map(str, ids))}"[:100].strip(), "gpu", result.gpu_energy_j)]


def _mapping(result: Result) -> Iterator[Mapped]:
    yield Mapped("start_time, duration_sec", "date, duration")
    yield Mapped("model_name", "model_id")
    if result.is_detailed:
        yield Mapped("requests", "start_times, ttfts, itls, latencies, input_lens, output_lens, errors")
        yield Mapped(
            "requests.arrival_ns", "queue_times, where request_rate is a number; else when it was sent"
        )
        yield Mapped("requests.chunk_tokens, itl", reason="the tokens of a piece are not in the file")
    else:
        yield Mapped(
            "total_input_tokens, total_output_tokens, total_requests", "the totals of the same names"
        )
        yield Mapped("requests", reason=_NO_TIMES)
    if result.gpu_energy_j is None:
        yield Mapped("total_energy_j", reason="the file has no energy")
    else:
        yield Mapped("total_energy_j", "gpu_energy_j: counters of the GPUs, together")
    yield Mapped("samples", reason="the file has none")
