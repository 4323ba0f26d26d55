"""Columns of samples: each a straight line, and what is left over it in as few bits as the largest rest needs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llem_events.bits import pack_bits, unpack_bits
from llem_events.events import ABSENT, MAX_WIDTH, SUMMED, SamplesTaken
from llem_events.reading import SAMPLE_COLUMNS, Reading

Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
_LARGEST_UNIT = 2**63 - 1


class Column(NamedTuple):
    """Values of one column, and which of them were not measured; None where all were."""

    values: Ints
    missing: Mask | None = None


def pack(readings: Sequence[Reading], *, meter: str, device_uuid: str) -> SamplesTaken:
    """The event that holds `readings` of one device."""
    matrix, missing = _matrix(readings)
    return encode(matrix, missing, meter=meter, device_uuid=device_uuid)


def encode(matrix: Ints, missing: Mapping[int, Mask], *, meter: str, device_uuid: str) -> SamplesTaken:
    """The event of a matrix with a row for each of SAMPLE_COLUMNS; `missing` has the masks of rows with gaps."""
    absent = [row for row, mask in missing.items() if mask.all()]
    packed, widths, lines = _packed(matrix, absent) if matrix.size else (b"", b"", b"")
    gaps = {SAMPLE_COLUMNS[row]: np.packbits(mask) for row, mask in missing.items() if row not in absent}
    return SamplesTaken(
        meter=meter,
        device_uuid=device_uuid,
        count=matrix.shape[1],
        widths=widths,
        lines=lines,
        packed=packed,
        missing={name: mask.tobytes() for name, mask in gaps.items()},
    )


def _packed(matrix: Ints, absent: Sequence[int]) -> tuple[bytes, bytes, bytes]:
    lines, rests, is_summed = _lines(matrix)
    widths = [_width(largest) for largest in rests.max(axis=1).tolist()]
    codes = bytearray(
        width | SUMMED if summed else width for width, summed in zip(widths, is_summed.tolist(), strict=True)
    )
    for row in absent:
        codes[row] = ABSENT
        widths[row] = 0
    return pack_bits(rests, widths), bytes(codes), lines.astype("<i8", copy=False).tobytes()


def unpack(event: SamplesTaken) -> dict[str, Column]:
    """Column name -> values and gaps; a column that was never measured is left out."""
    columns = unpack_all([event])
    return {
        name: column
        for (name, column), width in zip(columns.items(), event.widths, strict=False)
        if width != ABSENT
    }


def unpack_all(events: Sequence[SamplesTaken]) -> dict[str, Column]:
    """All of SAMPLE_COLUMNS, with the samples of the events one after the other."""
    counts = np.array([event.count for event in events], np.int64)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    values = np.empty((len(SAMPLE_COLUMNS), total), np.int64)
    for count, places in _alike(events):
        if len(places) == len(events):
            _decode(events, values.reshape(-1, count))
            continue
        part = np.empty((len(SAMPLE_COLUMNS) * len(places), count), np.int64)
        _decode([events[place] for place in places], part)
        spots = (ends[places] - count)[:, None] + np.arange(count)
        values[:, spots.ravel()] = part.reshape(len(SAMPLE_COLUMNS), -1)
    missing = _missing(events, ends, total)
    return {name: Column(values[row], missing.get(row)) for row, name in enumerate(SAMPLE_COLUMNS)}


def _matrix(readings: Sequence[Reading]) -> tuple[Ints, dict[int, Mask]]:
    shape = len(readings), len(SAMPLE_COLUMNS)
    try:
        flat = np.fromiter(chain.from_iterable(readings), np.int64, shape[0] * shape[1])
    except TypeError:  # None somewhere
        return _matrix_with_gaps(readings)
    return np.ascontiguousarray(flat.reshape(shape).T), {}


def _matrix_with_gaps(readings: Sequence[Reading]) -> tuple[Ints, dict[int, Mask]]:
    """The last known value stands in the place of a missing one, so that the gap costs no bits."""
    matrix = np.zeros((len(SAMPLE_COLUMNS), len(readings)), np.int64)
    missing: dict[int, Mask] = {}
    for row, values in enumerate(zip(*readings, strict=True)):
        mask = np.array([value is None for value in values])
        if mask.any():
            missing[row] = mask
        if not mask.all():
            matrix[row] = _filled(values)
    return matrix, missing


def _filled(values: Sequence[int | None]) -> list[int]:
    last = next(value for value in values if value is not None)
    return [last := last if value is None else value for value in values]


def _lines(matrix: Ints) -> tuple[Ints, Counts, Mask]:
    """(first, step, unit) of every row, its rests, and whether these are of its differences, where these span less.

    Sums and differences wrap at 64 bits, in both directions. Times lie on the sampler's grid.
    """
    rows, count = matrix.shape
    step_ns = (matrix[0, -1:] - matrix[0, :1]) // max(count - 1, 1)  # arrays wrap, numbers overflow
    flat = matrix.copy()
    flat[0] -= step_ns * np.arange(count)
    low = flat.min(axis=1)
    rests = (flat - low[:, None]).view(np.uint64)
    steps = np.zeros(rows, np.int64)
    steps[:1] = step_ns
    is_summed = np.zeros(rows, np.bool_)
    if count > 1:
        differences = matrix[:, 1:] - matrix[:, :-1]
        least = differences.min(axis=1)
        changes = (differences - least[:, None]).view(np.uint64)
        is_summed = changes.max(axis=1) < rests.max(axis=1)
        rests[is_summed, 0] = 0
        rests[is_summed, 1:] = changes[is_summed]
        steps[is_summed] = least[is_summed]
        low[is_summed] = matrix[is_summed, 0]
    units = np.gcd.reduce(rests, axis=1)
    units[(units == 0) | (units > _LARGEST_UNIT)] = 1
    is_shared = units > 1
    rests[is_shared] //= units[is_shared, None]
    return np.stack((low, steps, units.view(np.int64)), axis=1), rests, is_summed


def _width(largest: int) -> int:
    """Bits for numbers up to `largest`; over 56 a number would not fit eight bytes at every bit, so it takes all 64."""
    width = largest.bit_length()
    return width if width <= MAX_WIDTH else 64


def _alike(events: Sequence[SamplesTaken]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """(count, places) of events with equally many samples and columns."""
    shapes = np.array([(event.count, len(event.widths)) for event in events]).reshape(-1, 2)
    for shape in np.unique(shapes, axis=0):
        places = np.flatnonzero((shapes == shape).all(axis=1))
        if shape[0]:
            yield int(shape[0]), places


def _decode(events: Sequence[SamplesTaken], out: Ints) -> None:
    """Fill `out` with a row for each column and event: first all events of the first column, and so on.

    Whatever has the same width is decoded together: few large steps in the place of many small ones.
    """
    packed = b"".join([event.packed for event in events])
    codes = np.frombuffer(b"".join([event.widths for event in events]), np.uint8).reshape(len(events), -1)
    lines = np.frombuffer(b"".join([event.lines for event in events]), "<i8").reshape(*codes.shape, 3)
    widths = np.where(codes == ABSENT, 0, codes & ~np.uint8(SUMMED)).astype(np.int64)
    sizes = (out.shape[1] * widths + 7) // 8
    starts = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
    known = slice(0, len(SAMPLE_COLUMNS))
    code_of, start_of = codes.T[known].ravel(), starts.T[known].ravel()
    line_of = lines.transpose(1, 0, 2)[known].reshape(-1, 3)
    for code in np.flatnonzero(np.bincount(code_of)).tolist():
        alike = np.flatnonzero(code_of == code)
        out[alike] = _on_lines(packed, code, start_of[alike], line_of[alike], out.shape[1])


def _on_lines(packed: bytes, code: int, starts: Ints, lines: Ints, count: int) -> Ints:
    """first + step x place + unit x rest, where the rests of differences are summed up."""
    first, step, unit = lines[:, :1], lines[:, 1:2], lines[:, 2:]
    width = 0 if code == ABSENT else code % SUMMED
    values = unpack_bits(packed, starts, width=width, count=count).view(np.int64)
    if code >= SUMMED:
        np.cumsum(values, axis=1, out=values)
    if (unit != 1).any():
        values *= unit
    if step.any():
        values += step * np.arange(count)
    values += first
    return values


def _missing(events: Sequence[SamplesTaken], ends: Ints, total: int) -> dict[int, Mask]:
    """Row -> mask, for rows in which anything is missing."""
    masks: dict[int, Mask] = {}
    for event, end in zip(events, ends.tolist(), strict=True):
        if not event.missing and ABSENT not in event.widths and len(event.widths) >= len(SAMPLE_COLUMNS):
            continue
        for row, name in enumerate(SAMPLE_COLUMNS):
            if row >= len(event.widths) or event.widths[row] == ABSENT:
                masks.setdefault(row, np.zeros(total, np.bool_))[end - event.count : end] = True
            elif name in event.missing:
                bits = np.unpackbits(np.frombuffer(event.missing[name], np.uint8), count=event.count)
                masks.setdefault(row, np.zeros(total, np.bool_))[end - event.count : end] = bits
    return masks
