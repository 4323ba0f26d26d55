"""Requests of one process in some spans: tokens, latencies and FLOPs, from columns that are read in pieces."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np

from llem.projections.derive.columns import Groups, Ints, Lists, Mask, RequestColumns
from llem.projections.derive.history import ProcessFacts
from llem.projections.derive.request_laws import RequestCounts, RequestLaws, within
from llem.projections.derive.source import Source, Span, Usage
from llem.projections.derive.spans import measurement_spans, portions, with_drains
from llem.results import LatencyMeasurements
from llem.results.flops import ModelShape, decode_flops, prefill_flops
from llem.results.latency import OF_REQUEST, LatencyValues
from llem.results.nullable import ratio
from llem.results.percentiles import FloatArray, Spool
from llem.units import NS_PER_MS

PIECE_VALUES = 2**18  # requests and times of tokens that are read at once
_BATCH = {
    "requests": np.add,
    "input_tokens": np.add,
    "output_tokens": np.add,
    "start_ns": np.minimum,
    "first_token_ns": np.maximum,
    "end_ns": np.maximum,
}
_OF_SERIES = {column for columns, _ in OF_REQUEST.values() for column in columns}
_INNER, _OUTER, _CHUNKS = "inner gaps", "outer gaps", "gaps between chunks"
NEVER = np.iinfo(np.int64).min  # in the place of a first token that did not come


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Some requests, and the spans that count."""

    columns: RequestColumns
    spans: Sequence[Span]
    answered: Sequence[Span]  # the same, with the drains in which the last of their requests were answered

    def __getitem__(self, name: str) -> Any:
        """A number of each request."""
        return self.columns.number(name)

    @property
    def times(self) -> Ints:
        """How many times of tokens each request has."""
        return self.columns.token_times_ns.lengths

    @property
    def touched(self) -> Mask:
        """Those that ran at all within a span."""
        return self._any(lambda start, end: (self["arrival_ns"] <= end) & (self["end_ns"] >= start))

    @property
    def whole(self) -> Mask:
        """Those whose arrival and end lie in one span."""
        return within(self.columns, self.spans)

    @property
    def finished(self) -> Mask:
        """Those that were due in a span and ran to their end in it, or in the drain after it."""
        return self.touched & within(self.columns, self.answered) & self.columns.finished

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
    """A prompt's tokens count where its first output token came, an output token where it came itself, or its chunk.

    A failed request has done no work; one without any times has done it when it ended.
    """
    worked = piece.touched & ~piece.columns.failed
    times, brought = piece.columns.arrivals
    at_once = piece.whole | (times.lengths == 0)
    counted = worked & at_once & piece.inside(piece["end_ns"])
    found = Tokens(
        prompt=np.where(counted, piece["input_tokens"], 0),
        answer=np.where(counted, piece["output_tokens"], 0),
        first=np.zeros(len(counted), np.int64),
    )
    ends = times.ends
    for row in np.flatnonzero(worked & ~at_once):
        of_row = slice(ends[row] - times.lengths[row], ends[row])
        places = np.flatnonzero(piece.inside(times.values[of_row]))
        if len(places):
            # whole tokens, also where a chunk's are an equal part
            until = np.rint(np.cumsum(brought[of_row])).astype(np.int64)
            each = np.diff(until, prepend=0)
            found.answer[row] = each[places].sum()
            found.first[row] = until[places[0]] - each[places[0]]
            found.prompt[row] = 0 if places[0] else piece["input_tokens"][row]
    return found


def piece_flops(shape: ModelShape, piece: Piece, tokens: Tokens) -> int:
    """FLOPs of the tokens counted: requests of equal counts take equal work."""
    alike = Counter(
        zip(*(column.tolist() for column in (piece["input_tokens"], *_columns(tokens))), strict=True)
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


def token_gaps_ms(lists: Lists, finished: Mask) -> tuple[FloatArray, FloatArray]:
    """Every interval between two tokens of one request, of the finished ones: inner ones, and each request's first and last."""
    streams = finished & (lists.lengths > 1)
    within = np.repeat(streams, lists.lengths)
    within[lists.ends[streams] - 1] = False
    edge = np.zeros(len(lists.values), np.bool_)
    edge[(lists.ends - lists.lengths)[streams]] = edge[lists.ends[streams] - 2] = True
    every_ms = np.diff(lists.values) / NS_PER_MS
    return every_ms[(within & ~edge)[:-1]], every_ms[(within & edge)[:-1]]


def gaps_ms(lists: Lists, rows: Mask) -> FloatArray:
    """Every interval between two times of one row, of some rows."""
    within = np.repeat(rows, lists.lengths)
    within[lists.ends[lists.lengths > 0] - 1] = False
    gaps: FloatArray = np.diff(lists.values)[within[:-1]] / NS_PER_MS
    return gaps


class Batches(msgspec.Struct, frozen=True, kw_only=True):
    """Batches that began within one span, by index."""

    indices: Ints
    columns: Mapping[str, Ints]  # requests, tokens and moments; NEVER for a first token that did not come


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a process did for its requests within the spans."""

    requests: int
    failed_requests: int
    input_tokens: int
    output_tokens: int
    arrivals: int  # known moments at which tokens came, of all requests that ran at all within a span
    flops: int | None  # None where the model is unknown
    batches: Sequence[Batches]  # of each span
    batch_count: int
    mean_batch_size: float | None
    latencies: LatencyValues  # of the requests that ran to their end within a span
    measured: LatencyMeasurements  # what these say
    counts: RequestCounts  # of all requests of its measurement


class Requests:
    """The requests of a worker's measurement, read in pieces; a single piece is kept."""

    def __init__(self, source: Source, process: ProcessFacts, spans: Sequence[Span]) -> None:
        self._source, self.spans = source, spans
        self.windows = with_drains(source, process, measurement_spans(source, process))
        self._answered = with_drains(source, process, spans)
        self._segment_id = process.requests_segment_id or ""
        sizes = source.request_sizes(self._segment_id)
        self.warmup_requests = sizes.warmup_requests
        self._ranges = list(portions(sizes.event_numbers, sizes.values, most=PIECE_VALUES))
        self._kept: Piece | None = None

    def pieces(self) -> Iterator[Piece]:
        """All of them, some at a time."""
        if self._kept is not None:
            yield self._kept
            return
        for first, last in self._ranges:
            columns = self._source.requests(self._segment_id, first, last)
            piece = Piece(columns=columns, spans=self.spans, answered=self._answered)
            if len(self._ranges) == 1:
                self._kept = piece
            yield piece

    def answered_after(self, at_ns: int) -> int:
        """How many of them ended later."""
        return sum(int(np.count_nonzero(piece["end_ns"] > at_ns)) for piece in self.pieces())

    def ids(self) -> Ints:
        """Of all of them, in the order of the pieces."""
        return self._source.request_ids(self._segment_id)

    def usage(self) -> Usage:
        """What a server says of their tokens."""
        return self._source.usage(self._segment_id)

    def arrivals(self) -> Iterator[tuple[Ints, FloatArray]]:
        """When tokens came of the requests that ran at all within a span, and how many at each of these moments."""
        for piece in self.pieces():
            times, tokens = piece.columns.arrivals
            touched = np.repeat(piece.touched, times.lengths)
            yield times.values[touched], tokens[touched]


def count_requests(source: Source, process: ProcessFacts) -> RequestCounts:
    """Those of a worker whose figures nobody asked for."""
    requests = Requests(source, process, ())
    laws = RequestLaws(requests.windows)
    for piece in requests.pieces():
        laws.add(piece.columns)
    return laws.counts()


class _Tally:
    """Sums over the pieces of a process's requests."""

    def __init__(self, requests: Requests, shape: ModelShape | None) -> None:
        self.shape = shape
        self.counts: Counter[str] = Counter()
        self.latencies_ms = Spool()
        self.laws = RequestLaws(requests.windows)
        self._of_spans = [(span, Groups(_BATCH)) for span in requests.spans]
        self.batches: list[Ints] = []  # index and size

    def add(self, piece: Piece) -> None:
        touched, finished = piece.touched, piece.finished
        tokens = tokens_within(piece)
        self.counts.update(
            requests=int(touched.sum()),
            finished=int(finished.sum()),
            failed_requests=int((touched & piece.columns.failed).sum()),
            input_tokens=_sum(tokens.prompt),
            output_tokens=_sum(tokens.answer),
            finished_tokens=_sum(piece["output_tokens"][finished]),
            arrivals=int((piece.times + piece.columns.chunk_times_ns.lengths)[touched].sum()),
            flops=0 if self.shape is None else piece_flops(self.shape, piece, tokens),
        )
        for name, values_ms in _latencies_ms(piece, finished):
            self.latencies_ms.add(name, values_ms)
        self.laws.add(piece.columns)
        self.batches.append(_batches(np.stack([piece["batch_index"][touched], piece["batch_size"][touched]])))

        for span, groups in self._of_spans:
            _add_batches(groups, piece, span)

    def of_spans(self) -> list[Batches]:
        """The batches of each span."""
        found = (groups.found() for _, groups in self._of_spans)
        return [Batches(indices=indices, columns=columns) for indices, columns in found]

    def latencies(self) -> LatencyValues:
        spool = self.latencies_ms
        return LatencyValues(
            requests=self.counts["finished"],
            outer_gaps=spool.count(_OUTER),
            of_request_ms={name: partial(spool.pieces, name) for name in OF_REQUEST},
            inner_gaps_ms=partial(spool.pieces, _INNER),
            outer_gaps_ms=partial(spool.pieces, _OUTER),
            chunk_gaps_ms=partial(spool.pieces, _CHUNKS),
            e2e_of_processes_ms=[partial(spool.pieces, "e2e")],
        )


def _latencies_ms(piece: Piece, finished: Mask) -> Iterator[tuple[str, FloatArray]]:
    """Values of every series by its name, and gaps."""
    inner_ms, outer_ms = token_gaps_ms(piece.columns.token_times_ns, finished)
    yield from ((_INNER, inner_ms), (_OUTER, outer_ms))
    yield _CHUNKS, gaps_ms(piece.columns.chunk_times_ns, finished)
    numbers = {column: piece[column][finished] for column in _OF_SERIES}
    for name, (columns, of_request) in OF_REQUEST.items():
        values_ns = of_request(*(numbers[column] for column in columns))
        yield name, np.ma.compressed(values_ns) / NS_PER_MS


def _add_batches(groups: Groups, piece: Piece, span: Span) -> None:
    begun = (piece["start_ns"] >= span[0]) & (piece["start_ns"] <= span[1])
    columns = {name: piece[name][begun] for name in _BATCH if name != "requests"}
    first_ns = np.ma.filled(columns["first_token_ns"], NEVER)
    ones = np.ones(len(first_ns), np.int64)
    groups.add(piece["batch_index"][begun], columns | {"requests": ones, "first_token_ns": first_ns})


def _batches(index_and_size: Ints) -> Ints:
    """Each index once, with the size that its last request gives."""
    indices, places = np.unique(index_and_size[0, ::-1], return_index=True)
    return np.stack([indices, index_and_size[1, ::-1][places]])


def _sum(counts: Ints) -> int:
    """As Python's integers, which do not overflow."""
    return sum(counts.tolist())


def work_of(requests: Requests, *, shape: ModelShape | None) -> Work:
    """What was done for all of them, read once."""
    tally = _Tally(requests, shape)
    for piece in requests.pieces():
        tally.add(piece)
    sizes = _batches(np.concatenate([np.empty((2, 0), np.int64), *tally.batches], axis=1))[1]
    latencies, counts = tally.latencies(), tally.counts
    return Work(
        requests=counts["requests"],
        failed_requests=counts["failed_requests"],
        input_tokens=counts["input_tokens"],
        output_tokens=counts["output_tokens"],
        arrivals=counts["arrivals"],
        flops=None if shape is None else counts["flops"],
        batches=tally.of_spans(),
        batch_count=len(sizes),
        mean_batch_size=ratio(float(sizes.sum()), len(sizes)),
        latencies=latencies,
        measured=LatencyMeasurements.of_values(
            latencies,
            output_tokens=counts["finished_tokens"],
            warmup_requests_excluded=requests.warmup_requests,
        ),
        counts=tally.laws.counts(),
    )
