"""Samples into the table: the columns of many events joined, scaled to the units of the table, registered once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import msgspec
import numpy as np

from llem.units import MJ_PER_J, MW_PER_W
from llem_events import columns
from llem_events.events import SamplesTaken

# Table column -> (log column, divisor).
_COLUMNS = {
    "at_ns": ("at_ns", 1),
    "power_w": ("power_mw", MW_PER_W),
    "power_average_w": ("power_average_mw", MW_PER_W),
    "energy_j": ("energy_mj", MJ_PER_J),
    "temperature_c": ("temperature_c", 1),
    "gpu_utilisation_pct": ("gpu_utilisation_pct", 1),
    "memory_utilisation_pct": ("memory_utilisation_pct", 1),
    "memory_used_bytes": ("memory_used_bytes", 1),
    "sm_clock_mhz": ("sm_clock_mhz", 1),
    "memory_clock_mhz": ("memory_clock_mhz", 1),
    "throttle_reasons": ("throttle_reasons", 1),
    "power_limit_w": ("power_limit_mw", MW_PER_W),
}


class SampleBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one device in one segment, in the order of the log."""

    experiment_id: str
    process_index: int | None
    segment_id: str
    device_uuid: str
    meter: str
    events: Sequence[SamplesTaken]


def append_samples(connection: duckdb.DuckDBPyConnection, batches: Iterable[SampleBatch]) -> None:
    """Insert all samples of the batches."""
    for batch in batches:
        joined = _joined(batch.events)
        selected = ", ".join(f"{_expression(name)} AS {name}" for name in _COLUMNS)
        connection.register("sample_batch", joined)
        connection.execute(
            f"INSERT INTO samples BY NAME SELECT ? AS experiment_id, ? AS process_index, ? AS segment_id, "
            f"? AS device_uuid, ? AS meter, {selected} FROM sample_batch",
            [batch.experiment_id, batch.process_index, batch.segment_id, batch.device_uuid, batch.meter],
        )
        connection.unregister("sample_batch")


def _expression(table_column: str) -> str:
    column, divisor = _COLUMNS[table_column]
    scaled = column if divisor == 1 else f"{column} / {divisor}"
    return f"CASE WHEN {column}_missing THEN NULL ELSE {scaled} END"


def _joined(events: Sequence[SamplesTaken]) -> Mapping[str, Any]:
    """Every log column of all events, and beside it which of its values are missing."""
    unpacked = [(event.count, columns.unpack(event)) for event in events]
    joined: dict[str, Any] = {}
    for name, _ in _COLUMNS.values():
        values, missing = [], []
        for count, found in unpacked:
            values.append(found[name][0] if name in found else np.zeros(count, np.int64))
            mask = found[name][1] if name in found else np.ones(count, np.bool_)
            missing.append(np.zeros(count, np.bool_) if mask is None else mask)
        joined[name] = np.concatenate(values)
        joined[f"{name}_missing"] = np.concatenate(missing)
    return joined
