"""Samples and requests of the log as columns of cells, made of whole events: no row of Python objects stands between."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llem.projections import cells
from llem.projections.arrow_stream import Cells, measured, repeated
from llem.projections.cells import Batch
from llem.projections.derive.held import HeldSamples
from llem.projections.derive.source import Device
from llem.units import SAMPLE_UNITS
from llem_events import SAMPLE_COLUMNS
from llem_events.columns import Column
from llem_events.events import Request
from llem_events.replay import SampleBatch

# Column of the table -> its expression over the log's columns.
MEASURED = {"at_ns": "at_ns"} | {
    name: column if units is None else f"{column} / {units}::DOUBLE"
    for name, (column, units) in SAMPLE_UNITS.items()
}
_TIMES = (attrgetter("token_times_ns"), attrgetter("chunk_times_ns"))


class Identity(NamedTuple):
    """The segment that samples and requests stand in."""

    experiment_id: str
    process_index: int | None
    segment_id: str


class Reported(NamedTuple):
    """Requests of one event."""

    identity: Identity
    event_number: int
    window_kind: str
    requests: Sequence[Request]

    @property
    def times(self) -> int:
        """Of their tokens and chunks."""
        return sum(sum(map(len, map(field, self.requests))) for field in _TIMES)


_SAMPLE = {name: name for name in (*Identity._fields, "device_uuid", "meter")} | MEASURED
_REPORTED = (*Identity._fields, "event_number", "window_kind")


def request_batch(reported: Sequence[Reported], types: Mapping[str, str]) -> Batch:
    """The requests of some events, in order, for a table of these types. Raises KeyError for a field that no column has."""
    counts = [len(event.requests) for event in reported]
    requests = [request for event in reported for request in event.requests]
    fields = {name: list(map(attrgetter(name), requests)) for name in Request.__struct_fields__}
    batch = cells.of_columns(fields, {name: types[name] for name in fields})
    keys = {
        **key_cells([event.identity for event in reported], counts),
        "event_number": measured(_repeated([event.event_number for event in reported], counts)),
        "window_kind": repeated([event.window_kind for event in reported], counts),
    }
    return Batch({**keys, **batch.cells}, {**{name: name for name in _REPORTED}, **batch.selected})


def split(reported: Sequence[Reported], most: int) -> tuple[list[Reported], list[Reported]]:
    """The first `most` requests, and those after them."""
    first, rest = [], []
    for event in reported:
        own = event.requests[:most]
        if own:
            first.append(event._replace(requests=own))
        if len(own) < len(event.requests):
            rest.append(event._replace(requests=event.requests[len(own) :]))
        most -= len(own)
    return first, rest


def sample_batch(batches: Sequence[tuple[Identity, SampleBatch]]) -> Batch:
    """The samples of several batches, one after the other."""
    counts = [batch.samples for _, batch in batches]
    columns = {
        **key_cells([identity for identity, _ in batches], counts),
        "device_uuid": repeated([batch.device_uuid for _, batch in batches], counts),
        "meter": repeated([batch.meter for _, batch in batches], counts),
        **{name: measured(joined([batch.columns[name] for _, batch in batches])) for name in SAMPLE_COLUMNS},
    }
    return Batch(columns, _SAMPLE)


def held_samples(identity: Identity, batch: SampleBatch) -> HeldSamples:
    """The samples of one batch, as those of the table are read."""
    columns = {
        name: _as_doubles(batch.columns[column], units) for name, (column, units) in SAMPLE_UNITS.items()
    }
    device = Device(identity.process_index, batch.device_uuid)
    return HeldSamples(device, identity.segment_id, batch.columns["at_ns"].values, columns)


def _as_doubles(column: Column, units: int | None) -> NDArray[np.float64]:
    values = column.values.astype(np.float64) if units is None else column.values / float(units)
    return values if column.missing is None else np.where(column.missing, np.nan, values)


def key_cells(identities: Sequence[Identity], counts: Sequence[int]) -> dict[str, Cells]:
    """Each segment's for so many rows."""
    return {
        "process_index": measured(_repeated([identity.process_index for identity in identities], counts)),
        "experiment_id": repeated([identity.experiment_id for identity in identities], counts),
        "segment_id": repeated([identity.segment_id for identity in identities], counts),
    }


def _repeated(numbers: Sequence[int | None], counts: Sequence[int]) -> Column:
    """Each number so many times."""
    values = np.repeat([number or 0 for number in numbers], counts)
    return Column(values, np.repeat([number is None for number in numbers], counts))


def joined(columns: Sequence[Column]) -> Column:
    """One column after the other."""
    values = np.concatenate([column.values for column in columns])
    if all(column.missing is None for column in columns):
        return Column(values)
    missing = [
        np.zeros(len(column.values), bool) if column.missing is None else column.missing for column in columns
    ]
    return Column(values, np.concatenate(missing))
