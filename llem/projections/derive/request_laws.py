"""What must hold of the requests that a worker measured: counts that can be, times in order, batches of the size they say."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from llem.projections.derive.columns import Groups, Mask, RequestColumns
from llem.projections.derive.source import Span

_SIZES = {"requests": np.add, "least": np.minimum, "largest": np.maximum}


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """All requests of a worker's measurement, whenever they ran: what the log holds, and how many break a law."""

    requests: int
    failed_requests: int
    input_tokens: int
    output_tokens: int
    batches: int
    unequal_batches: int  # of another size than their requests say
    negative: int  # counts below what can be
    contradictory: int  # ended well, and name an error
    mistimed: int
    disordered: int
    outside: int  # of the measurement windows


class RequestLaws:
    """The counts of requests that come in pieces."""

    def __init__(self, windows: Sequence[Span]) -> None:
        self._windows = windows
        self._counts: Counter[str] = Counter()
        self._batches = Groups(_SIZES)

    def add(self, columns: RequestColumns) -> None:
        """Some more requests."""
        numbers = columns.numbers
        broken = {
            "failed_requests": columns.failed,
            "negative": negative(columns),
            "contradictory": columns.names_error & columns.finished,
            "mistimed": mistimed(columns),
            "disordered": disordered(columns),
            "outside": ~within(columns, self._windows),
        }
        self._counts.update({name: int(np.count_nonzero(mask)) for name, mask in broken.items()})
        # As Python's integers, which do not overflow.
        self._counts.update({name: sum(numbers[name].tolist()) for name in ("input_tokens", "output_tokens")})
        self._counts["requests"] += len(columns)
        size = numbers["batch_size"]
        self._batches.add(
            numbers["batch_index"], {"requests": np.ones_like(size), "least": size, "largest": size}
        )

    def counts(self) -> RequestCounts:
        """Of all of them."""
        indices, sizes = self._batches.found()
        unequal = (sizes["least"] != sizes["requests"]) | (sizes["largest"] != sizes["requests"])
        counted = {name: self._counts[name] for name in RequestCounts.__struct_fields__}
        return RequestCounts(
            **counted | {"batches": len(indices), "unequal_batches": int(np.count_nonzero(unequal))}
        )


def within(columns: RequestColumns, spans: Sequence[Span]) -> Mask:
    """Those whose arrival and end lie in one span."""
    found = np.zeros(len(columns), np.bool_)
    for start, end in spans:
        found |= (columns.numbers["arrival_ns"] >= start) & (columns.numbers["end_ns"] <= end)
    return found


def negative(columns: RequestColumns) -> Mask:
    """Those with a count below what can be."""
    numbers, counted = columns.numbers, columns.chunk_tokens
    tokens = counted.values if counted.missing is None else np.where(counted.missing, 0, counted.values)
    found: Mask = (
        (numbers["input_tokens"] < 0)
        | (numbers["output_tokens"] < 0)
        | (numbers["batch_size"] < 1)
        | (numbers["batch_index"] < 0)
        | np.ma.filled(numbers["tokens_computed"] < 0, False)
        | (counted.each(np.minimum, tokens, empty=0) < 0)
    )
    return found


def mistimed(columns: RequestColumns) -> Mask:
    """The rule of llem_events.request_events, for all requests at once; a test holds the two together."""
    times, moments, counted = columns.token_times_ns, columns.chunk_times_ns, columns.chunk_tokens
    output_tokens = columns.numbers["output_tokens"]
    in_tokens, in_chunks = times.lengths > 0, (moments.lengths > 0) | (counted.lengths > 0)
    several = in_tokens.astype(np.int8) + in_chunks + columns.names_reason > 1
    unknown = np.zeros(len(counted.values), np.bool_) if counted.missing is None else counted.missing
    summed = counted.each(np.add, counted.values, empty=0)
    all_known = counted.each(np.logical_or, unknown, empty=0) == 0
    wrong_chunks = (moments.lengths != counted.lengths) | (all_known & (summed != output_tokens))
    wrong_tokens = ~in_chunks & ~columns.names_reason & (times.lengths != output_tokens)
    found: Mask = several | (in_chunks & wrong_chunks) | wrong_tokens
    return found


def disordered(columns: RequestColumns) -> Mask:
    """Those with a time before one that it follows."""
    numbers, tokens, chunks = columns.numbers, columns.token_times_ns, columns.chunk_times_ns
    start_ns, end_ns, first_ns = numbers["start_ns"], numbers["end_ns"], numbers["first_token_ns"]
    found: Mask = (start_ns < numbers["arrival_ns"]) | (end_ns < start_ns)
    found |= np.ma.filled((first_ns < start_ns) | (first_ns > end_ns), False)
    found |= ~tokens.ascending | ~chunks.ascending
    filled, earliest_ns, latest_ns = tokens.edges
    found[filled] |= np.ma.filled(first_ns[filled] != earliest_ns, True) | (latest_ns > end_ns[filled])
    filled, earliest_ns, latest_ns = chunks.edges
    found[filled] |= (earliest_ns < start_ns[filled]) | (latest_ns > end_ns[filled])
    return found
