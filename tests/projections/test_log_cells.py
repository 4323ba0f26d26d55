"""Requests go from their events into columns, and values of every kind through cells, as they are."""

import math
from collections.abc import Iterator, Sequence

import duckdb
import msgspec
import numpy as np
import pytest

from llem.projections import cells, database
from llem.projections.database import Tables, create_tables
from llem.projections.ingest import TIMES_OF_A_ROW, Collected
from llem.projections.log_cells import MEASURED, Identity, Reported, request_batch, sample_batch, split
from llem_events import SAMPLE_COLUMNS, Envelope
from llem_events.columns import Column
from llem_events.events import Request, RequestsCompleted, WarningRaised
from llem_events.replay import Occurrence, SampleBatch

WORKER, OTHER = Identity("run-1", 0, "aa"), Identity("run-2", None, "bb")


@pytest.fixture
def tables() -> Iterator[Tables]:
    """Empty ones."""
    with database.in_memory() as connection:
        create_tables(connection)
        yield Tables(connection)


def request(number: int, **changes: object) -> Request:
    """One that ended well, with a time for each token."""
    fields = {
        "request_id": number,
        "batch_index": number // 2,
        "batch_size": 2,
        "arrival_ns": 10,
        "start_ns": 11,
        "first_token_ns": 12,
        "end_ns": 14,
        "input_tokens": 3,
        "output_tokens": 2,
        "token_times_ns": [12, 13],
        "finish_reason": "length",
    }
    return Request(**fields | changes)


def reported(*counts: int) -> list[Reported]:
    """Events with so many requests, whose ids go on."""
    ids = iter(range(sum(counts)))
    return [
        Reported(WORKER, number, "measurement", [request(next(ids)) for _ in range(count)])
        for number, count in enumerate(counts)
    ]


def ids(events: Sequence[Reported]) -> list[tuple[int, list[int]]]:
    """Of each event its number and the ids of its requests."""
    return [(event.event_number, [each.request_id for each in event.requests]) for event in events]


@pytest.mark.parametrize(
    ("most", "first", "rest"),
    [
        (0, [], [(0, [0, 1, 2]), (1, [3, 4])]),
        (2, [(0, [0, 1])], [(0, [2]), (1, [3, 4])]),
        (3, [(0, [0, 1, 2])], [(1, [3, 4])]),
        (4, [(0, [0, 1, 2]), (1, [3])], [(1, [4])]),
        (5, [(0, [0, 1, 2]), (1, [3, 4])], []),
        (9, [(0, [0, 1, 2]), (1, [3, 4])], []),
    ],
)
def test_events_are_split_between_requests(
    most: int, first: list[tuple[int, list[int]]], rest: list[tuple[int, list[int]]]
) -> None:
    """No request is lost, none comes twice, and each keeps its event."""
    assert tuple(map(ids, split(reported(3, 2), most))) == (first, rest)


def test_times_of_tokens_and_chunks_count() -> None:
    """Both take memory."""
    chunked = request(1, token_times_ns=[], chunk_times_ns=[12, 13, 14], chunk_tokens=[1, 1, None])
    assert Reported(WORKER, 0, "measurement", [request(0), chunked]).times == 5


def test_samples_of_several_segments_are_one_batch(tables: Tables) -> None:
    """Each column in its unit, what was not measured NULL, each segment's with its identity."""
    numbers = np.arange(2) + 5_000
    columns = {name: Column(numbers + 10 * place) for place, name in enumerate(SAMPLE_COLUMNS)}
    columns["temperature_c"] = Column(numbers, np.array([True, False]))
    batches = [SampleBatch("nvml", "GPU-1", 2, columns), SampleBatch("rapl", "CPU-0", 2, columns)]
    tables.insert_batches("samples", [sample_batch([(WORKER, batches[0]), (OTHER, batches[1])])])
    names = list(MEASURED)
    found = tables.connection.execute(
        f"SELECT experiment_id, process_index, segment_id, device_uuid, meter, {', '.join(names)} FROM samples"
    ).fetchall()
    keys = [(*WORKER, "GPU-1", "nvml")] * 2 + [(*OTHER, "CPU-0", "rapl")] * 2
    assert [row[:5] for row in found] == keys
    values = [dict(zip(names, row[5:], strict=True)) for row in found]
    thousandths = {
        "power_w": "power_mw",
        "power_average_w": "power_average_mw",
        "energy_j": "energy_mj",
        "power_limit_w": "power_limit_mw",
    }
    for row, sample in zip(values, (0, 1, 0, 1), strict=True):
        for name in names:
            read = int(columns[thousandths.get(name, name)].values[sample])
            expected = read / 1000 if name in thousandths else read
            assert row[name] == (None if name == "temperature_c" and sample == 0 else expected)


def test_every_field_reaches_its_column(tables: Tables) -> None:
    """Of requests that say much and little, of two segments and two windows."""
    full = request(
        1,
        error="it broke",
        prompt="été",
        output="",
        first_token_ns=None,
        token_times_ns=[],
        chunk_times_ns=[12, 13],
        chunk_tokens=[2, None],
        headers_ns=11,
        connection_reused=True,
        finish_reason="error",
    )
    plain = request(2, output_tokens=0, token_times_ns=[], times_reason="none were asked for")
    events = [Reported(WORKER, 3, "warmup", [request(0), full]), Reported(OTHER, 4, "measurement", [plain])]
    tables.insert_batches("requests", [request_batch(events, tables.types("requests"))])
    stored = tables.connection.execute("FROM requests ORDER BY request_id")
    names = [column[0] for column in stored.description or ()]
    expected = [
        {
            **event.identity._asdict(),
            "event_number": event.event_number,
            "window_kind": event.window_kind,
            **msgspec.structs.asdict(each),
        }
        for event in events
        for each in event.requests
    ]
    assert [dict(zip(names, row, strict=True)) for row in stored.fetchall()] == expected


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("DOUBLE", [1.5, None, math.inf, math.nan, 2], [1.5, None, None, None, 2.0]),
        ("DOUBLE", [1.5, 2.5], [1.5, 2.5]),
        ("BIGINT", [1, None, -(2**63)], [1, None, -(2**63)]),
        ("BIGINT", [2**63 - 1], [2**63 - 1]),
        ("BOOLEAN", [True, None, False], [True, None, False]),
        ("BIGINT[]", [[1, 2], None, [], [None, 3]], [[1, 2], None, [], [None, 3]]),
        ("BIGINT[]", [[], []], [[], []]),
        ("VARCHAR", ["a", None, "", "ü"], ["a", None, "", "ü"]),
        ("VARCHAR", [None, None], [None, None]),
        ("VARCHAR", ["a", 3, None, {"b": 1}], ["a", "3", None, '{"b":1}']),
        ("INTEGER", [1, None], [1, None]),
        ("JSON", [{"b": 1}, None], ['{"b":1}', None]),
        ("VARCHAR[]", [["a"], [], None], [["a"], [], None]),
    ],
)
def test_values_are_what_they_were(kind: str, values: list[object], expected: list[object]) -> None:
    """A number that is none is NULL, as what is missing."""
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE kept (number BIGINT, value {kind})")
        rows = [{"number": number, "value": value} for number, value in enumerate(values)]
        cells.insert(connection, "kept", [cells.batch(rows, {"number": "BIGINT", "value": kind})])
        found = connection.execute("SELECT value FROM kept ORDER BY number").fetchall()
    assert [value for (value,) in found] == expected


def test_requests_of_many_tokens_are_held_as_the_rows_that_they_weigh() -> None:
    """Times take memory too, some of them as much as a row; all that is held is counted."""
    collected = Collected(WORKER)
    times = [12] * (100 * TIMES_OF_A_ROW)
    for number, event in enumerate(
        (
            WarningRaised(code="sample_gap", text="a"),
            RequestsCompleted(window="measurement", requests=[request(0), request(1, token_times_ns=times)]),
        )
    ):
        collected.add(Occurrence(0, number, Envelope(event.TYPE, event.VERSION, 10, b""), event))
    assert len(collected) == 1 + 2 + 100
