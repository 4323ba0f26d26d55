"""Readings on disk: a log of days is imported in the memory of a short one."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from llem_events import Reading

COLUMNS = Reading._fields[1:]
LARGEST = 2**62
_WIDTH = len(Reading._fields)
_ROW_BYTES = 8 * _WIDTH
_NOTHING = -(2**63)  # in the place of None
_ROWS = 2**12


class _File:
    """A temporary file, closed when nobody reads of it any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- see above
        weakref.finalize(self, self._file.close)

    def write(self, rows: list[list[int]]) -> None:
        self._file.write(np.array(rows, np.int64).tobytes())

    def read(self, first: int, end: int) -> list[list[int]]:
        content = os.pread(self._file.fileno(), (end - first) * _ROW_BYTES, first * _ROW_BYTES)
        rows: list[list[int]] = np.frombuffer(content, np.int64).reshape(-1, _WIDTH).tolist()
        return rows


class Readings(Sequence[Reading]):
    """Those of a device, in the order in which they were written; `known` counts those that have a column."""

    def __init__(self, file: _File, count: int, known: dict[str, int], *, origin_ns: int = 0) -> None:
        self._file, self._count, self.known, self._origin_ns = file, count, known, origin_ns

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Reading: ...
    @overload
    def __getitem__(self, place: slice) -> list[Reading]: ...
    def __getitem__(self, place: int | slice) -> Reading | list[Reading]:
        if isinstance(place, slice):
            first, end, _ = place.indices(self._count)
            return [self._reading(row) for row in self._file.read(first, max(first, end))]
        place = range(self._count)[place]
        return self[place : place + 1][0]

    def __iter__(self) -> Iterator[Reading]:
        for first in range(0, len(self), _ROWS):
            yield from self[first : first + _ROWS]

    def since(self, origin_ns: int) -> "Readings":
        """The same, with times from a moment on."""
        return Readings(self._file, self._count, self.known, origin_ns=self._origin_ns + origin_ns)

    def _reading(self, row: list[int]) -> Reading:
        at_ns, *measured = row
        values: list[Any] = [None if number == _NOTHING else number for number in measured]
        return Reading(at_ns - self._origin_ns, *values)


class Spool:
    """What readings are appended to."""

    def __init__(self) -> None:
        self._file = _File()
        self._pending: list[list[int]] = []
        self._count = 0
        self._known = dict.fromkeys(COLUMNS, 0)

    def append(self, reading: Reading) -> None:
        """One more."""
        for name, number in zip(COLUMNS, reading[1:], strict=True):
            self._known[name] += number is not None
        self._pending.append([_NOTHING if number is None else number for number in reading])
        if len(self._pending) >= _ROWS:
            self._flush()

    def readings(self) -> Readings:
        """All of them. Nothing more is appended."""
        self._flush()
        return Readings(self._file, self._count, self._known)

    def _flush(self) -> None:
        self._file.write(self._pending)
        self._count += len(self._pending)
        self._pending = []


def spooled(readings: Iterable[Reading]) -> Readings:
    """All of them on disk."""
    spool = Spool()
    for reading in readings:
        spool.append(reading)
    return spool.readings()
