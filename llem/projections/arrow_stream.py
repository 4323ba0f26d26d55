"""Batches of 64-bit integers, and of texts that are the same all over a batch, as an Arrow C stream.

DuckDB reads it without a copy and without pyarrow.
The structures and their rules are those of https://arrow.apache.org/docs/format/CDataInterface.html and CStreamInterface.html.
"""

import ctypes
import errno
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llem_events.columns import Column

_INT64, _INT32, _TEXT, _STRUCT = b"l", b"i", b"u", b"+s"
_NULLABLE = 2


class _Schema(ctypes.Structure):
    pass


class _Array(ctypes.Structure):
    pass


class _Stream(ctypes.Structure):
    pass


_ReleaseSchema = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Schema))
_ReleaseArray = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))
_ReleaseStream = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Stream))
_GetSchema = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Schema))
_GetNext = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.POINTER(_Array))
_GetLastError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Stream))

_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.POINTER(_Schema)),
    ("release", _ReleaseSchema),
    ("private_data", ctypes.c_void_p),
]
_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.POINTER(_Array)),
    ("release", _ReleaseArray),
    ("private_data", ctypes.c_void_p),
]
_Stream._fields_ = [
    ("get_schema", _GetSchema),
    ("get_next", _GetNext),
    ("get_last_error", _GetLastError),
    ("release", _ReleaseStream),
    ("private_data", ctypes.c_void_p),
]

_kept: dict[int, Any] = {}  # what the consumer still uses, until it calls release
_numbers = itertools.count(1)


def _keep(owner: Any) -> int:
    number = next(_numbers)
    _kept[number] = owner
    return number


class ArrowStream:
    """Register one with DuckDB and select from it once; `batches` are pulled as the query goes on, by its threads.

    A batch has a Column for each of `names`, and for each of `texts` one text, which stands in all of its rows. What
    `batches` raises ends the query; it is kept in `failure` for the query's caller to raise.
    """

    def __init__(
        self,
        names: Sequence[str],
        batches: Iterable[tuple[Mapping[str, Column], Sequence[str]]],
        *,
        texts: Sequence[str] = (),
    ) -> None:
        self._names, self._texts = names, texts
        self._batches = iter(batches)
        self._offered: list[_Stream] = []
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of what DuckDB asked for and never used."""
        for stream in self._offered:
            _kept.pop(stream.private_data, None)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A capsule with the stream; DuckDB asks twice, first only for the schema."""
        stream = _Stream(_get_schema, _get_next, _get_last_error, _release_stream, _keep(self))
        self._offered.append(stream)
        return _new_capsule(ctypes.addressof(stream), b"arrow_array_stream", None)

    def schema(self) -> _Schema:
        """A struct of nullable columns."""
        children = [
            _Schema(format=_INT64, name=name.encode(), flags=_NULLABLE, release=_release_schema)
            for name in self._names
        ]
        children += [_text_schema(name) for name in self._texts]
        pointers = _pointers(_Schema, children)
        return _Schema(
            format=_STRUCT,
            name=b"",
            n_children=len(children),
            children=pointers,
            release=_release_schema,
            private_data=_keep((children, pointers)),
        )

    def next_array(self) -> _Array:
        """The next batch; one without a release marks the end."""
        batch = next(self._batches, None)
        if batch is None:
            return _Array()
        columns, texts = batch
        kept = [_integers(columns[name]) for name in self._names]
        kept += [_same_text(text, kept[0][0].length) for text in texts]
        pointers = _pointers(_Array, [array for array, _ in kept])
        no_mask = _buffers(None)
        return _Array(
            length=kept[0][0].length,
            n_buffers=1,
            buffers=no_mask,
            n_children=len(kept),
            children=pointers,
            release=_release_array,
            private_data=_keep((kept, pointers, no_mask)),
        )


def _integers(column: Column) -> tuple[_Array, Any]:
    """One column, and what has to live as long as it."""
    values = np.ascontiguousarray(column.values, np.int64)
    mask = None if column.missing is None else np.packbits(~column.missing, bitorder="little")
    buffers = _buffers(mask, values)
    unknown = 0 if mask is None else -1
    return _Array(len(values), unknown, 0, 2, 0, buffers, release=_release_array), (values, mask, buffers)


def _text_schema(name: str) -> _Schema:
    texts = ctypes.pointer(_Schema(format=_TEXT, name=b"", release=_release_schema))
    return _Schema(format=_INT32, name=name.encode(), dictionary=texts, release=_release_schema)


def _same_text(text: str, length: int) -> tuple[_Array, Any]:
    """One text `length` times, as places in a dictionary of one."""
    places = np.zeros(length, np.int32)
    letters = np.frombuffer(text.encode() or b"\0", np.uint8)
    ends = np.array([0, len(text.encode())], np.int32)
    word, index = _buffers(None, ends, letters), _buffers(None, places)
    texts = _Array(1, 0, 0, 3, 0, word, release=_release_array)
    column = _Array(length, 0, 0, 2, 0, index, dictionary=ctypes.pointer(texts), release=_release_array)
    return column, (places, letters, ends, word, index, texts)


def _buffers(*arrays: npt.NDArray[Any] | None) -> Any:
    return (ctypes.c_void_p * len(arrays))(
        *(None if array is None else array.ctypes.data for array in arrays)
    )


def _pointers(kind: Any, structures: Sequence[Any]) -> Any:
    return (ctypes.POINTER(kind) * len(structures))(*map(ctypes.pointer, structures))


def _give_schema(stream: Any, out: Any) -> int:
    out[0] = _kept[stream.contents.private_data].schema()
    return 0


def _give_next(stream: Any, out: Any) -> int:
    """An exception cannot pass through DuckDB: it is kept, and an error number given."""
    owner = _kept[stream.contents.private_data]
    try:
        out[0] = owner.next_array()
    except BaseException as error:  # noqa: BLE001 -- raised again by whoever runs the query
        owner.failure = error
        return errno.EIO
    return 0


def _release(pointer: Any, nothing: Any) -> None:
    _kept.pop(pointer.contents.private_data, None)
    pointer.contents.release = nothing


_get_schema = _GetSchema(_give_schema)
_get_next = _GetNext(_give_next)
_get_last_error = _GetLastError(lambda stream: None)
_release_schema = _ReleaseSchema(lambda pointer: _release(pointer, _ReleaseSchema()))
_release_array = _ReleaseArray(lambda pointer: _release(pointer, _ReleaseArray()))
_release_stream = _ReleaseStream(lambda pointer: _release(pointer, _ReleaseStream()))
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
