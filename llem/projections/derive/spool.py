"""Arrays that are kept in pieces, by name: in memory as long as they are few, then in a file that has no name."""

import os
import tempfile
import weakref
from collections.abc import Iterator

import numpy as np

from llem.results.selection import FloatArray

HELD_BYTES = 2**22
_READ_VALUES = 2**15


class Spool:
    """Values are added once, and read as often as one likes."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115 -- closed with the spool
        self._places: dict[str, list[tuple[int, int]]] = {}
        weakref.finalize(self, self._file.close)

    def add(self, name: str, values: FloatArray) -> None:
        """Some more under a name."""
        places = self._places.setdefault(name, [])
        for start in range(0, len(values), _READ_VALUES):
            part = values[start : start + _READ_VALUES]
            places.append((self._file.seek(0, os.SEEK_END), part.nbytes))
            self._file.write(part.tobytes())

    def count(self, name: str) -> int:
        """Values under a name."""
        return sum(size for _, size in self._places.get(name, ())) // 8

    def pieces(self, name: str) -> Iterator[FloatArray]:
        """Those under a name, in the order in which they came."""
        for place, size in self._places.get(name, ()):
            self._file.seek(place)
            yield np.frombuffer(self._file.read(size), np.float64)
