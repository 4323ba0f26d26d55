"""Batches of columns, of numbers, texts and lists, as an Arrow C stream.

DuckDB reads it without a copy and without pyarrow.
The structures and their rules are those of https://arrow.apache.org/docs/format/CDataInterface.html and CStreamInterface.html.
"""

import ctypes
import errno
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from llem_events.columns import Column

_INT64, _INT32, _DOUBLE, _TEXT, _STRUCT, _LIST = b"l", b"i", b"g", b"u", b"+s", b"+l"
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
_counter = itertools.count(1)


def _keep(owner: Any) -> int:
    number = next(_counter)
    _kept[number] = owner
    return number


class Cells(NamedTuple):
    """A column of a batch: what it is, its cells, and what has to live as long as they."""

    schema: _Schema
    array: _Array
    kept: Any


class ArrowStream:
    """Register one with DuckDB and select from it once; `batches` are pulled as the query goes on, by its threads.

    A batch has cells for each of `columns`, of the kind that stands there and all of one length; they may be used again.
    What `batches` raises ends the query; it is kept in `failure` for the query's caller to raise.
    """

    def __init__(self, columns: Mapping[str, _Schema], batches: Iterable[Mapping[str, Cells]]) -> None:
        self._columns, self._batches = columns, iter(batches)
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
        return _struct_schema([_named(kind, name) for name, kind in self._columns.items()])

    def next_array(self) -> _Array:
        """The next batch; one without a release marks the end."""
        batch = next(self._batches, None)
        return _Array() if batch is None else _struct_array([batch[name] for name in self._columns])


def integers(values: Sequence[int | None]) -> Cells:
    """64-bit integers. Raises OverflowError for larger ones."""
    try:
        return _numbers(np.array(values, np.int64), None, INTEGERS)
    except TypeError:  # None is no number
        missing = np.array([value is None for value in values])
        filled = np.array([0 if value is None else value for value in values], np.int64)
        return _numbers(filled, missing, INTEGERS)


def doubles(values: Sequence[float | None]) -> Cells:
    """Floating-point numbers; what is none, or infinite, is NULL."""
    filled = np.array(values, np.float64)
    return _numbers(filled, ~np.isfinite(filled), DOUBLES)


def measured(column: Column) -> Cells:
    """Integers that are in a column already."""
    return _numbers(np.ascontiguousarray(column.values, np.int64), column.missing, INTEGERS)


def texts(values: Sequence[str | bytes | None]) -> Cells:
    """Texts, or their UTF-8."""
    letters = [value.encode() if isinstance(value, str) else value or b"" for value in values]
    ends = _ends([len(word) for word in letters])
    joined = np.frombuffer(b"".join(letters) or b"\0", np.uint8)
    mask = _mask([value is None for value in values])
    buffers = _buffers(mask, ends, joined)
    array = _Array(len(values), _unknown(mask), 0, 3, 0, buffers, release=_release_array)
    return Cells(_schema_of(_TEXT), array, (mask, ends, joined, buffers))


def repeated(words: Sequence[str], counts: Sequence[int]) -> Cells:
    """Each text so many times, as places in a dictionary."""
    places = np.repeat(np.arange(len(words), dtype=np.int32), counts)
    dictionary = texts(words)
    index = _buffers(None, places)
    array = _Array(len(places), 0, 0, 2, 0, index, release=_release_array)
    array.dictionary = ctypes.pointer(dictionary.array)
    return Cells(WORDS, array, (places, dictionary, index))


def lists(values: Sequence[Sequence[int | None] | None]) -> Cells:
    """Lists of 64-bit integers."""
    mask = _mask([value is None for value in values])
    every = [value or () for value in values]
    items, ends = integers(list(itertools.chain.from_iterable(every))), _ends(list(map(len, every)))
    buffers, children = _buffers(mask, ends), _pointers(_Array, [items.array])
    array = _Array(len(values), _unknown(mask), 0, 2, 1, buffers, children=children, release=_release_array)
    inner = _pointers(_Schema, [_named(items.schema, "item")])
    schema = _schema_of(_LIST, n_children=1, children=inner)
    return Cells(schema, array, (items, ends, mask, buffers, children, inner))


def _numbers(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_] | None, schema: _Schema) -> Cells:
    mask = None if missing is None else _mask(missing)
    buffers = _buffers(mask, values)
    array = _Array(len(values), _unknown(mask), 0, 2, 0, buffers, release=_release_array)
    return Cells(schema, array, (values, mask, buffers))


def _ends(lengths: Sequence[int]) -> npt.NDArray[np.int32]:
    return np.cumsum([0, *lengths], dtype=np.int64).astype(np.int32)


def _mask(missing: npt.ArrayLike) -> npt.NDArray[np.uint8] | None:
    known = ~np.asarray(missing, np.bool_)
    return None if known.all() else np.packbits(known, bitorder="little")


def _unknown(mask: npt.NDArray[np.uint8] | None) -> int:
    """The number of NULLs, as far as it is known."""
    return 0 if mask is None else -1


def _struct_schema(children: Sequence[_Schema]) -> _Schema:
    pointers = _pointers(_Schema, children)
    return _Schema(
        format=_STRUCT,
        name=b"",
        n_children=len(children),
        children=pointers,
        release=_release_schema,
        private_data=_keep((children, pointers)),
    )


def _struct_array(columns: Sequence[Cells]) -> _Array:
    pointers = _pointers(_Array, [cells.array for cells in columns])
    no_mask = _buffers(None)
    return _Array(
        length=columns[0].array.length,
        n_buffers=1,
        buffers=no_mask,
        n_children=len(columns),
        children=pointers,
        release=_release_array,
        private_data=_keep((columns, pointers, no_mask)),
    )


def _schema_of(form: bytes, **fields: Any) -> _Schema:
    return _Schema(**{"format": form, "name": b"", "flags": _NULLABLE, "release": _release_schema} | fields)


def _named(schema: _Schema, name: str) -> _Schema:
    """A copy: whoever takes a schema releases it, and DuckDB takes each of them twice."""
    fields = {field: getattr(schema, field) for field in ("n_children", "children", "dictionary")}
    return _schema_of(schema.format, name=name.encode(), **fields)


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

# Kinds of columns whose batches are not there yet when DuckDB asks what they are.
INTEGERS, DOUBLES = _schema_of(_INT64), _schema_of(_DOUBLE)
WORDS = _schema_of(_INT32, dictionary=ctypes.pointer(_schema_of(_TEXT)))
