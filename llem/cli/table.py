"""Rows as a table for people: numbers to the right, nothing cut off, no control characters."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llem.cli.console import printable
from llem.export import cells

PIPE_WIDTH = 100_000  # a pipe has no width: no line is folded


def write_table(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """One table; a pipe or a file gets the same without colour and unfolded."""
    kept = list(rows)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = any(_is_number(row[index]) for row in kept)
        table.add_column(Text(printable(name)), justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        table.add_row(*(Text(printable(cells.text(value))) for value in row))
    console_for(out).print(table)


def console_for(out: TextIO) -> Console:
    """Where tables are drawn: as wide as the terminal, unfolded elsewhere."""
    return Console(file=out, width=None if out.isatty() else PIPE_WIDTH, highlight=False, emoji=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
