"""Rows for people where a table is too wide: one column a line."""

from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from llem.cli.console import on_one_line
from llem.export import formats


def write_lines(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Each column's name and value, whole, on a line of their own; an empty line between two rows."""
    heads = [on_one_line(name) for name in columns]
    width = max(map(len, heads), default=0)
    between = ""
    for row in rows:
        out.write(between)
        out.writelines(_line(head, cell, width) for head, cell in zip(heads, row, strict=True))
        between = "\n"


def _line(head: str, cell: Any, width: int) -> str:
    return f"{head:<{width}}  {on_one_line(formats.text(cell))}".rstrip() + "\n"
