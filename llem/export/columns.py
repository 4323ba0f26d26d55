"""A table for export: columns that depend on the kind of record, never on the data."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints

import msgspec

ColumnType = Literal["VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ"]
Record = TypeVar("Record")
_TYPES: dict[type, ColumnType] = {
    str: "VARCHAR",
    int: "BIGINT",
    float: "DOUBLE",
    bool: "BOOLEAN",
    datetime: "TIMESTAMPTZ",
}


class Column(msgspec.Struct, Generic[Record], frozen=True):
    """A column by name, DuckDB type, and how its value is found in a record."""

    name: str
    type: ColumnType
    value_of: Callable[[Record], Any]


def rows(columns: Sequence[Column[Record]], records: Iterable[Record]) -> Iterator[list[Any]]:
    """One row per record."""
    return ([column.value_of(record) for column in columns] for record in records)


def flattened(kind: type[msgspec.Struct], path: tuple[str, ...] = ()) -> Iterator[Column[Any]]:
    """A column for every field, those of nested records prefixed with its name; lists and maps stay in one cell."""
    hints = get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        here = (*path, field.name)
        declared = _without_none(hints[field.name])
        if isinstance(declared, type) and issubclass(declared, msgspec.Struct):
            yield from flattened(declared, here)
        else:
            yield Column("_".join(here), _column_type(declared), partial(follow, here))


def follow(path: Sequence[str], record: Any) -> Any:
    """The value at a path of fields; None where the path ends early."""
    for name in path:
        if record is None:
            return None
        record = getattr(record, name)
    return record


def _without_none(declared: Any) -> Any:
    options = get_args(declared)
    kept = [option for option in options if option is not NoneType]
    return kept[0] if NoneType in options and len(kept) == 1 else declared


def _column_type(declared: Any) -> ColumnType:
    return _TYPES.get(declared, "VARCHAR")
