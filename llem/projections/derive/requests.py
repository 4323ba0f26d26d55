"""Requests of one process in some spans: tokens, latencies and FLOPs, from columns that are read in pieces."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import msgspec
import numpy as np
from numpy.typing import NDArray

from llem.projections.derive.history import ProcessFacts, Span, portions
from llem.results import LatencyMeasurements
from llem.results.flops import ModelShape, decode_flops, prefill_flops
from llem.results.latency import FINISHED, OF_REQUEST, FloatArray, LatencyColumns
from llem.results.nullable import ratio
from llem.units import NS_PER_MS

PIECE_VALUES = 2**18  # requests and times of tokens that are read at once
_OF_PROCESS = "FROM requests WHERE experiment_id = ? AND segment_id = ?"
_SIZES = f"""
SELECT event_number, count(*) FILTER (window_kind = 'measurement') AS requests,
       coalesce(sum(len(token_times_ns)) FILTER (window_kind = 'measurement'), 0)::BIGINT AS tokens,
       count(*) FILTER (window_kind = 'warmup') AS warmup_requests
{_OF_PROCESS} GROUP BY event_number ORDER BY event_number
"""
# Both statements on a piece see its rows in the order of the table.
_PIECE = f"{_OF_PROCESS} AND window_kind = 'measurement' AND event_number BETWEEN ? AND ?"
_COLUMNS = f"""
SELECT batch_index, batch_size, arrival_ns, end_ns, input_tokens, output_tokens,
       {", ".join(f"coalesce({sql}, 0) AS {name}_ns, ({sql}) IS NOT NULL AS has_{name}" for name, sql in OF_REQUEST.items())},
       finish_reason = 'error' AS failed, finish_reason IN {FINISHED} AS finished, len(token_times_ns) AS times
{_PIECE}
"""
_TOKEN_TIMES = f"SELECT unnest(token_times_ns) AS at_ns {_PIECE}"
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some requests as columns, the times of all their tokens one after the other, and the spans that count."""

    batch_index: Ints
    batch_size: Ints
    arrival_ns: Ints
    end_ns: Ints
    input_tokens: Ints
    output_tokens: Ints
    failed: Mask
    finished: Mask
    series_ns: Mapping[str, tuple[Ints, Mask]]  # each latency of the requests, and which of them have it
    times: Ints  # token times of each request
    token_times_ns: Ints
    spans: Sequence[Span]

    @property
    def touched(self) -> Mask:
        """Those that ran at all within a span."""
        return self._any(lambda start, end: (self.arrival_ns <= end) & (self.end_ns >= start))

    @property
    def whole(self) -> Mask:
        """Those whose arrival and end lie in one span."""
        return self._any(lambda start, end: (self.arrival_ns >= start) & (self.end_ns <= end))

    def inside(self, at_ns: Ints) -> Mask:
        """Which moments lie in a span."""
        return self._any(lambda start, end: (at_ns >= start) & (at_ns <= end))

    def _any(self, holds: Callable[[int, int], Mask]) -> Mask:
        found: Mask = np.logical_or.reduce([holds(start, end) for start, end in self.spans])
        return found


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """What was done for each request of a piece within the spans."""

    prompt: Ints
    answer: Ints
    first: Ints  # place of the first of these among the request's output tokens


def tokens_within(piece: Piece) -> Tokens:
    """A prompt's tokens count where its first output token came, an output token where it came itself.

    A failed request has done no work; one without times of tokens has done it when it ended.
    """
    worked = piece.touched & ~piece.failed
    at_once = piece.whole | (piece.times == 0)
    counted = worked & at_once & piece.inside(piece.end_ns)
    found = Tokens(
        prompt=np.where(counted, piece.input_tokens, 0),
        answer=np.where(counted, piece.output_tokens, 0),
        first=np.zeros(len(counted), np.int64),
    )
    ends = np.cumsum(piece.times)
    for row in np.flatnonzero(worked & ~at_once):
        places = np.flatnonzero(piece.inside(piece.token_times_ns[ends[row] - piece.times[row] : ends[row]]))
        found.answer[row] = len(places)
        if len(places):
            found.first[row] = places[0]
            found.prompt[row] = 0 if places[0] else piece.input_tokens[row]
    return found


def piece_flops(shape: ModelShape, piece: Piece, tokens: Tokens) -> int:
    """FLOPs of the tokens counted: requests of equal counts take equal work."""
    alike = Counter(
        zip(*(column.tolist() for column in (piece.input_tokens, *_columns(tokens))), strict=True)
    )
    return sum(count * _flops(shape, *counts) for counts, count in alike.items())


def _columns(tokens: Tokens) -> tuple[Ints, Ints, Ints]:
    return tokens.prompt, tokens.answer, tokens.first


def _flops(shape: ModelShape, context: int, prompt: int, answer: int, first_output: int) -> int:
    """The first output token comes from the prompt's pass; every later one attends to one token more."""
    prefill = prefill_flops(shape, tokens=prompt) if prompt and answer else 0
    first = max(first_output, 1)
    steps = first_output + answer - first
    if steps <= 0:
        return prefill
    return prefill + decode_flops(shape, context=context + first, steps=steps)


class Gaps:
    """Intervals between tokens in one array: inner ones from its start, each request's first and last from its end."""

    def __init__(self, most: int) -> None:
        self._ms = np.empty(most, np.float64)
        self.inner = self._outer = 0

    def add(self, token_times_ns: Ints, times: Ints, finished: Mask) -> None:
        """The intervals of the finished ones among some requests with so many times each."""
        streams = finished & (times > 1)
        ends = np.cumsum(times)
        within = np.repeat(streams, times)
        within[ends[streams] - 1] = False
        edge = np.zeros(len(token_times_ns), np.bool_)
        edge[(ends - times)[streams]] = edge[ends[streams] - 2] = True
        gaps_ms = np.diff(token_times_ns) / NS_PER_MS
        inner_ms, outer_ms = gaps_ms[(within & ~edge)[:-1]], gaps_ms[(within & edge)[:-1]]
        self._ms[self.inner : self.inner + len(inner_ms)] = inner_ms
        self.inner += len(inner_ms)
        self._outer += len(outer_ms)
        free = len(self._ms) - self._outer
        self._ms[free : free + len(outer_ms)] = outer_ms

    def ms(self) -> FloatArray:
        """All of them, the inner ones first."""
        outer_ms = self._ms[len(self._ms) - self._outer :].copy()
        self._ms[self.inner : self.inner + self._outer] = outer_ms
        return self._ms[: self.inner + self._outer]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a process did for its requests within the spans."""

    requests: int
    failed_requests: int
    input_tokens: int
    output_tokens: int
    token_times: int  # known ones, of all requests that ran at all within a span
    flops: int | None  # None where the model is unknown
    batches: int
    mean_batch_size: float | None
    latencies: LatencyColumns  # of the requests that ran to their end within a span
    measured: LatencyMeasurements  # what these say


class Requests:
    """The requests of a worker's measurement, read in pieces; a single piece is kept."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, process: ProcessFacts, spans: Sequence[Span]
    ) -> None:
        self._connection, self._spans = connection, spans
        self._key = [process.segment.experiment_id, process.requests_segment_id]
        sizes = connection.execute(_SIZES, self._key).fetchnumpy()
        self.warmup_requests = int(sizes["warmup_requests"].sum())
        self.tokens = int(sizes["tokens"].sum())
        values = sizes["requests"] + sizes["tokens"]
        self._ranges = list(portions(sizes["event_number"], values, most=PIECE_VALUES))
        self._kept: Piece | None = None

    def pieces(self) -> Iterator[Piece]:
        """All of them, some at a time."""
        if self._kept is not None:
            yield self._kept
            return
        for first, last in self._ranges:
            piece = self._read(first, last)
            if len(self._ranges) == 1:
                self._kept = piece
            yield piece

    def token_times_ns(self) -> Iterator[Ints]:
        """When the tokens came of the requests that ran at all within a span."""
        for piece in self.pieces():
            yield piece.token_times_ns[np.repeat(piece.touched, piece.times)]

    def _read(self, first: int, last: int) -> Piece:
        key = [*self._key, first, last]
        columns = self._connection.execute(_COLUMNS, key).fetchnumpy()
        times_ns = np.empty(0, np.int64)
        if columns["times"].any():
            times_ns = np.asarray(self._connection.execute(_TOKEN_TIMES, key).fetchnumpy()["at_ns"])
        known: dict[str, Any] = {name: np.asarray(column) for name, column in columns.items()}
        series_ns = {name: (known.pop(f"{name}_ns"), known.pop(f"has_{name}")) for name in OF_REQUEST}
        return Piece(**known, series_ns=series_ns, token_times_ns=times_ns, spans=self._spans)


class _Tally:
    """Sums over the pieces of a process's requests."""

    def __init__(self, *, most_gaps: int, shape: ModelShape | None) -> None:
        self.shape = shape
        self.counts: Counter[str] = Counter()
        self.gaps = Gaps(most_gaps)
        self.series_ns: dict[str, list[Ints]] = {name: [] for name in OF_REQUEST}
        self.batches: list[Ints] = []  # index and size

    def add(self, piece: Piece) -> None:
        touched, finished = piece.touched, piece.touched & piece.whole & piece.finished
        tokens = tokens_within(piece)
        self.counts.update(
            requests=int(touched.sum()),
            failed_requests=int((touched & piece.failed).sum()),
            input_tokens=_sum(tokens.prompt),
            output_tokens=_sum(tokens.answer),
            finished_tokens=_sum(piece.output_tokens[finished]),
            token_times=int(piece.times[touched].sum()),
            flops=0 if self.shape is None else piece_flops(self.shape, piece, tokens),
        )
        self.gaps.add(piece.token_times_ns, piece.times, finished)
        for name, (values_ns, known) in piece.series_ns.items():
            self.series_ns[name].append(values_ns[finished & known])
        self.batches.append(_batches(np.stack([piece.batch_index[touched], piece.batch_size[touched]])))

    def latencies(self) -> LatencyColumns:
        return LatencyColumns(
            of_request_ms={
                name: _concatenated(parts_ns) / NS_PER_MS for name, parts_ns in self.series_ns.items()
            },
            itl_ms=self.gaps.ms(),
            inner_gaps=self.gaps.inner,
        )


def _batches(index_and_size: Ints) -> Ints:
    """Each index once, with the size that its last request gives."""
    indices, places = np.unique(index_and_size[0, ::-1], return_index=True)
    return np.stack([indices, index_and_size[1, ::-1][places]])


def _sum(counts: Ints) -> int:
    """As Python's integers, which do not overflow."""
    return sum(counts.tolist())


def _concatenated(parts: Sequence[Ints]) -> Ints:
    return np.concatenate([np.empty(0, np.int64), *parts])


def work_of(requests: Requests, *, shape: ModelShape | None) -> Work:
    """What was done for all of them, read once."""
    tally = _Tally(most_gaps=requests.tokens, shape=shape)
    for piece in requests.pieces():
        tally.add(piece)
    sizes = _batches(np.concatenate([np.empty((2, 0), np.int64), *tally.batches], axis=1))[1]
    latencies, counts = tally.latencies(), tally.counts
    return Work(
        requests=counts["requests"],
        failed_requests=counts["failed_requests"],
        input_tokens=counts["input_tokens"],
        output_tokens=counts["output_tokens"],
        token_times=counts["token_times"],
        flops=None if shape is None else counts["flops"],
        batches=len(sizes),
        mean_batch_size=ratio(float(sizes.sum()), len(sizes)),
        latencies=latencies,
        measured=LatencyMeasurements.of_columns(
            latencies,
            output_tokens=counts["finished_tokens"],
            warmup_requests_excluded=requests.warmup_requests,
        ),
    )
