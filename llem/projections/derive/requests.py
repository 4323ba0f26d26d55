"""Requests of one process in some spans: tokens, latencies and FLOPs."""

from collections.abc import Sequence

import duckdb
import msgspec

from llem.projections.derive.history import ProcessFacts, Span
from llem.results import LatencyMeasurements
from llem.results.flops import ModelShape, decode_flops, prefill_flops
from llem.results.latency import FINISHED

_FIELDS = (
    "batch_index",
    "batch_size",
    "arrival_ns",
    "first_token_ns",
    "end_ns",
    "input_tokens",
    "output_tokens",
    "token_times_ns",
    "finish_reason",
)


class RequestRow(msgspec.Struct, frozen=True):
    """A row of the table `requests`."""

    batch_index: int
    batch_size: int
    arrival_ns: int
    first_token_ns: int | None
    end_ns: int
    input_tokens: int
    output_tokens: int
    token_times_ns: list[int]
    finish_reason: str

    @property
    def failed(self) -> bool:
        return self.finish_reason == "error"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What was done for one request within the spans."""

    request: RequestRow
    whole: bool  # arrival and end lie in one of the spans
    input_tokens: int = 0
    output_tokens: int = 0
    first_output: int = 0  # place of the first of these among the request's output tokens


def load_requests(connection: duckdb.DuckDBPyConnection, process: ProcessFacts) -> list[RequestRow]:
    """Requests of a worker's measurement, in the order of the log."""
    rows = connection.execute(
        f"SELECT {', '.join(_FIELDS)} FROM requests "
        "WHERE experiment_id = ? AND segment_id = ? AND window_kind = 'measurement' "
        "ORDER BY event_number, request_id",
        [process.segment.experiment_id, process.segment.segment_id],
    ).fetchall()
    return [RequestRow(*row) for row in rows]


def count_warmup_requests(connection: duckdb.DuckDBPyConnection, process: ProcessFacts) -> int:
    """Requests that a worker ran before its measurement."""
    found = connection.execute(
        "SELECT count(*) FROM requests WHERE experiment_id = ? AND segment_id = ? AND window_kind = 'warmup'",
        [process.segment.experiment_id, process.segment.segment_id],
    )
    return int(found.fetchall()[0][0])


def work_within(request: RequestRow, spans: Sequence[Span]) -> Work | None:
    """What was done for a request in the spans; None where it lies outside of them.

    A prompt's tokens count where its first output token came, an output token where it came itself. A failed request
    has done no work.
    """
    if not any(request.arrival_ns <= end and request.end_ns >= start for start, end in spans):
        return None
    whole = any(start <= request.arrival_ns and request.end_ns <= end for start, end in spans)
    if request.failed:
        return Work(request=request, whole=whole)
    if whole or not request.token_times_ns:
        inside = _inside(request.end_ns, spans)
        return Work(
            request=request,
            whole=whole,
            input_tokens=request.input_tokens if inside else 0,
            output_tokens=request.output_tokens if inside else 0,
        )
    places = [place for place, at_ns in enumerate(request.token_times_ns) if _inside(at_ns, spans)]
    return Work(
        request=request,
        whole=False,
        input_tokens=request.input_tokens if 0 in places else 0,
        output_tokens=len(places),
        first_output=places[0] if places else 0,
    )


def _inside(at_ns: int, spans: Sequence[Span]) -> bool:
    return any(start <= at_ns <= end for start, end in spans)


def work_flops(shape: ModelShape | None, work: Sequence[Work]) -> int | None:
    """FLOPs of the tokens counted; None where the model is unknown."""
    if shape is None:
        return None
    return sum(_flops(shape, done) for done in work)


def _flops(shape: ModelShape, work: Work) -> int:
    """The first output token comes from the prompt's pass; every later one attends to one token more."""
    prefill = (
        prefill_flops(shape, tokens=work.input_tokens) if work.input_tokens and work.output_tokens else 0
    )
    first = max(work.first_output, 1)
    steps = work.first_output + work.output_tokens - first
    if steps <= 0:
        return prefill
    return prefill + decode_flops(shape, context=work.request.input_tokens + first, steps=steps)


def latencies(work: Sequence[Work], *, warmup_requests: int) -> LatencyMeasurements:
    """Raw latencies of the requests that ran to their end within a span."""
    finished = [done.request for done in work if done.whole and done.request.finish_reason in FINISHED]
    return LatencyMeasurements.from_columns(
        arrival_ns=[request.arrival_ns for request in finished],
        first_token_ns=[request.first_token_ns for request in finished],
        end_ns=[request.end_ns for request in finished],
        token_times_ns=[request.token_times_ns for request in finished],
        output_tokens=sum(request.output_tokens for request in finished),
        warmup_requests_excluded=warmup_requests,
    )
