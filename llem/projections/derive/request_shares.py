"""The energy of a server's requests, which run at the same time: its devices' energy over time, divided by what each request got."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llem.projections.derive.columns import Ints, RequestColumns
from llem.projections.derive.requests import Requests
from llem.projections.derive.samples import DeviceSamples
from llem.projections.derive.source import Span
from llem.results import DeviceEnergy
from llem.results.energy import distinct
from llem.results.nullable import total
from llem.results.time_share import Floats, Weights, divide, spread_over_spans, tokens_in_spans
from llem.units import NS_PER_S, seconds

Bools = NDArray[np.bool_]

STEP_SEC = 0.1
MAX_STEPS = 50_000
IN_DRAIN_REASON = "it was answered in the drain: what it got there is no part of the measurement's energy"


class RequestShares(NamedTuple):
    """Joules of each request by its id and whether they are all that it used, and those while none was in flight."""

    ids: Ints
    energy_j: Floats
    are_whole: Bools
    idle_j: float


def request_shares(
    requests: Requests,
    spans: Sequence[Span],
    samples: Sequence[Sequence[DeviceSamples]],
    devices: Sequence[DeviceEnergy],
) -> RequestShares | None:
    """None where the energy is not known, or the measurement is in several pieces."""
    energy_j = total(device.energy_j for device in distinct(devices))
    if energy_j is None or len(spans) != 1:
        return None
    span = spans[0]
    steps = min(MAX_STEPS, max(1, round(seconds(span[1] - span[0]) / STEP_SEC)))
    edges_sec = np.linspace(0.0, seconds(span[1] - span[0]), steps + 1)
    work, presence, count = _none(), _none(), 0
    are_whole = [np.empty(0, np.bool_)]
    for piece in requests.pieces():
        rows = np.arange(count, count + len(piece.columns))
        count += len(rows)
        work = work.joined(_work(piece.columns, rows, edges_sec, span[0]))
        presence = presence.joined(_presence(piece.columns, rows, edges_sec, span[0]))
        are_whole.append(np.asarray(piece.columns.numbers["end_ns"] <= span[1]))
    shares = divide(_over_time(edges_sec, samples, energy_j), work=work, presence=presence, requests=count)
    return RequestShares(requests.ids(), shares.energy_j, np.concatenate(are_whole), shares.idle_j)


def _none() -> Weights:
    return Weights(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def _over_time(edges_sec: Floats, samples: Sequence[Sequence[DeviceSamples]], energy_j: float) -> Floats:
    """Joules of each step: as the power has it, of the sum that the energy is."""
    curves = [spanned[0].power_curve(edges_sec, shift_sec=0.0) for spanned in samples]
    steps_j = np.diff(np.sum(curves, axis=0)) if curves else None
    if steps_j is None or not np.isfinite(steps_j).all() or steps_j.sum() <= 0:
        steps_j = np.diff(edges_sec)
    return np.asarray(steps_j * (energy_j / steps_j.sum()))


def _work(columns: RequestColumns, rows: Ints, edges_sec: Floats, opened_ns: int) -> Weights:
    """Prompts while they were computed, and tokens when they came; a failed request got nothing."""
    well = ~columns.failed
    first_ns = columns.numbers["first_token_ns"]
    known = well & ~np.ma.getmaskarray(first_ns)
    prompts = spread_over_spans(
        edges_sec,
        rows[known],
        _sec(columns.numbers["start_ns"][known], opened_ns),
        _sec(np.ma.getdata(first_ns)[known], opened_ns),
        columns.numbers["input_tokens"][known].astype(np.float64),
    )
    times, tokens = columns.arrivals
    which = np.repeat(np.arange(len(rows)), times.lengths)
    counted = well[which]
    came = tokens_in_spans(
        edges_sec, rows[which][counted], _sec(times.values[counted], opened_ns), tokens[counted]
    )
    return prompts.joined(came)


def _presence(columns: RequestColumns, rows: Ints, edges_sec: Floats, opened_ns: int) -> Weights:
    """From the first byte sent to the end."""
    start_sec, end_sec = (_sec(columns.numbers[name], opened_ns) for name in ("start_ns", "end_ns"))
    return spread_over_spans(edges_sec, rows, start_sec, end_sec, end_sec - start_sec)


def _sec(at_ns: Any, opened_ns: int) -> Floats:
    return np.asarray((at_ns - opened_ns) / NS_PER_S, np.float64)
