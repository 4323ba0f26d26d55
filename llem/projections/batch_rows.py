"""Rows of batches: tokens, times, and the energy of prefill and decoding where samples can tell them apart."""

from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np

from llem.projections.derive.experiment import Derived
from llem.projections.derive.history import Span
from llem.projections.derive.process import Measured
from llem.projections.tables import Rows
from llem.results.phases import BatchEnergy, Trace, batch_energies
from llem.units import NS_PER_S, seconds

_BATCHES = (
    "SELECT batch_index, count(*) AS requests, sum(input_tokens)::BIGINT AS input_tokens, "
    "sum(output_tokens)::BIGINT AS output_tokens, min(start_ns) AS start_ns, "
    "max(first_token_ns) AS first_token_ns, max(end_ns) AS end_ns FROM requests "
    "WHERE experiment_id = ? AND segment_id = ? AND window_kind = 'measurement' AND start_ns BETWEEN ? AND ? "
    "GROUP BY batch_index ORDER BY batch_index"
)


def batches(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    """One row per batch of every process's measurement windows."""
    return [
        row
        for measured in derived.measured
        for number, span in enumerate(measured.spans)
        for row in _within(connection, measured, number, span)
    ]


def _within(
    connection: duckdb.DuckDBPyConnection, measured: Measured, number: int, span: Span
) -> Iterator[dict[str, Any]]:
    segment = measured.process.segment
    asked = connection.execute(_BATCHES, [segment.experiment_id, segment.segment_id, *span])
    names = [column[0] for column in asked.description or ()]
    batches = [dict(zip(names, row, strict=True)) for row in asked.fetchall()]
    named = {"experiment_id": segment.experiment_id, "process_index": measured.process.process_index}
    for batch, energy in zip(batches, _energies(measured, number, span, batches), strict=True):
        yield named | batch | _columns(energy)


def _energies(
    measured: Measured, number: int, span: Span, batches: Sequence[dict[str, Any]]
) -> list[BatchEnergy]:
    """Energy of batches on the clock of the span, in seconds from its start."""

    def moments(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array(
            [np.nan if batch[name] is None else (batch[name] - span[0]) / NS_PER_S for batch in batches]
        )

    return batch_energies(
        _traces(measured, number),
        starts_sec=moments("start_ns"),
        first_tokens_sec=moments("first_token_ns"),
        ends_sec=moments("end_ns"),
    )


def _traces(measured: Measured, number: int) -> list[Trace]:
    return [
        spanned[number].trace(
            counter_tick_sec=None if metered.counter_tick_ns is None else seconds(metered.counter_tick_ns),
            power_window_sec=seconds(metered.power_window_ns or 0),
            made_up=metered.energy_source if metered.energy_source in ("estimated", "simulated") else None,
        )
        for metered, spanned in zip(measured.process.devices, measured.samples, strict=True)
    ]


def _columns(energy: BatchEnergy) -> dict[str, Any]:
    return {
        "energy_j": energy.whole.energy_j,
        "prefill_energy_j": energy.prefill.energy_j,
        "decode_energy_j": energy.decode.energy_j,
        "energy_source": energy.whole.source,
        "prefill_source": energy.prefill.source,
        "decode_source": energy.decode.source,
        "resolution_sec": energy.whole.resolution_sec,
        "reason": energy.whole.reason,
        "prefill_reason": energy.prefill.reason,
        "decode_reason": energy.decode.reason,
    }
