"""Energy of requests that ran at the same time: each span of time is divided among those in flight, by what each got in it.

A request's weight in a span is the tokens that it brought there, and, until its first token, its prompt's tokens, spread evenly over that time. Where requests
are in flight and none gets anything, they share alike, by how long each was there. What is used while none is in flight is idle. No sensor tells requests
apart, so this is called attributed; its sum is the energy of the whole, by construction.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Weights(NamedTuple):
    """How much rows get in spans: one entry for each row and span that has anything."""

    rows: Ints
    spans: Ints
    amounts: Floats

    def where(self, mask: NDArray[np.bool_]) -> Self:
        return type(self)(self.rows[mask], self.spans[mask], self.amounts[mask])

    def joined(self, others: Self) -> Self:
        return type(self)(*(np.concatenate(pair) for pair in zip(self, others, strict=True)))


class Shares(NamedTuple):
    """Joules of each request, and those of nobody."""

    energy_j: Floats
    idle_j: float


def tokens_in_spans(edges_sec: Floats, rows: Ints, at_sec: Floats, tokens: Floats) -> Weights:
    """Tokens that came at moments, in the spans between the edges; what came outside of them is left out."""
    spans = np.searchsorted(edges_sec, at_sec, side="right") - 1
    # what comes at the very end belongs to the last span
    spans[at_sec == edges_sec[-1]] = len(edges_sec) - 2
    inside = (spans >= 0) & (spans < len(edges_sec) - 1)
    return Weights(rows[inside], spans[inside], tokens[inside])


def spread_over_spans(
    edges_sec: Floats, rows: Ints, start_sec: Floats, end_sec: Floats, amounts: Floats
) -> Weights:
    """Amounts that are spread evenly from a start to an end, as far as this lies between the edges; without a length, all at the start."""
    first = np.clip(np.searchsorted(edges_sec, start_sec, side="right") - 1, 0, len(edges_sec) - 2)
    last = np.clip(np.searchsorted(edges_sec, end_sec, side="left") - 1, first, len(edges_sec) - 2)
    counts = last - first + 1
    until = np.cumsum(counts)
    spans = np.arange(counts.sum()) - np.repeat(until - counts - first, counts)
    # All but the first and the last span of each lie within it.
    parts = np.diff(edges_sec)[spans]
    for places, ends in ((until - counts, first), (until - 1, last)):
        from_sec, to_sec = np.maximum(edges_sec[ends], start_sec), np.minimum(edges_sec[ends + 1], end_sec)
        parts[places] = np.maximum(to_sec - from_sec, 0.0)
    at_once = end_sec <= start_sec
    inside = (start_sec >= edges_sec[0]) & (start_sec <= edges_sec[-1])
    parts[until[at_once] - 1] = inside[at_once]
    parts /= np.repeat(np.where(at_once, 1.0, end_sec - start_sec), counts)
    return Weights(np.repeat(rows, counts), spans, np.repeat(amounts, counts) * parts)


def evenly_in_spans(edges_sec: Floats, start_sec: Floats, end_sec: Floats, amounts: Floats) -> Floats:
    """What `spread_over_spans` comes to in each span, from how fast it goes on there: without an entry for each of many short spans."""
    end_sec = np.maximum(start_sec, end_sec)
    some = (end_sec >= edges_sec[0]) & (start_sec <= edges_sec[-1])
    start_sec, end_sec, amounts = start_sec[some], end_sec[some], amounts[some]
    count = len(edges_sec) - 1
    first = np.clip(np.searchsorted(edges_sec, start_sec, side="right") - 1, 0, count - 1)
    last = np.clip(np.searchsorted(edges_sec, end_sec, side="left") - 1, first, count - 1)
    lengths_sec, goes_on = end_sec - start_sec, last > first
    rates = amounts / np.where(lengths_sec > 0, lengths_sec, 1.0)
    in_first_sec = np.minimum(end_sec, edges_sec[first + 1]) - np.maximum(start_sec, edges_sec[first])
    in_first = np.bincount(first, rates * np.where(lengths_sec > 0, in_first_sec, 1.0), count)
    # Only what fills whole spans is added up over them: short ones would leave their rounding behind.
    rates = np.where(goes_on, rates, 0.0)
    in_last = np.bincount(last, rates * (np.minimum(end_sec, edges_sec[last + 1]) - edges_sec[last]), count)
    between = np.cumsum(np.bincount(first + 1, rates, count + 1) - np.bincount(last, rates, count + 1))
    found: Floats = in_first + in_last + between[:-1] * np.diff(edges_sec)
    return found


def divide(energy_j: Floats, *, work: Weights, presence: Weights, requests: int) -> Shares:
    """The energy of each span among `requests` by their work in it, by their presence where nobody did any."""
    worked = np.bincount(work.spans, work.amounts, len(energy_j))
    entries = work.joined(presence.where(worked[presence.spans] <= 0))
    together = np.bincount(entries.spans, entries.amounts, len(energy_j))
    some = together[entries.spans] > 0
    parts = entries.amounts[some] / together[entries.spans[some]]
    shares_j = np.asarray(
        np.bincount(entries.rows[some], parts * energy_j[entries.spans[some]], requests), np.float64
    )
    return Shares(shares_j, float(energy_j[together <= 0].sum()))
