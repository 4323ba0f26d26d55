"""Experiments out of their tables, several at once: small ones are read whole, of large ones it is known where their rows stand."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import duckdb
import numpy as np

from llem.projections.derive.held import Held, HeldRequests, HeldSamples
from llem.projections.derive.history import ExperimentFacts, load_histories
from llem.projections.derive.source import POSSIBLE, Device, Source
from llem.projections.derive.stored import Places, Stored, rows_among, rows_of, totals_of
from llem.projections.sample_pieces import SMALL_ROWS, is_small, weight_of
from llem_events.events import Request

ROWS_AT_ONCE = 2 * SMALL_ROWS
_KEY = {
    "experiment_id": "VARCHAR",
    "segment_id": "VARCHAR",
    "process_index": "INTEGER",
    "device_uuid": "VARCHAR",
}
_KEYS = ", ".join(f"unnest(?::{kind}[]) AS {name}" for name, kind in _KEY.items())
_SAME = " AND ".join(f"found.{name} IS NOT DISTINCT FROM keys.{name}" for name in _KEY)
_COLUMNS = ", ".join(f"{name}::DOUBLE AS {name}" for name in POSSIBLE)
_REPORTED = ("experiment_id", "segment_id", "event_number", "window_kind")
# Texts are long, and no figure comes from them.
_FIELDS = tuple(name for name in Request.__struct_fields__ if name not in ("prompt", "output"))


def read_experiments(
    connection: duckdb.DuckDBPyConnection,
    experiment_ids: Sequence[str],
    places: Mapping[str, Places] | None = None,
) -> Iterator[tuple[ExperimentFacts, Source]]:
    """What the log says of experiments, whose rows stand there; the source of a large one is good until anything is deleted."""
    if places is None:
        places = rows_of(connection, experiment_ids)
    histories = load_histories(connection, experiment_ids, rows_among("events", places, experiment_ids))
    small = {each: facts for each, facts in histories.items() if is_small(_weight(facts))}
    for some in _packed(small):
        for experiment_id, source in _hold(connection, some, places).items():
            yield histories[experiment_id], source
    large = [experiment_id for experiment_id in histories if experiment_id not in small]
    for experiment_id, totals in totals_of(connection, large, places).items():
        yield histories[experiment_id], Stored(connection, experiment_id, places, totals)


def _weight(facts: ExperimentFacts) -> float:
    """About how many rows take as much memory as all of the experiment."""
    return sum(
        weight_of(segment.role, samples=segment.samples, applied_bytes=segment.applied_bytes)
        for segment in facts.segments
    )


def _packed(histories: Mapping[str, ExperimentFacts]) -> Iterator[list[str]]:
    """As many as are read at once."""
    pack: list[str] = []
    rows = 0.0
    for experiment_id, facts in histories.items():
        pack.append(experiment_id)
        rows += _weight(facts)
        if rows >= ROWS_AT_ONCE:
            yield pack
            pack, rows = [], 0.0
    if pack:
        yield pack


def _hold(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str], places: Mapping[str, Places]
) -> dict[str, Held]:
    """All rows of some experiments."""
    samples, requests, events = (
        rows_among(table, places, experiment_ids) for table in ("samples", "requests", "events")
    )
    held_samples = _hold_samples(connection, experiment_ids, samples)
    held_requests = _hold_requests(connection, experiment_ids, requests)
    moments = connection.execute(
        f"SELECT experiment_id, [min(at_ns), max(at_ns)] {events} GROUP BY ALL", [experiment_ids]
    )
    events_ns = dict(moments.fetchall())
    return {
        each: Held(events_ns.get(each, []), held_samples.get(each, []), held_requests.get(each, {}))
        for each in experiment_ids
    }


def _hold_samples(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str], rows: str
) -> dict[str, list[HeldSamples]]:
    """By experiment; those of one device in one segment in the order of the table.

    Whose a sample is comes as a number: four texts of each take longer than all the rest.
    """
    keys = connection.execute(
        f"SELECT {', '.join(_KEY)} {rows} GROUP BY ALL ORDER BY min(rowid)", [experiment_ids]
    ).fetchall()
    found = connection.execute(
        f"SELECT number, row, at_ns, {_COLUMNS} FROM (SELECT rowid AS row, * {rows}) AS found "
        f"JOIN (SELECT {_KEYS}, unnest(range({len(keys)})) AS number) AS keys ON {_SAME}",
        [experiment_ids, *([key[place] for key in keys] for place in range(len(_KEY)))],
    ).fetchnumpy()
    order = np.lexsort((found["row"], found["number"]))
    ends = np.cumsum(np.bincount(found["number"], minlength=len(keys)))
    samples: dict[str, list[HeldSamples]] = {}
    for (experiment_id, segment_id, *device), stand in zip(keys, np.split(order, ends[:-1]), strict=False):
        columns = {name: np.ma.filled(found[name][stand], np.nan) for name in POSSIBLE}
        at_ns = np.asarray(found["at_ns"][stand], np.int64)
        held = HeldSamples(Device(*device), segment_id, at_ns, columns)
        samples.setdefault(experiment_id, []).append(held)
    return samples


def _hold_requests(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str], rows: str
) -> dict[str, dict[str, HeldRequests]]:
    """By experiment and segment, event by event in the order of the table."""
    found = connection.execute(f"SELECT {', '.join((*_REPORTED, *_FIELDS))} {rows}", [experiment_ids])
    events: dict[str, dict[str, list[tuple[int, str, Sequence[Request]]]]] = {}
    for (experiment_id, segment_id, *event), reported in groupby(
        found.fetchall(), key=lambda row: row[: len(_REPORTED)]
    ):
        requests = [_request(row[len(_REPORTED) :]) for row in reported]
        events.setdefault(experiment_id, {}).setdefault(segment_id, []).append((*event, requests))
    return {
        experiment_id: {segment_id: HeldRequests(each) for segment_id, each in segments.items()}
        for experiment_id, segments in events.items()
    }


def _request(values: Sequence[Any]) -> Request:
    """A list that is NULL is one that nobody wrote."""
    fields = dict(zip(_FIELDS, values, strict=True))
    return Request(**{name: value for name, value in fields.items() if value is not None})
