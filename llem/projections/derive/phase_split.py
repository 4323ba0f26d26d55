"""Energy of a process over equal spans of time beside the tokens that were computed in each, from which the cost of both phases is estimated."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llem.projections.derive.columns import RequestColumns
from llem.projections.derive.energy import trace
from llem.projections.derive.history import ProcessFacts
from llem.projections.derive.requests import Requests, Work
from llem.projections.derive.samples import DeviceSamples, DeviceTrace
from llem.projections.derive.source import Span
from llem.results.nullable import total
from llem.results.phase_split import MIN_SPANS, PhaseSplit, split_phases
from llem.results.phases import MIN_PERIODS, energies_j, resolution_sec
from llem.results.time_share import Floats, evenly_in_spans
from llem.units import MS_PER_S, NS_PER_S, seconds

MAX_SPANS = 1_000
SERVED_SPAN_SEC = 1.0  # a server computes prompts some time between their first byte and their first token
SPAN_PERIODS = MIN_PERIODS + 2  # of the finest resolution: each edge is put to a sample
# Of the finest resolution: cells into which tokens are put, and how far the readings of energy may lag behind them.
CELLS, MAX_LAG, LAGS = 4, 2.0, 9
# Of a long run; finer ones tell nothing of spans that are so much longer.
MAX_CELLS = CELLS * SPAN_PERIODS * MAX_SPANS
LONG_PERIODS = 100  # a span of so many has edges that matter to a hundredth of its energy


def phase_split(
    process: ProcessFacts,
    requests: Requests,
    work: Work,
    spans: Sequence[Span],
    samples: Sequence[Sequence[DeviceSamples]],
) -> PhaseSplit | None:
    """None of a wrapped program, which has no phases."""
    if process.wraps_program:
        return None
    if len(spans) != 1:
        return PhaseSplit(reason="it was measured in several pieces")
    powers = process.idle_powers("server_idle") or process.idle_powers("before")
    idle_power_w = total(power.mean_power_w for power in powers)
    if idle_power_w is None:
        return PhaseSplit(reason="no idle power was measured")
    traces = [trace(metered, spanned[0]) for metered, spanned in zip(process.devices, samples, strict=True)]
    finest_sec = _resolution_sec(traces)
    if finest_sec is None:
        return PhaseSplit(reason="neither an energy counter nor power was read")
    duration_sec = seconds(spans[0][1] - spans[0][0])
    span_sec = _span_sec(process, work, finest_sec, duration_sec)
    count = int(duration_sec / span_sec)
    if count < MIN_SPANS:
        text = f"{duration_sec:.1f} s are fewer than {MIN_SPANS} spans of the {span_sec:.3g} s that can be resolved"
        return PhaseSplit(reason=text)
    cells_sec = np.linspace(0.0, duration_sec, min(MAX_CELLS, round(duration_sec / finest_sec * CELLS)) + 1)
    computed = np.zeros((2, len(cells_sec) - 1))
    for piece in requests.pieces():
        if (untimed := _untimed(piece.columns)) > 0:
            return PhaseSplit(reason=f"the times of tokens of {untimed} requests are not known")
        computed += _computed(piece.columns, cells_sec, spans[0][0])
    edges_sec = np.linspace(0.0, duration_sec, count + 1)
    if span_sec < LONG_PERIODS * finest_sec:
        edges_sec = _at_samples(traces[0], edges_sec)
    else:
        edges_sec = _in_order(traces[0].samples.at_ends_of_pieces(edges_sec, within_sec=span_sec), edges_sec)
    until = np.concatenate([np.zeros((2, 1)), np.cumsum(computed, axis=1)], axis=1)
    lags_sec = np.linspace(0.0, MAX_LAG, LAGS) * finest_sec
    return split_phases(
        energy_j=_energy_j(traces, edges_sec),
        span_sec=np.diff(edges_sec),
        tokens=np.stack([_within(cells_sec, until, edges_sec - lag_sec) for lag_sec in lags_sec]),
        idle_power_w=idle_power_w,
    )


def _resolution_sec(traces: Sequence[DeviceTrace]) -> float | None:
    """How well all devices see an edge; None where any was not read, or there is none."""
    known_sec = [known for known in map(resolution_sec, traces) if known is not None]
    return max(known_sec) if known_sec and len(known_sec) == len(traces) else None


def _span_sec(process: ProcessFacts, work: Work, finest_sec: float, duration_sec: float) -> float:
    """The shortest that all devices resolve, and in which a server has computed what came in it."""
    shortest_sec = max(SPAN_PERIODS * finest_sec, duration_sec / MAX_SPANS)
    if process.server is None:
        return shortest_sec
    statistics = work.measured.statistics
    waited_ms = statistics.ttft_sent_median_ms if statistics else None
    return max(shortest_sec, SERVED_SPAN_SEC, 2 * (waited_ms or 0.0) / MS_PER_S)


def _at_samples(device: DeviceTrace, moments_sec: Floats) -> Floats:
    """Each moment but the ends put to the next sample, so that no energy between two of them has to be guessed."""
    edges_sec = moments_sec.copy()
    for at_sec, *_ in device.pieces(moments_sec):
        places = np.searchsorted(at_sec, moments_sec)
        inside = (places > 0) & (places < len(at_sec))
        edges_sec[inside] = at_sec[places[inside]]
    return _in_order(edges_sec, moments_sec)


def _in_order(edges_sec: Floats, moments_sec: Floats) -> Floats:
    """Each of the moved edges once, up to the last of the moments."""
    inside = edges_sec < moments_sec[-1]
    return np.concatenate([np.unique(edges_sec[inside]), moments_sec[-1:]])


def _within(cells_sec: Floats, until: Floats, edges_sec: Floats) -> Floats:
    """What of the amounts up to each edge of the cells lies in each span between the edges: [span, phase]."""
    return np.stack([np.diff(np.interp(edges_sec, cells_sec, phase)) for phase in until], axis=1)


def _energy_j(traces: Sequence[DeviceTrace], edges_sec: Floats) -> Floats:
    """Of each span, all devices together; NaN where one is not known."""
    energy_j = np.zeros(len(edges_sec) - 1)
    for device in traces:
        energy_j += energies_j(device, starts_sec=edges_sec[:-1], ends_sec=edges_sec[1:])
    return energy_j


def _untimed(columns: RequestColumns) -> int:
    """Requests that ended well with tokens of which no time is known."""
    times, _ = columns.arrivals
    return int(
        np.count_nonzero(~columns.failed & (times.lengths == 0) & (columns.numbers["output_tokens"] > 0))
    )


def _computed(columns: RequestColumns, edges_sec: Floats, opened_ns: int) -> Floats:
    """Tokens of prompts that were in no cache, evenly until the first output token; others evenly from one moment to the next."""
    times, brought = columns.arrivals
    filled, first_ns, _ = times.edges
    well = filled & ~columns.failed
    cached = np.ma.filled(columns.numbers["cached_input_tokens"], 0)
    prompts = evenly_in_spans(
        edges_sec,
        _sec(columns.numbers["start_ns"][well], opened_ns),
        _sec(first_ns[well[filled]], opened_ns),
        (columns.numbers["input_tokens"] - cached)[well].astype(np.float64),
    )
    starts = (times.ends - times.lengths)[filled]
    before_ns = np.concatenate([times.values[:1], times.values[:-1]])
    before_ns[starts] = columns.numbers["start_ns"][filled]
    tokens = brought.copy()
    tokens[starts] -= 1  # comes from the prompt's pass
    counted = np.repeat(~columns.failed, times.lengths) & (tokens > 0)
    outputs = evenly_in_spans(
        edges_sec,
        _sec(before_ns[counted], opened_ns),
        _sec(times.values[counted], opened_ns),
        tokens[counted],
    )
    return np.stack([prompts, outputs])


def _sec(at_ns: Any, opened_ns: int) -> Floats:
    return np.asarray((at_ns - opened_ns) / NS_PER_S, np.float64)
