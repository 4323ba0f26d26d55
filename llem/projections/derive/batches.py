"""Batches of every process, and the energy of each, of its prefill and of its decoding."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llem.projections.derive.columns import Ints
from llem.projections.derive.energy import trace
from llem.projections.derive.experiment import Derived
from llem.projections.derive.process import Measured
from llem.projections.derive.requests import NEVER, Batches
from llem.projections.derive.samples import DeviceTrace
from llem.projections.derive.source import Span
from llem.results.phases import BatchEnergy, batch_energies
from llem.units import NS_PER_S

MAX_BATCHES = 2**14  # whose energies are worked out at once


def batch_rows(derived: Derived) -> Iterator[dict[str, Any]]:
    """One row per batch of every process's measurement windows: a long run has more than are held at once."""
    for measured in derived.measured:
        if measured.process.server is not None:
            continue  # it batches as it likes, and tells nobody
        for number, batches in enumerate(measured.work.batches):
            yield from _within(measured, number, batches)


def _within(measured: Measured, number: int, batches: Batches) -> Iterator[dict[str, Any]]:
    process = measured.process
    named = {"experiment_id": process.segment.experiment_id, "process_index": process.process_index}
    for start in range(0, len(batches.indices), MAX_BATCHES):
        columns = {"batch_index": batches.indices, **batches.columns}
        portion = {name: column[start : start + MAX_BATCHES] for name, column in columns.items()}
        energies = _energies(measured, number, measured.spans[number], portion)
        lists = {name: column.tolist() for name, column in portion.items()}
        lists["first_token_ns"] = [None if at_ns == NEVER else at_ns for at_ns in lists["first_token_ns"]]
        for row, energy in zip(zip(*lists.values(), strict=True), energies, strict=True):
            yield named | dict(zip(lists, row, strict=True)) | _columns(energy)


def _energies(measured: Measured, number: int, span: Span, batches: Mapping[str, Ints]) -> list[BatchEnergy]:
    """Energy of batches on the clock of the span, in seconds from its start."""

    def moments(name: str) -> NDArray[np.float64]:
        return np.where(batches[name] == NEVER, np.nan, (batches[name] - span[0]) / NS_PER_S)

    return batch_energies(
        _traces(measured, number),
        starts_sec=moments("start_ns"),
        first_tokens_sec=moments("first_token_ns"),
        ends_sec=moments("end_ns"),
    )


def _traces(measured: Measured, number: int) -> list[DeviceTrace]:
    return [
        trace(metered, spanned[number])
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
