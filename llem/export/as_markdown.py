"""Rows as a Markdown table."""

from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from llem.export import formats


def write(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A header, a rule and the rows; the cells are not padded, so that rows can be written as they come."""
    out.write(_line(columns))
    out.write("|" + " --- |" * len(columns) + "\n")
    out.writelines(_line(row) for row in rows)


def _line(row: Sequence[Any]) -> str:
    return "| " + " | ".join(_escaped(formats.text(value)) for value in row) + " |\n"


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").splitlines())
