"""Latencies of requests: raw values per process, statistics only over the values of all of them together."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from llem.results.batch_means import batch_means
from llem.results.nullable import ratio
from llem.results.percentiles import FloatArray, Pieces, interval_ranks, least_count, percentiles, ranked
from llem.units import NS_PER_MS
from llem_events.events import Request

MeasurementMode = Literal["true_streaming", "per_request_batch", "proportional"]
FINISHED = ("length", "eos", "finished")


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of latency that results hold statistics of; a new one is an entry here, and its fields of LatencyStatistics.

    `shown` is its name on the screen. `of_request` gives each request's value in nanoseconds from `of_columns` of the table `requests`, as
    numpy's arrays, masked where a request has none; the gaps between tokens are many to a request and have none. `raw` is the field
    of LatencyMeasurements with the values where these are kept.
    """

    name: str
    meaning: str
    shown: str | None = None
    of_columns: tuple[str, ...] = ()
    of_request: Callable[..., NDArray[Any]] | None = None
    raw: str | None = None


SERIES = (
    Series(
        name="ttft",
        meaning="the time to first token",
        shown="time to first token",
        of_columns=("arrival_ns", "first_token_ns"),
        of_request=lambda arrival_ns, first_token_ns: first_token_ns - arrival_ns,
        raw="ttft_ms",
    ),
    Series(
        name="ttft_sent",
        meaning="the time from a request's first byte sent to its first token, which leaves out that it waited to be sent",
        shown="time to first token, sent",
        of_columns=("start_ns", "first_token_ns"),
        of_request=lambda start_ns, first_token_ns: first_token_ns - start_ns,
    ),
    Series(
        name="itl",
        meaning="the time between two tokens of a request, every gap",
        shown="inter-token latency",
        raw="itl_full_ms",
    ),
    Series(
        name="itl_trimmed",
        meaning="the time between two tokens, first and last gap of each request left out, as LLenergyMeasure has it",
        raw="itl_trimmed_ms",
    ),
    Series(
        name="inter_chunk",
        meaning="the time between two pieces of an answer, however many tokens each brought",
        shown="time between chunks",
        raw="itl_full_ms",
    ),
    Series(
        name="tpot_vllm",
        meaning="a request's time per output token after the first, as vLLM has it: (last - first token) / (tokens - 1)",
        of_columns=("first_token_ns", "last_token_ns", "output_tokens"),
        of_request=lambda first_ns, last_ns, tokens: (last_ns - first_ns) / np.ma.masked_less(tokens - 1, 1),
    ),
    Series(
        name="tpot_guidellm",
        meaning="a request's time per output token with the first, as guidellm has it: (last token - first byte sent) / tokens",
        of_columns=("start_ns", "last_token_ns", "output_tokens"),
        of_request=lambda start_ns, last_ns, tokens: (last_ns - start_ns) / np.ma.masked_less(tokens, 1),
    ),
    Series(
        name="itl_aiperf",
        meaning="a request's mean time between tokens, as aiperf means it: (last - first token) / (tokens - those of the first chunk)",
        of_columns=("first_token_ns", "last_token_ns", "output_tokens", "first_chunk_tokens"),
        of_request=lambda first_ns, last_ns, tokens, first: (
            (last_ns - first_ns) / np.ma.masked_less(tokens - first, 1)
        ),
    ),
    Series(
        name="e2e_sent",
        meaning="the time of a request from its first byte sent to its end",
        of_columns=("start_ns", "end_ns"),
        of_request=lambda start_ns, end_ns: end_ns - start_ns,
    ),
    Series(
        name="e2e",
        meaning="the time of a request from arrival to end",
        shown="end to end",
        of_columns=("arrival_ns", "end_ns"),
        of_request=lambda arrival_ns, end_ns: end_ns - arrival_ns,
        raw="e2e_ms",
    ),
)
OF_REQUEST = {
    series.name: (series.of_columns, series.of_request) for series in SERIES if series.of_request is not None
}
STATISTICS = {"mean": "mean", "median": "median", "p95": "95th percentile", "p99": "99th percentile"}
# Percentiles that have an interval, of series with a value for each request: gaps between tokens of one request are not independent.
INTERVALS = {"p95": 0.95, "p99": 0.99}
WITH_INTERVALS = ("ttft", "e2e")


class LatencyStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics in milliseconds over the values of all processes; None where there is no value.

    Percentiles interpolate linearly between the two nearest values, as numpy does by default. `itl` is every
    gap between two tokens of a request, `itl_trimmed` LLenergyMeasure's: each request's first and last gap left out.
    Between `low` and `high` the true percentile lies with 95 %, were requests independent; None for too few of them.
    """

    ttft_mean_ms: float | None = None
    ttft_median_ms: float | None = None
    ttft_p95_ms: float | None = None
    ttft_p99_ms: float | None = None
    ttft_min_ms: float | None = None
    ttft_max_ms: float | None = None
    ttft_samples: int = 0
    ttft_sent_mean_ms: float | None = None
    ttft_sent_median_ms: float | None = None
    ttft_sent_p95_ms: float | None = None
    ttft_sent_p99_ms: float | None = None
    ttft_sent_min_ms: float | None = None
    ttft_sent_max_ms: float | None = None
    ttft_sent_samples: int = 0
    itl_mean_ms: float | None = None
    itl_median_ms: float | None = None
    itl_p95_ms: float | None = None
    itl_p99_ms: float | None = None
    itl_min_ms: float | None = None
    itl_max_ms: float | None = None
    itl_samples: int = 0
    itl_trimmed_mean_ms: float | None = None
    itl_trimmed_median_ms: float | None = None
    itl_trimmed_p95_ms: float | None = None
    itl_trimmed_p99_ms: float | None = None
    itl_trimmed_min_ms: float | None = None
    itl_trimmed_max_ms: float | None = None
    itl_trimmed_samples: int = 0
    inter_chunk_mean_ms: float | None = None
    inter_chunk_median_ms: float | None = None
    inter_chunk_p95_ms: float | None = None
    inter_chunk_p99_ms: float | None = None
    inter_chunk_min_ms: float | None = None
    inter_chunk_max_ms: float | None = None
    inter_chunk_samples: int = 0
    tpot_vllm_mean_ms: float | None = None
    tpot_vllm_median_ms: float | None = None
    tpot_vllm_p95_ms: float | None = None
    tpot_vllm_p99_ms: float | None = None
    tpot_vllm_min_ms: float | None = None
    tpot_vllm_max_ms: float | None = None
    tpot_vllm_samples: int = 0
    tpot_guidellm_mean_ms: float | None = None
    tpot_guidellm_median_ms: float | None = None
    tpot_guidellm_p95_ms: float | None = None
    tpot_guidellm_p99_ms: float | None = None
    tpot_guidellm_min_ms: float | None = None
    tpot_guidellm_max_ms: float | None = None
    tpot_guidellm_samples: int = 0
    itl_aiperf_mean_ms: float | None = None
    itl_aiperf_median_ms: float | None = None
    itl_aiperf_p95_ms: float | None = None
    itl_aiperf_p99_ms: float | None = None
    itl_aiperf_min_ms: float | None = None
    itl_aiperf_max_ms: float | None = None
    itl_aiperf_samples: int = 0
    e2e_sent_mean_ms: float | None = None
    e2e_sent_median_ms: float | None = None
    e2e_sent_p95_ms: float | None = None
    e2e_sent_p99_ms: float | None = None
    e2e_sent_min_ms: float | None = None
    e2e_sent_max_ms: float | None = None
    e2e_sent_samples: int = 0
    e2e_mean_ms: float | None = None
    e2e_median_ms: float | None = None
    e2e_p95_ms: float | None = None
    e2e_p99_ms: float | None = None
    e2e_min_ms: float | None = None
    e2e_max_ms: float | None = None
    e2e_samples: int = 0
    ttft_p95_low_ms: float | None = None
    ttft_p95_high_ms: float | None = None
    ttft_p99_low_ms: float | None = None
    ttft_p99_high_ms: float | None = None
    e2e_p95_low_ms: float | None = None
    e2e_p95_high_ms: float | None = None
    e2e_p99_low_ms: float | None = None
    e2e_p99_high_ms: float | None = None
    batch_means_cv: float | None = None  # of the times from arrival to end, see llem.results.batch_means
    batch_means_lag1: float | None = None

    @property
    def interval_reason(self) -> str | None:
        """Why percentiles have no interval; None where all have one."""
        found = min(self.ttft_samples or self.e2e_samples, self.e2e_samples)
        lacking = {name: least for name, share in INTERVALS.items() if found < (least := least_count(share))}
        needs = ", ".join(f"{name} needs {least}" for name, least in lacking.items())
        return f"{needs} requests, found {found}" if lacking else None


class LatencyValues(msgspec.Struct, frozen=True, kw_only=True):
    """The same values in pieces, which may be more than fit into memory."""

    requests: int  # that ran to their end
    outer_gaps: int
    of_request_ms: Mapping[str, Pieces]  # series -> a value for each request that has one
    # between tokens: without each request's first and last, and these
    inner_gaps_ms: Pieces
    outer_gaps_ms: Pieces
    # between pieces that were not one token each
    chunk_gaps_ms: Pieces
    # from arrival to end, of each process in its order
    e2e_of_processes_ms: Sequence[Pieces]

    def statistics(self) -> LatencyStatistics:
        """Over all of these values."""
        gaps_ms = _chained([self.inner_gaps_ms, self.outer_gaps_ms])
        figures: dict[str, Any] = _statistics("itl_trimmed", self.inner_gaps_ms)
        figures |= _statistics("itl", gaps_ms)
        for name, values_ms in self.of_request_ms.items():
            figures |= _statistics(name, values_ms)
        if _count(self.chunk_gaps_ms):
            figures |= _statistics("inter_chunk", _chained([gaps_ms, self.chunk_gaps_ms]))
        else:
            figures |= _as_between_tokens(figures)
        return LatencyStatistics(**figures, **_of_batch_means(self.e2e_of_processes_ms))


def _as_between_tokens(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Where every piece was a token, what is between chunks is what is between tokens."""
    return {
        f"inter_chunk_{name.removeprefix('itl_')}": value
        for name, value in figures.items()
        if name.startswith("itl_") and not name.startswith(("itl_trimmed_", "itl_aiperf_"))
    }


def joined(parts: Sequence[LatencyValues]) -> LatencyValues:
    """The values of several processes together."""
    return LatencyValues(
        requests=sum(part.requests for part in parts),
        outer_gaps=sum(part.outer_gaps for part in parts),
        of_request_ms={name: _chained([part.of_request_ms[name] for part in parts]) for name in OF_REQUEST},
        inner_gaps_ms=_chained([part.inner_gaps_ms for part in parts]),
        outer_gaps_ms=_chained([part.outer_gaps_ms for part in parts]),
        chunk_gaps_ms=_chained([part.chunk_gaps_ms for part in parts]),
        e2e_of_processes_ms=[values_ms for part in parts for values_ms in part.e2e_of_processes_ms],
    )


def _chained(parts: Sequence[Pieces]) -> Pieces:
    return lambda: chain.from_iterable(pieces() for pieces in parts)


class LatencyMeasurements(msgspec.Struct, frozen=True, kw_only=True):
    """Raw values in milliseconds of every finished request; a request's time counts from its arrival.

    Of a run in a store the values stay in the table `requests`, and `statistics` are what they say.
    """

    ttft_ms: list[float] = []  # arrival to first token, one per request
    itl_full_ms: list[float] = []  # every interval between two tokens of a request
    itl_trimmed_ms: list[float] = []  # the same without each request's first and last interval
    e2e_ms: list[float] = []  # arrival to end, one per request
    request_count: int = 0
    total_output_tokens: int = 0
    excluded_tokens: int = 0  # intervals in full that are not in trimmed
    streaming_mode: bool = True
    warmup_requests_excluded: int = 0
    measurement_mode: MeasurementMode = "true_streaming"
    statistics: LatencyStatistics | None = None  # None: to be made of the values above

    @property
    def ttft_mean_ms(self) -> float | None:
        """Mean time to the first token."""
        return self.statistics.ttft_mean_ms if self.statistics else _mean(self.ttft_ms)

    @property
    def e2e_mean_ms(self) -> float | None:
        """Mean time of a request."""
        return self.statistics.e2e_mean_ms if self.statistics else _mean(self.e2e_ms)

    @classmethod
    def of_values(cls, values: LatencyValues, *, output_tokens: int, warmup_requests_excluded: int) -> Self:
        """Counts and statistics of values that are kept elsewhere."""
        return cls(
            request_count=values.requests,
            total_output_tokens=output_tokens,
            excluded_tokens=values.outer_gaps,
            warmup_requests_excluded=warmup_requests_excluded,
            statistics=values.statistics(),
        )

    @classmethod
    def from_requests(cls, requests: Sequence[Request], *, warmup_requests_excluded: int = 0) -> Self:
        """Latencies of the requests that ran to their end; failed and stopped ones have none."""
        finished = [request for request in requests if request.finish_reason in FINISHED]
        return cls.from_columns(
            arrival_ns=[request.arrival_ns for request in finished],
            first_token_ns=[request.first_token_ns for request in finished],
            end_ns=[request.end_ns for request in finished],
            token_times_ns=[request.token_times_ns for request in finished],
            output_tokens=sum(request.output_tokens for request in finished),
            warmup_requests_excluded=warmup_requests_excluded,
        )

    @classmethod
    def from_columns(
        cls,
        *,
        arrival_ns: Sequence[int],
        first_token_ns: Sequence[int | None],
        end_ns: Sequence[int],
        token_times_ns: Sequence[Sequence[int]],
        output_tokens: int,
        warmup_requests_excluded: int = 0,
    ) -> Self:
        """Latencies of finished requests, given as columns of equal length."""
        full, trimmed = inter_token_latencies(token_times_ns)
        first_tokens = zip(first_token_ns, arrival_ns, strict=True)
        ends = zip(end_ns, arrival_ns, strict=True)
        return cls(
            ttft_ms=[(first - arrival) / NS_PER_MS for first, arrival in first_tokens if first is not None],
            itl_full_ms=full,
            itl_trimmed_ms=trimmed,
            e2e_ms=[(end - arrival) / NS_PER_MS for end, arrival in ends],
            request_count=len(end_ns),
            total_output_tokens=output_tokens,
            excluded_tokens=len(full) - len(trimmed),
            warmup_requests_excluded=warmup_requests_excluded,
        )


def inter_token_latencies(token_times_ns: Sequence[Sequence[int]]) -> tuple[list[float], list[float]]:
    """Intervals between tokens in milliseconds, per request: all, and all but each request's first and last."""
    streams = [times for times in token_times_ns if len(times) > 1]
    if not streams:
        return [], []
    lengths = np.array([len(times) for times in streams])
    flat = np.fromiter(chain.from_iterable(streams), dtype=np.int64, count=int(lengths.sum()))
    ends = np.cumsum(lengths)
    intervals = np.diff(flat) / NS_PER_MS
    within = np.ones(len(intervals), dtype=np.bool_)
    within[ends[:-1] - 1] = False
    inner = within.copy()
    inner[ends - lengths] = False
    inner[ends - 2] = False
    return intervals[within].tolist(), intervals[inner].tolist()


def latency_statistics(measurements: Sequence[LatencyMeasurements]) -> LatencyStatistics | None:
    """Statistics over the values of all processes together; None where no process has any.

    Where some have only statistics of their own, those over all have means and extremes, and no percentiles.
    """
    if not measurements:
        return None
    own = [measured.statistics for measured in measurements if measured.statistics is not None]
    if own:
        rest = [measured for measured in measurements if measured.statistics is None]
        return _of_statistics([*own, *filter(None, [latency_statistics(rest)])])
    figures: dict[str, Any] = {}
    for series in SERIES:
        if series.raw is not None:
            values_ms = concatenated([getattr(measured, series.raw) for measured in measurements])
            figures |= _statistics(series.name, partial(iter, (values_ms,)))
    streams = [partial(iter, (np.array(measured.e2e_ms),)) for measured in measurements]
    return LatencyStatistics(**figures, **_of_batch_means(streams))


def _of_statistics(parts: Sequence[LatencyStatistics]) -> LatencyStatistics:
    if len(parts) == 1:
        return parts[0]
    return LatencyStatistics(
        **{name: value for series in SERIES for name, value in _joint(series.name, parts)}
    )


def _joint(series: str, parts: Sequence[LatencyStatistics]) -> Iterator[tuple[str, Any]]:
    def known(name: str) -> list[Any]:
        return [getattr(part, name) for part in parts if getattr(part, name) is not None]

    counts = [getattr(part, f"{series}_samples") for part in parts]
    means = [getattr(part, f"{series}_mean_ms") for part in parts]
    summed_ms = math.fsum(mean * count for mean, count in zip(means, counts, strict=True) if count)
    yield f"{series}_mean_ms", ratio(summed_ms, sum(counts))
    yield f"{series}_min_ms", min(known(f"{series}_min_ms"), default=None)
    yield f"{series}_max_ms", max(known(f"{series}_max_ms"), default=None)
    yield f"{series}_samples", sum(counts)


def _mean(values_ms: Sequence[float]) -> float | None:
    return ratio(math.fsum(values_ms), len(values_ms))


def concatenated(parts: Sequence[Sequence[float]]) -> FloatArray:
    """All values in one array."""
    return np.fromiter(chain.from_iterable(parts), dtype=np.float64, count=sum(map(len, parts)))


def _statistics(name: str, pieces: Pieces) -> dict[str, float | int]:
    count = _count(pieces)
    if not count:
        return {}
    # A piece at a time: a list of all would be four times the array.
    mean = math.fsum(chain.from_iterable(piece.tolist() for piece in pieces())) / count
    median, p95, p99 = percentiles(pieces, (50, 95, 99))
    return {
        f"{name}_mean_ms": mean,
        f"{name}_median_ms": median,
        f"{name}_p95_ms": p95,
        f"{name}_p99_ms": p99,
        f"{name}_min_ms": min(float(piece.min()) for piece in pieces() if len(piece)),
        f"{name}_max_ms": max(float(piece.max()) for piece in pieces() if len(piece)),
        f"{name}_samples": count,
        **(_intervals(name, pieces, count) if name in WITH_INTERVALS else {}),
    }


def _intervals(name: str, pieces: Pieces, count: int) -> dict[str, float]:
    """Between which values the percentiles lie, where there are enough."""
    ranks = {statistic: interval_ranks(count, share) for statistic, share in INTERVALS.items()}
    places = {
        f"{name}_{statistic}_{end}_ms": rank
        for statistic, both in ranks.items()
        for end, rank in zip(("low", "high"), both or (), strict=False)
    }
    wanted = sorted(set(places.values()))
    found = dict(zip(wanted, ranked(pieces, np.array(wanted)).tolist(), strict=True)) if places else {}
    return {figure: found[rank] for figure, rank in places.items()}


def _of_batch_means(streams: Sequence[Pieces]) -> dict[str, Any]:
    means = batch_means(streams)
    return {"batch_means_cv": means.cv, "batch_means_lag1": means.lag1}


def _count(pieces: Pieces) -> int:
    return sum(map(len, pieces()))
