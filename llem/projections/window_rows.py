"""Rows of windows: the energy of every device in every window."""

from typing import Any

import duckdb

from llem.projections.clocks import timestamp
from llem.projections.derive.energy import device_energy, read_counter
from llem.projections.derive.experiment import Derived
from llem.projections.derive.history import ProcessFacts, Span, Window
from llem.projections.derive.samples import load_samples
from llem.projections.spans import window_span
from llem.projections.tables import Rows
from llem.results.nullable import ratio
from llem.units import seconds
from llem_events.events import MeteredDevice


def windows(connection: duckdb.DuckDBPyConnection, derived: Derived) -> Rows:
    """One row per window and device, or per window where there is none."""
    rows: Rows = []
    for process in derived.facts.processes:
        for window in process.windows:
            span = window_span(connection, process, window)
            named = _named(derived, process, window, span)
            devices = [_energy(connection, process, metered, window, span) for metered in process.devices]
            rows += [named | device for device in devices] or [named]
    return rows


def _named(derived: Derived, process: ProcessFacts, window: Window, span: Span) -> dict[str, Any]:
    return {
        "experiment_id": derived.facts.experiment_id,
        "process_index": process.process_index,
        "kind": window.opened.kind,
        "window_index": window.opened.window_index,
        "opened_ns": span[0],
        "closed_ns": span[1],
        "closed": window.closed is not None,
        "start_time": timestamp(derived.clocks.wall_ns(process.segment, span[0])),
        "end_time": timestamp(derived.clocks.wall_ns(process.segment, span[1])),
        "duration_sec": seconds(span[1] - span[0]),
    }


def _energy(
    connection: duckdb.DuckDBPyConnection,
    process: ProcessFacts,
    metered: MeteredDevice,
    window: Window,
    span: Span,
) -> dict[str, Any]:
    uuid = metered.device.uuid
    samples = load_samples(connection, process, uuid, span)
    energy = device_energy(process, metered, [samples], [read_counter(window, uuid)])
    return {
        "device_uuid": uuid,
        "energy_j": energy.energy_j,
        "energy_source": energy.energy_source,
        "counter_energy_j": energy.counter_energy_j,
        "integrated_energy_j": energy.integrated_energy_j,
        "energy_disagreement": energy.disagreement,
        "energy_uncertainty_j": energy.uncertainty_j,
        "mean_power_w": ratio(energy.energy_j, samples.duration_sec),
        "samples": samples.count,
        "reason": energy.reason,
    }
