"""Rows as one JSON array with an object per row."""

from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from llem.export import formats


def write(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The array, one row a line."""
    write_objects(out, (dict(zip(columns, row, strict=True)) for row in rows))


def write_objects(out: TextIO, objects: Iterable[Any]) -> None:
    """An array of any objects, one a line."""
    separator = "["
    for found in objects:
        out.write(f"{separator}\n{formats.as_json(found).decode()}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")
