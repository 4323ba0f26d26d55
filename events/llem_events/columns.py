"""Columns of samples as planes of bytes: what each value has over the column's least, and of that only bytes in use.

Samples of the first version, written as differences, become planes here too.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llem_events.events import RUNNING_COLUMNS, SAMPLE_COLUMNS, Reading, SamplesTaken
from llem_events.upcast import SamplesAsDifferences

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
_INT64 = np.dtype("<i8")
_WIDTH = len(SAMPLE_COLUMNS)
_NOTHING = bytes(8 * RUNNING_COLUMNS), bytes(8 * _WIDTH), bytes(_WIDTH), b""


class Column(NamedTuple):
    """Values of one column, and which of them were not measured; None where all were."""

    values: Ints
    missing: Mask | None = None

    def floats(self) -> Floats:
        """The values, NaN where nothing was measured."""
        values = self.values.astype(np.float64)
        if self.missing is not None:
            values[self.missing] = np.nan
        return values


def pack(readings: Sequence[Reading], *, meter: str, device_uuid: str) -> SamplesTaken:
    """The event that holds `readings` of one device."""
    rows, missing = _rows(readings)
    return encode(rows, meter=meter, device_uuid=device_uuid, missing=missing)


def _rows(readings: Sequence[Reading]) -> tuple[Ints, Mask | None]:
    """A row for each reading, and the mask of missing values where there are any."""
    try:
        return _matrix(readings), None
    except TypeError:  # None somewhere
        missing = np.array([[value is None for value in reading] for reading in readings])
        return _matrix(list(_filled(readings))), missing


def _matrix(rows: Sequence[Sequence[int | None]]) -> Ints:
    flat = np.fromiter(chain.from_iterable(rows), _INT64, len(rows) * _WIDTH)
    return flat.reshape(-1, _WIDTH)


def _filled(readings: Sequence[Reading]) -> Iterator[list[int]]:
    """The last known value stands in the place of a missing one, so that the gap takes no plane."""
    known = [0] * _WIDTH
    for reading in readings:
        known = [last if value is None else value for value, last in zip(reading, known, strict=True)]
        yield known


def encode(rows: Ints, *, meter: str, device_uuid: str, missing: Mask | None = None) -> SamplesTaken:
    """The event of a row for each sample, a value for each of SAMPLE_COLUMNS; `missing` marks what was not measured."""
    first, least, used, planes = _planes(rows) if len(rows) else _NOTHING
    return SamplesTaken(
        meter=meter,
        device_uuid=device_uuid,
        count=len(rows),
        first=first,
        least=least,
        used=used,
        planes=planes,
        missing=b"" if missing is None else np.packbits(missing.T, axis=1).tobytes(),
    )


def _planes(rows: Ints) -> tuple[bytes, bytes, bytes, bytes]:
    """First values of the running columns, least of every column, its bytes in use, and these; all wraps at 64 bits."""
    rests = np.array(rows.T, _INT64, order="C")
    running, before = rests[:RUNNING_COLUMNS], rests[:RUNNING_COLUMNS].copy()
    running[:, 1:] -= before[:, :-1]
    running[:, 0] = running[:, -1]  # any of the differences, so that the least is theirs
    least = np.minimum.reduce(rests, axis=1)
    rests -= least[:, None]
    running[:, 0] = 0
    used = np.bitwise_or.reduce(rests, axis=1).view(np.uint8) != 0
    places = rests.view(np.uint8).reshape(len(rests), -1, 8).transpose(0, 2, 1)
    planes = places[used.reshape(-1, 8)]
    used_bits = np.packbits(used, bitorder="little")
    return before[:, 0].tobytes(), least.tobytes(), used_bits.tobytes(), planes.tobytes()


def unpack(event: SamplesTaken) -> dict[str, Column]:
    """Column name -> values and gaps; a column that was never measured is left out."""
    return {
        name: column
        for name, column in unpack_all([event]).items()
        if column.missing is None or not column.missing.all()
    }


def unpack_all(events: Sequence[SamplesTaken]) -> dict[str, Column]:
    """All of SAMPLE_COLUMNS, with the samples of the events one after the other."""
    counts = np.array([event.count for event in events], np.int64)
    ends = np.cumsum(counts)
    values = np.zeros((_WIDTH, int(counts.sum())), _INT64)
    for count, places in _alike(events):
        if len(places) == len(events):
            _decode(events, values.reshape(_WIDTH, -1, count))
        else:
            part = np.zeros((_WIDTH, len(places), count), _INT64)
            _decode([events[place] for place in places], part)
            spots = (ends[places] - count)[:, None] + np.arange(count)
            values[:, spots.ravel()] = part.reshape(_WIDTH, -1)
    missing = _missing(events, ends.tolist())
    return {name: Column(values[row], missing.get(row)) for row, name in enumerate(SAMPLE_COLUMNS)}


def _alike(events: Sequence[SamplesTaken]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """(count, places) of events with equally many samples and columns."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, event in enumerate(events):
        places.setdefault((event.count, len(event.used)), []).append(place)
    return ((count, np.array(alike)) for (count, _), alike in places.items() if count)


def _decode(events: Sequence[SamplesTaken], out: Ints) -> None:
    """Fill `out`, which holds zeros, with column x event x sample.

    Each of the eight bytes of all numbers is filled at once: few large steps in the place of many small ones.
    """
    columns = len(events[0].used)
    known = min(columns, _WIDTH)
    bits = np.unpackbits(_joined(events, "used", np.uint8), bitorder="little").reshape(-1, columns, 8)
    plane_of = (np.cumsum(bits, dtype=np.intp) - 1).reshape(bits.shape).transpose(1, 0, 2)[:known]
    used = bits.view(np.bool_).transpose(1, 0, 2)[:known]
    planes = _joined(events, "planes", np.uint8).reshape(-1, out.shape[2])
    cells = out.view(np.uint8)
    for place in range(8):
        chosen = used[:, :, place]
        if chosen.any():
            cells[:known, :, place::8][chosen] = planes[plane_of[:, :, place][chosen]]
    out[:known] += _joined(events, "least", _INT64).reshape(-1, columns).T[:known, :, None]
    running = out[:RUNNING_COLUMNS]
    running[:, :, 0] = _joined(events, "first", _INT64).reshape(-1, RUNNING_COLUMNS).T
    np.cumsum(running, axis=2, out=running)


def _joined(events: Sequence[SamplesTaken], field: str, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.frombuffer(b"".join([getattr(event, field) for event in events]), kind)


def _missing(events: Sequence[SamplesTaken], ends: Sequence[int]) -> dict[int, Mask]:
    """Row -> mask, for rows in which anything is missing."""
    if all(not event.missing and len(event.used) >= _WIDTH for event in events):
        return {}
    mask = np.zeros((_WIDTH, ends[-1]), np.bool_)
    for event, end in zip(events, ends, strict=True):
        columns = len(event.used)
        mask[columns:, end - event.count : end] = True
        if event.missing and event.count:
            packed = np.frombuffer(event.missing, np.uint8).reshape(columns, -1)
            bits = np.unpackbits(packed, axis=1, count=event.count)[:_WIDTH]
            mask[:columns, end - event.count : end] = bits
    return {row: mask[row] for row in np.flatnonzero(mask.any(axis=1)).tolist()}


def as_planes(event: SamplesAsDifferences) -> SamplesTaken:
    """The same samples in today's shape. Raises ValueError where the lengths do not fit."""
    if not 0 <= event.count <= SamplesTaken.MAX_COUNT:
        raise ValueError(f"samples: found {event.count}, expected at most {SamplesTaken.MAX_COUNT}")
    rows = np.zeros((event.count, len(SAMPLE_COLUMNS)), np.int64)
    missing = np.zeros(rows.shape, np.bool_)
    for place, name in enumerate(SAMPLE_COLUMNS):
        if name in event.columns:
            rows[:, place] = np.cumsum(np.frombuffer(event.columns[name], "<i8"))
        missing[:, place] = _gaps(event, name)
    gaps = missing if missing.any() else None
    return encode(rows, meter=event.meter, device_uuid=event.device_uuid, missing=gaps)


def _gaps(event: SamplesAsDifferences, name: str) -> Mask:
    if name not in event.columns:
        return np.ones(event.count, np.bool_)
    if name not in event.null_masks:
        return np.zeros(event.count, np.bool_)
    bits = np.frombuffer(event.null_masks[name], np.uint8)
    if len(bits) != (event.count + 7) // 8:
        raise ValueError(f"null mask: found {len(bits)} bytes for {event.count} samples")
    return np.unpackbits(bits, count=event.count).astype(np.bool_)
