"""Samples into their table: batches of columns streamed into one INSERT, which scales them to the table's units."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import duckdb

from llem.projections.arrow_stream import ArrowStream
from llem.units import MJ_PER_J, MW_PER_W
from llem_events import SAMPLE_COLUMNS
from llem_events.replay import SampleBatch

# Column of the table -> its expression over the log's columns.
MEASURED = {
    "at_ns": "at_ns",
    "power_w": f"power_mw / {MW_PER_W}::DOUBLE",
    "power_average_w": f"power_average_mw / {MW_PER_W}::DOUBLE",
    "energy_j": f"energy_mj / {MJ_PER_J}::DOUBLE",
    "temperature_c": "temperature_c",
    "gpu_utilisation_pct": "gpu_utilisation_pct",
    "memory_utilisation_pct": "memory_utilisation_pct",
    "memory_used_bytes": "memory_used_bytes",
    "sm_clock_mhz": "sm_clock_mhz",
    "memory_clock_mhz": "memory_clock_mhz",
    "throttle_reasons": "throttle_reasons",
    "power_limit_w": f"power_limit_mw / {MW_PER_W}::DOUBLE",
}
_KEYS = (
    {"process_index": "$process_index::INTEGER"}
    | {name: f"${name}" for name in ("experiment_id", "segment_id")}
    | {name: name for name in ("device_uuid", "meter")}
)
_SELECTED = ", ".join(f"{expression} AS {name}" for name, expression in (_KEYS | MEASURED).items())
_VIEW = "samples_of_the_log"
_STATEMENT_BATCHES = 24
# Blocks already written would fill the memory, and nobody reads them; with less than 320 MB one thread waits for the other.
_EMPTIED_CACHE, _WORKING_CACHE = "16MB", "512MB"


class Identity(NamedTuple):
    """The segment that the samples stand in."""

    experiment_id: str
    process_index: int | None
    segment_id: str


def append_samples(
    connection: duckdb.DuckDBPyConnection, batches: Iterable[SampleBatch], *, identity: Identity
) -> int:
    """Insert all samples of the batches, in order, and return their number. Raises what `batches` raises.

    DuckDB's threads pull a batch while others are being inserted, so whatever yields them must not use the connection.
    """
    try:
        return sum(_insert_all(connection, iter(batches), identity))
    finally:
        _limit_cache(connection, None)


def _insert_all(
    connection: duckdb.DuckDBPyConnection, batches: Iterator[SampleBatch], identity: Identity
) -> Iterator[int]:
    for first in batches:
        _limit_cache(connection, _EMPTIED_CACHE)
        _limit_cache(connection, _WORKING_CACHE)
        yield _insert(connection, chain([first], islice(batches, _STATEMENT_BATCHES - 1)), identity)


def _limit_cache(connection: duckdb.DuckDBPyConnection, limit: str | None) -> None:
    """Bound what DuckDB holds in memory; what stands in the file already goes at once."""
    with connection.cursor() as settings:  # a failed transaction takes no statement any more
        settings.execute(f"SET memory_limit = '{limit}'" if limit else "RESET memory_limit")


def _insert(connection: duckdb.DuckDBPyConnection, batches: Iterable[SampleBatch], identity: Identity) -> int:
    pulled = ((batch.columns, (batch.device_uuid, batch.meter)) for batch in batches)
    with ArrowStream(SAMPLE_COLUMNS, pulled, texts=("device_uuid", "meter")) as stream:
        connection.register(_VIEW, stream)
        try:
            inserted = connection.execute(
                f"INSERT INTO samples BY NAME SELECT {_SELECTED} FROM {_VIEW}", identity._asdict()
            ).fetchall()
        except duckdb.Error:
            if stream.failure is not None:
                raise stream.failure from None
            raise
    connection.unregister(_VIEW)
    return int(inserted[0][0])
