"""Sample columns: what is packed comes back, whatever the numbers are, and lengths that lie are refused."""

import itertools
import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llem_events import SAMPLE_COLUMNS, Envelope, EventError, Reading, columns, unpack
from llem_events.events import SamplesTaken
from llem_events.upcast import SamplesAsDifferences, as_planes

int64 = st.integers(-(2**63), 2**63 - 1)
Row = tuple[int | None, ...]


@st.composite
def columns_of_readings(draw: st.DrawFn) -> list[Reading]:
    """Readings whose columns are anything: constant, on a line, multiples of a unit, wild, with gaps or absent."""
    count = draw(st.integers(1, 20))
    drawn = [draw(column_values(count)) for _ in SAMPLE_COLUMNS]
    return [Reading(*row) for row in zip(*drawn, strict=True)]


def column_values(count: int) -> st.SearchStrategy[list[int | None]]:
    """The values of one column."""
    lists = {"min_size": count, "max_size": count}
    small = st.integers(-1000, 1000)
    on_a_line = st.tuples(int64, small, st.lists(small, **lists)).map(
        lambda drawn: [wrapped(drawn[0] + drawn[1] * n + rest) for n, rest in enumerate(drawn[2])]
    )
    in_units = st.tuples(small, st.lists(small, **lists)).map(
        lambda drawn: [drawn[0] * number for number in drawn[1]]
    )
    return st.one_of(
        st.just([None] * count),
        st.lists(int64 | st.none(), **lists),
        st.lists(st.sampled_from([-(2**63), 2**63 - 1, 0, None]), **lists),
        on_a_line,
        in_units,
    )


def wrapped(value: int) -> int:
    """The signed 64-bit integer with the same low bits."""
    return (value + 2**63) % 2**64 - 2**63


def rows_of(event: SamplesTaken) -> list[Row]:
    """The readings of an event, as today's decoder finds them."""
    found = columns.unpack(event)
    cells = [cells_of(found[name]) if name in found else [None] * event.count for name in SAMPLE_COLUMNS]
    return list(zip(*cells, strict=True))


def cells_of(column: columns.Column) -> list[int | None]:
    """A column's values, None where missing."""
    missing = np.zeros(len(column.values), np.bool_) if column.missing is None else column.missing
    return [None if gap else value for value, gap in zip(column.values.tolist(), missing, strict=True)]


def rows_by_hand(event: SamplesTaken) -> list[Row]:
    """The readings of an event, by the words of the format and without numpy."""
    cells, planes = [], [event.planes[n : n + event.count] for n in range(0, len(event.planes), event.count)]
    for column in range(len(SAMPLE_COLUMNS)):
        numbers = [0] * event.count
        for place in range(8):
            if event.used[column] >> place & 1:
                plane = planes.pop(0)
                numbers = [number + (byte << 8 * place) for number, byte in zip(numbers, plane, strict=True)]
        least = signed_at(event.least, column)
        values = [least + number for number in numbers]
        if column < 3:
            values = list(itertools.accumulate(values[1:], initial=signed_at(event.first, column)))
        mask = bits_of(event.missing, column, count=event.count)
        cells.append([None if gap else wrapped(value) for value, gap in zip(values, mask, strict=True)])
    return list(zip(*cells, strict=True))


def signed_at(numbers: bytes, place: int) -> int:
    """One of some signed 64-bit little-endian numbers."""
    return int.from_bytes(numbers[8 * place : 8 * place + 8], "little", signed=True)


def bits_of(masks: bytes, column: int, *, count: int) -> list[int]:
    """A bit for each sample of a column."""
    size = (count + 7) // 8
    mask = masks[column * size : column * size + size] or bytes(size)
    return [mask[n // 8] >> 7 - n % 8 & 1 for n in range(count)]


def as_differences(readings: Sequence[Reading]) -> SamplesAsDifferences:
    """The event as the first version held it."""
    held: dict[str, bytes] = {}
    masks: dict[str, bytes] = {}
    for name, values in zip(SAMPLE_COLUMNS, zip(*readings, strict=True), strict=True):
        missing = [value is None for value in values]
        if all(missing):
            continue
        filled = np.array([0 if value is None else value for value in values], np.int64)
        held[name] = np.diff(filled, prepend=np.int64(0)).astype("<i8").tobytes()
        if any(missing):
            masks[name] = np.packbits(missing).tobytes()
    return SamplesAsDifferences(
        meter="nvml", device_uuid="GPU-1", count=len(readings), columns=held, null_masks=masks
    )


def packed(readings: Sequence[Reading]) -> SamplesTaken:
    """The event of these readings."""
    return columns.pack(readings, meter="nvml", device_uuid="GPU-1")


def some_readings(count: int, *, seed: int = 0) -> list[Reading]:
    """Readings like a sampler's."""
    rng = random.Random(seed)
    return [
        Reading(
            at_ns=10_000_000 * n + rng.randrange(90_000),
            power_mw=300_000 + rng.randrange(4_000),
            energy_mj=2**41 + 3_000 * n + rng.randrange(40),
            memory_used_bytes=2**36 + 2**21 * rng.randrange(4),
        )
        for n in range(count)
    ]


@settings(max_examples=40)
@given(columns_of_readings())
def test_what_is_packed_comes_back(readings: list[Reading]) -> None:
    """Every 64-bit value and every gap survives, through the decoder and by hand from the format's words."""
    event = packed(readings)
    assert rows_of(event) == readings
    assert rows_by_hand(event) == readings


@pytest.mark.parametrize("count", [0, 1, 8, 9])
def test_few_samples_of_the_first_version_are_read(count: int) -> None:
    """None too, and with gaps in the first and the last; a count that cannot be, or a mask of another length, is refused."""
    readings = some_readings(count)
    if count > 1:
        readings[0] = readings[0]._replace(power_mw=None)
        readings[-1] = readings[-1]._replace(energy_mj=None, at_ns=-5)
    old = (
        as_differences(readings)
        if count
        else SamplesAsDifferences(meter="nvml", device_uuid="GPU-1", count=0, columns={}, null_masks={})
    )
    assert rows_of(columns.as_planes(old)) == readings
    for wrong in (-1, SamplesTaken.MAX_COUNT + 1):
        with pytest.raises(ValueError, match=f"found {wrong}"):
            columns.as_planes(msgspec.structs.replace(old, count=wrong))
    masked = msgspec.structs.replace(
        old, columns={"power_mw": bytes(8 * count)}, null_masks={"power_mw": bytes(9)}
    )
    with pytest.raises(ValueError, match=f"found 9 bytes for {count} samples"):
        columns.as_planes(masked)


@settings(max_examples=40)
@given(columns_of_readings())
@pytest.mark.slow
def test_the_first_version_becomes_the_same_samples(readings: list[Reading]) -> None:
    """An event of version 1 is read as today's, sample by sample."""
    body = msgspec.Raw(msgspec.msgpack.encode(as_differences(readings)))
    event = unpack(Envelope("samples_taken", 1, 0, body))
    assert isinstance(event, SamplesTaken)
    assert rows_of(event) == readings


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 3), columns_of_readings()), min_size=1, max_size=6))
def test_many_events_decode_as_one_by_one(drawn: list[tuple[int, list[Reading]]]) -> None:
    """Events of mixed lengths, joined, give the rows of each in order."""
    events = [packed(readings) for repeats, readings in drawn for _ in range(repeats + 1)]
    joined = columns.unpack_all(events)
    rows = list(zip(*(cells_of(joined[name]) for name in SAMPLE_COLUMNS), strict=True))
    assert rows == [row for event in events for row in rows_of(event)]


def test_no_samples_are_an_event_too() -> None:
    """Nothing packs to nothing, and joins with something."""
    empty, one = packed([]), packed([Reading(at_ns=7)])
    assert rows_of(empty) == []
    assert columns.unpack_all([empty, one, empty])["at_ns"].values.tolist() == [7]
    assert columns.unpack_all([])["at_ns"].values.tolist() == []


def test_a_column_that_an_older_writer_did_not_have_is_missing() -> None:
    """An event's columns may end before the vocabulary does."""
    event = packed([Reading(at_ns=7), Reading(at_ns=9)])
    shorter = msgspec.structs.replace(
        event, used=event.used[:3], least=event.least[:24], missing=event.missing[:3]
    )
    assert rows_of(shorter) == [Reading(at_ns=7), Reading(at_ns=9)]
    joined = columns.unpack_all([shorter, event, shorter])
    assert cells_of(joined["power_mw"]) == [None] * 6
    assert cells_of(joined["at_ns"]) == [7, 9] * 3


def test_a_column_that_a_later_writer_adds_is_skipped() -> None:
    """One more column after those known changes nothing of them."""
    readings = some_readings(10)
    event = packed(readings)
    longer = msgspec.structs.replace(
        event,
        used=event.used + b"\x80",
        least=event.least + bytes(8),
        planes=event.planes + b"\x01" * 10,
        missing=event.missing + bytes(2),
    )
    assert columns.unpack_all([longer, event])["energy_mj"].values.tolist() == [
        reading.energy_mj for reading in readings * 2
    ]


def test_only_bytes_in_use_are_kept() -> None:
    """Memory in pages costs the one byte that changes, a counter the bytes of its differences, a constant none."""
    event = packed(some_readings(100))
    used = dict(zip(SAMPLE_COLUMNS, event.used, strict=True))
    assert used["memory_used_bytes"] == 0b100
    assert used["energy_mj"] == 0b1
    assert used["power_average_mw"] == 0
    assert packed([Reading(at_ns=n, power_limit_mw=700_000) for n in range(100)]).planes == b""


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        ({"count": 11}, "planes: found"),
        ({"count": -1}, "samples: found -1, expected at most 65536"),
        ({"count": 2**40}, f"samples: found {2**40}, expected at most 65536"),
        ({"count": 2**16 + 1}, "samples: found 65537, expected at most 65536"),
        ({"first": bytes(23)}, "first: found 23 bytes, expected 24"),
        ({"least": bytes(95)}, "least: found 95 bytes, expected 96"),
        ({"used": b"\xff" * 12}, "planes: found [0-9]+ bytes, expected 960"),
        ({"used": b""}, "columns: found 0, expected at least 3"),
        ({"used": bytes(2), "least": bytes(16), "planes": b"", "missing": b""}, "columns: found 2, expected"),
        ({"planes": b""}, "planes: found 0 bytes"),
        ({"missing": bytes(23)}, "missing: found 23 bytes, expected 24"),
        ({"missing": bytes(1)}, "missing: found 1 bytes, expected 24"),
    ],
    ids=str,
)
def test_lengths_that_lie_are_refused(lie: dict[str, object], told: str) -> None:
    """No decoder is asked to read beyond what an event has."""
    honest = msgspec.to_builtins(packed(some_readings(10)), builtin_types=(bytes,))
    body = msgspec.Raw(msgspec.msgpack.encode(honest | lie))
    with pytest.raises(EventError, match=told):
        unpack(Envelope("samples_taken", 2, 0, body))


@pytest.mark.parametrize(
    "lie",
    [
        {"count": 11},
        {"count": 2**40},
        {"columns": {"at_ns": bytes(7)}},
        {"columns": {"at_ns": b""}},
        {"null_masks": {"at_ns": b""}},
    ],
    ids=str,
)
def test_lengths_that_lie_in_the_first_version_are_refused(lie: dict[str, object]) -> None:
    """An old event that does not fit itself is no event, and asks for no memory."""
    honest = msgspec.to_builtins(as_differences(some_readings(10)), builtin_types=(bytes,))
    body = msgspec.Raw(msgspec.msgpack.encode(honest | lie))
    with pytest.raises(EventError):
        unpack(Envelope("samples_taken", 1, 0, body))


def test_the_step_is_pure() -> None:
    """The old event is not changed, and the same event gives the same bytes."""
    old = as_differences(some_readings(50))
    before = msgspec.msgpack.encode(old)
    assert as_planes(old) == as_planes(old) == packed(some_readings(50))
    assert msgspec.msgpack.encode(old) == before


def test_a_gap_among_numbers_is_no_number() -> None:
    """The other values are as they were."""
    values = np.array([1, 2, 3], np.int64)
    assert columns.Column(values).floats().tolist() == [1.0, 2.0, 3.0]
    gaps = columns.Column(values, np.array([False, True, False])).floats()
    assert np.isnan(gaps).tolist() == [False, True, False] and gaps[2] == 3.0
