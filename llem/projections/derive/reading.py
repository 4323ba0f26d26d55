"""Experiments out of their tables, several at once: small ones are read whole, of large ones it is known where their rows stand."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import duckdb
import numpy as np

from llem.projections.derive.history import ExperimentFacts, load_histories
from llem.projections.derive.source import (
    POSSIBLE,
    Device,
    Held,
    HeldRequests,
    HeldSamples,
    Source,
    Stored,
    rows_of,
)
from llem.projections.sample_pieces import SMALL_ROWS, is_small, weight_of
from llem_events.events import Request

ROWS_AT_ONCE = 2 * SMALL_ROWS
_OF_SOME = "WHERE experiment_id IN (SELECT unnest(?::VARCHAR[]))"
_COLUMNS = ", ".join(f"{name}::DOUBLE AS {name}" for name in POSSIBLE)
_SAMPLES = (
    f"SELECT experiment_id, segment_id, process_index, device_uuid, at_ns, {_COLUMNS} FROM samples {_OF_SOME}"
)
_REPORTED = ("experiment_id", "segment_id", "event_number", "window_kind")
# Texts are long, and no figure comes from them.
_FIELDS = tuple(name for name in Request.__struct_fields__ if name not in ("prompt", "output"))
_REQUESTS = f"SELECT {', '.join((*_REPORTED, *_FIELDS))} FROM requests {_OF_SOME}"


def read_experiments(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str]
) -> Iterator[tuple[ExperimentFacts, Source]]:
    """What the log says of experiments; the source of a large one is good until anything is deleted."""
    histories = load_histories(connection, experiment_ids)
    small = {each: facts for each, facts in histories.items() if is_small(_weight(facts))}
    for some in _packed(small):
        for experiment_id, source in _hold(connection, some).items():
            yield histories[experiment_id], source
    large = [each for each in histories if each not in small]
    for experiment_id, places in rows_of(connection, large).items():
        yield histories[experiment_id], Stored(connection, experiment_id, places)


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


def _hold(connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str]) -> dict[str, Held]:
    """All rows of some experiments."""
    samples = _hold_samples(connection, experiment_ids)
    requests = _hold_requests(connection, experiment_ids)
    moments = connection.execute(
        f"SELECT experiment_id, [min(at_ns), max(at_ns)] FROM events {_OF_SOME} GROUP BY ALL",
        [experiment_ids],
    )
    events_ns = dict(moments.fetchall())
    return {
        each: Held(events_ns.get(each, []), samples.get(each, []), requests.get(each, {}))
        for each in experiment_ids
    }


def _hold_samples(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str]
) -> dict[str, list[HeldSamples]]:
    """By experiment; those of one device in one segment in the order of the table."""
    found = connection.execute(_SAMPLES, [experiment_ids]).fetchnumpy()
    names = ("experiment_id", "segment_id", "process_index", "device_uuid")
    numbers: dict[tuple[Any, ...], int] = {}
    keys = zip(*(found[name].tolist() for name in names), strict=True)
    of_rows = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64)
    order = np.argsort(of_rows, kind="stable")
    ends = np.cumsum(np.bincount(of_rows, minlength=len(numbers)))
    samples: dict[str, list[HeldSamples]] = {}
    for (experiment_id, segment_id, *device), rows in zip(numbers, np.split(order, ends[:-1]), strict=False):
        columns = {name: np.ma.filled(found[name][rows], np.nan) for name in POSSIBLE}
        at_ns = np.asarray(found["at_ns"][rows], np.int64)
        held = HeldSamples(Device(*device), segment_id, at_ns, columns)
        samples.setdefault(experiment_id, []).append(held)
    return samples


def _hold_requests(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str]
) -> dict[str, dict[str, HeldRequests]]:
    """By experiment and segment, event by event in the order of the table."""
    rows = connection.execute(_REQUESTS, [experiment_ids]).fetchall()
    events: dict[str, dict[str, list[tuple[int, str, Sequence[Request]]]]] = {}
    for (experiment_id, segment_id, *event), reported in groupby(rows, key=lambda row: row[: len(_REPORTED)]):
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
