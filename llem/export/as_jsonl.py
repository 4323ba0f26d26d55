"""Rows as JSON lines: one object a line."""

from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from llem.export import formats


def write(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """One line per row."""
    write_objects(out, (dict(zip(columns, row, strict=True)) for row in rows))


def write_objects(out: TextIO, objects: Iterable[Any]) -> None:
    """One line per object."""
    out.writelines(formats.as_json(found).decode() + "\n" for found in objects)
