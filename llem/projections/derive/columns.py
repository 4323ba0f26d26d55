"""Requests of one segment as columns: numbers with a value for each, and lists of times one after the other; and groups of rows."""

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from llem.results.latency import FINISHED, SERIES
from llem_events.events import Request

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
FAILED = "error"
# Numbers that every request has, and those that may be missing: where any is, these are masked arrays, which take several times as long.
GIVEN = ("batch_index", "batch_size", "arrival_ns", "start_ns", "end_ns", "input_tokens", "output_tokens")
# Numbers that follow from the lists of a request.
FOLLOWING = ("last_token_ns", "first_chunk_tokens")
MAYBE = tuple(
    sorted(
        {"first_token_ns", "tokens_computed", "cached_input_tokens"}.union(
            *(each.of_columns for each in SERIES)
        )
        - {*GIVEN, *FOLLOWING}
    )
)
NO_INTS: Ints = np.empty(0, np.int64)
LISTS = ("token_times_ns", "chunk_times_ns", "chunk_tokens")


class Lists(NamedTuple):
    """A list of integers for each row; `missing` marks those that are NULL, None where none is."""

    values: Ints
    lengths: Ints
    missing: Mask | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[int | None]]) -> Self:
        """The lists of some rows."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = list(chain.from_iterable(rows))
        if None not in flat:
            return cls(np.array(flat, np.int64), lengths)
        filled = np.array([value or 0 for value in flat], np.int64)
        return cls(filled, lengths, np.array([value is None for value in flat]))

    @property
    def ends(self) -> Ints:
        """Place after the last value of each row."""
        ends: Ints = np.cumsum(self.lengths)
        return ends

    @property
    def ascending(self) -> Mask:
        """For each row, whether none of its values is lower than the one before."""
        ascending = np.ones(len(self.lengths), np.bool_)
        falls = np.flatnonzero(self.values[1:] < self.values[:-1])
        if len(falls):
            ends = self.ends
            rows = np.searchsorted(ends, falls, side="right")
            ascending[rows[falls + 1 < ends[rows]]] = False
        return ascending

    @property
    def edges(self) -> tuple[Mask, Ints, Ints]:
        """Which rows have any values, and the first and the last of each of these."""
        filled = self.lengths > 0
        ends = self.ends[filled]
        return filled, self.values[ends - self.lengths[filled]], self.values[ends - 1]

    def each(self, reduce: np.ufunc, values: NDArray[Any], *, empty: int) -> Ints:
        """What stands beside the values, reduced to one number for each row."""
        found = np.full(len(self.lengths), empty, np.int64)
        filled = self.lengths > 0
        if len(values):
            found[filled] = reduce.reduceat(values, (self.ends - self.lengths)[filled])
        return found

    def rows(self, first: int, end: int) -> Self:
        """The lists of the rows from one to before another."""
        start, stop = int(self.lengths[:first].sum()), int(self.lengths[:end].sum())
        missing = None if self.missing is None else self.missing[start:stop]
        return type(self)(self.values[start:stop], self.lengths[first:end], missing)


class RequestColumns(msgspec.Struct, frozen=True, kw_only=True):
    """Some requests, in the order of the log."""

    numbers: Mapping[str, Any]  # GIVEN and MAYBE
    failed: Mask
    finished: Mask
    names_error: Mask
    names_reason: Mask  # for having no times
    token_times_ns: Lists
    chunk_times_ns: Lists
    chunk_tokens: Lists

    @classmethod
    def of(cls, requests: Sequence[Request]) -> Self:
        """Those of the log."""
        reasons = [request.finish_reason for request in requests]
        return cls(
            numbers={name: np.array(list(map(attrgetter(name), requests)), np.int64) for name in GIVEN}
            | {name: _numbers(list(map(attrgetter(name), requests))) for name in MAYBE},
            failed=np.array([reason == FAILED for reason in reasons], np.bool_),
            finished=np.array([reason in FINISHED for reason in reasons], np.bool_),
            names_error=np.array([request.error is not None for request in requests], np.bool_),
            names_reason=np.array([request.times_reason is not None for request in requests], np.bool_),
            **{name: Lists.of(list(map(attrgetter(name), requests))) for name in LISTS},
        )

    def __len__(self) -> int:
        return len(self.failed)

    def number(self, name: str) -> Any:
        """A number of each request, one that follows too."""
        return getattr(self, name) if name in FOLLOWING else self.numbers[name]

    @property
    def last_token_ns(self) -> Any:
        """When the last token came, of itself or in a chunk."""
        last_ns, missing = np.zeros(len(self), np.int64), np.ones(len(self), np.bool_)
        for times_ns in (self.token_times_ns, self.chunk_times_ns):
            filled, _, latest_ns = times_ns.edges
            last_ns[filled] = latest_ns
            missing &= ~filled
        return masked(last_ns, missing)

    @property
    def first_chunk_tokens(self) -> Any:
        """How many tokens came at first: one where each has a time of its own."""
        alone = self.token_times_ns.lengths > 0
        first = alone.astype(np.int64)
        filled, tokens, _ = self.chunk_tokens.edges
        first[filled] = tokens
        missing = ~alone & ~filled
        if self.chunk_tokens.missing is not None:
            starts = (self.chunk_tokens.ends - self.chunk_tokens.lengths)[filled]
            missing[filled] = self.chunk_tokens.missing[starts]
        return masked(first, missing)

    @property
    def arrivals(self) -> tuple[Lists, NDArray[np.float64]]:
        """When each request's tokens came, one by one or in chunks, and how many at each of these moments."""
        alone, chunks = self.token_times_ns, self.chunk_times_ns
        ones = np.ones(len(alone.values))
        if not len(chunks.values):
            return alone, ones
        rows = np.arange(len(self))
        order = np.argsort(
            np.concatenate([np.repeat(rows, times.lengths) for times in (alone, chunks)]), kind="stable"
        )
        times_ns = np.concatenate([alone.values, chunks.values])[order]
        tokens = np.concatenate([ones, self._tokens_of_chunks()])[order]
        return Lists(times_ns, alone.lengths + chunks.lengths), tokens

    def _tokens_of_chunks(self) -> NDArray[np.float64]:
        """Where nobody counted them, an equal part of the request's."""
        counted, lengths = self.chunk_tokens, self.chunk_times_ns.lengths
        equal: NDArray[np.float64] = np.repeat(
            self.numbers["output_tokens"] / np.maximum(lengths, 1), lengths
        )
        if not np.array_equal(counted.lengths, lengths):
            return equal
        if counted.missing is None:
            return counted.values.astype(np.float64)
        return np.where(counted.missing, equal, counted.values)

    def rows(self, first: int, end: int) -> Self:
        """The requests from one to before another."""
        if (first, end) == (0, len(self)):
            return self
        masks = ("failed", "finished", "names_error", "names_reason")
        return type(self)(
            numbers={name: values[first:end] for name, values in self.numbers.items()},
            **{name: getattr(self, name)[first:end] for name in masks},
            **{name: getattr(self, name).rows(first, end) for name in LISTS},
        )


def masked(values: NDArray[Any], missing: Mask) -> Any:
    """The values without a mask where none is missing."""
    return np.ma.MaskedArray(values, missing) if missing.any() else values


def _numbers(values: Sequence[int | None]) -> Any:
    if None not in values:
        return np.array(values, np.int64)
    missing = np.array([value is None for value in values])
    return masked(np.array([value or 0 for value in values], np.int64), missing)


class Groups:
    """Rows that have the same number, in columns that are added up, or of which the least or the largest is kept; they come in pieces."""

    def __init__(self, ways: Mapping[str, np.ufunc]) -> None:
        self._ways = ways
        self._parts: list[tuple[Ints, Mapping[str, Ints]]] = []

    def add(self, numbers: Ints, columns: Mapping[str, Ints]) -> None:
        """Some more rows."""
        if len(numbers):
            self._parts.append(self._grouped(numbers, columns))

    def found(self) -> tuple[Ints, Mapping[str, Ints]]:
        """Each number once, ascending, and the columns of its rows."""
        if len(self._parts) != 1:
            parts = [(NO_INTS, dict.fromkeys(self._ways, NO_INTS)), *self._parts]
            numbers = np.concatenate([part for part, _ in parts])
            columns = {name: np.concatenate([part[name] for _, part in parts]) for name in self._ways}
            self._parts = [self._grouped(numbers, columns)]
        return self._parts[0]

    def _grouped(self, numbers: Ints, columns: Mapping[str, Ints]) -> tuple[Ints, Mapping[str, Ints]]:
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers, kind="stable")
            numbers, columns = numbers[order], {name: values[order] for name, values in columns.items()}
        if not len(numbers):
            return numbers, columns
        starts = np.append(0, np.flatnonzero(np.diff(numbers)) + 1)
        return numbers[starts], {
            name: way.reduceat(columns[name], starts) for name, way in self._ways.items()
        }
