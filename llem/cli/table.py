"""Rows for people: a table as wide as the terminal, or one column a line where that is too wide; what does not fit is said."""

import itertools
import sys
import textwrap
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from llem.cli.console import columns_of, counted, note, on_one_line
from llem.export import formats

PIPE_WIDTH = 100_000  # a pipe has no width: no line is folded
WHOLE_WIDTH = 32  # a column of single words of so many characters, such as ids, is never folded
WORD_WIDTH = 16  # others are folded, down to their longest word or to so many characters
FOLDED_WIDTH = 12
FOLDED_LINES = 6  # and cut after so many lines
GAP = 2
LEFT_OUT_SHOWN = 6


class _Cells(NamedTuple):
    """The texts of a table, and how wide and which way each column is."""

    heads: list[str]
    rows: list[list[str]]
    widths: list[int]  # of the columns that have room
    natural: list[int]
    numeric: list[bool]
    is_cut: bool


def write_table(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, instead: str) -> None:
    """One table; a pipe or a file gets the same without colour and unfolded. `instead` shows what did not fit."""
    kept = list(rows)
    if not kept:
        note("llem: no rows")
        return
    console = console_for(out)
    cells = _fitted_cells(columns, kept, console.width)
    draw(console, _table(cells, cells.rows))
    _say_what_is_missing(cells.heads[len(cells.widths) :], is_cut=cells.is_cut, instead=instead)


def write_sections(
    out: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]], *, instead: str
) -> None:
    """The same, with the first column's text on a line of its own above the rows that have it."""
    console = console_for(out)
    cells = _fitted_cells(["", *columns[2:]], [["  " + row[1], *row[2:]] for row in rows], console.width)
    drawn: list[Table | Text] = [_table(cells, [])]
    places = enumerate(row[0] for row in rows)
    for name, section in itertools.groupby(places, key=lambda place: place[1]):
        shown = [cells.rows[place] for place, _ in section]
        drawn += [Text(on_one_line(name), style="bold"), _table(cells, shown, show_header=False)]
    draw(console, *drawn)
    _say_what_is_missing(cells.heads[len(cells.widths) :], is_cut=cells.is_cut, instead=instead)


def fits(out: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether no text would have to be folded."""
    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    return sum(widths) + GAP * (len(widths) - 1) <= console_for(out).width


def _fitted_cells(columns: Sequence[str], rows: Sequence[Sequence[Any]], room: int) -> _Cells:
    heads = [on_one_line(name) for name in columns]
    texts = [[on_one_line(formats.text(cell)) for cell in row] for row in rows]
    members = [[head, *(row[place] for row in texts)] for place, head in enumerate(heads)]
    natural = [max(map(cell_len, column)) for column in members]
    least = [_least(column, width) for column, width in zip(members, natural, strict=True)]
    widths = fitted(natural, least, room)
    shown = [[_cut(text, width) for text, width in zip(row, widths, strict=False)] for row in texts]
    is_cut = shown != [row[: len(widths)] for row in texts]
    numeric = [any(_is_number(row[place]) for row in rows) for place in range(len(heads))]
    return _Cells(heads, shown, widths, natural, numeric, is_cut)


def _table(cells: _Cells, rows: Sequence[Sequence[str]], *, show_header: bool = True) -> Table:
    table = plain_table(show_header=show_header)
    for place, width in enumerate(cells.widths):
        table.add_column(
            Text(cells.heads[place]),
            justify="right" if cells.numeric[place] else "left",
            width=width,
            no_wrap=width == cells.natural[place],
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def draw(console: Console, *parts: Table | Text) -> None:
    """One below the other; where no terminal needs them, without spaces at the ends of lines."""
    if console.is_terminal:
        console.print(Group(*parts))
        return
    with console.capture() as drawn:
        console.print(Group(*parts))
    console.file.writelines(line.rstrip() + "\n" for line in drawn.get().splitlines())


def plain_table(*, show_header: bool = True) -> Table:
    """A table with a rule below its heads and nothing else around it."""
    return Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_header=show_header
    )


def console_for(out: TextIO) -> Console:
    """Where tables are drawn: as wide as the terminal, unfolded elsewhere."""
    width = columns_of(out) if out.isatty() else PIPE_WIDTH
    return Console(file=out, width=width, highlight=False, emoji=False)


def fitted(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """The widths of the columns that fit, from the first on; texts give way down to `least`, so that more columns fit."""
    widths: list[int] = []
    left = room + GAP
    for width in least:
        if left < width + GAP:
            break
        widths.append(width)
        left -= width + GAP
    widths = widths or [min(natural[0], room)]
    for place in sorted(range(len(widths)), key=lambda place: natural[place]):
        grown = min(natural[place] - widths[place], max(left, 0))
        widths[place] += grown
        left -= grown
    return widths


def _least(texts: Sequence[str], natural: int) -> int:
    """How narrow a column may become: not at all where it holds single words, such as ids, of a usual length."""
    longest = max(cell_len(word) for text in texts for word in text.split() or [""])
    if longest == natural <= WHOLE_WIDTH:
        return natural
    return min(natural, max(FOLDED_WIDTH, min(longest, WORD_WIDTH)))


def _cut(text: str, width: int) -> str:
    room = width * FOLDED_LINES
    return text if len(text) <= room else text[: room - 1] + "…"


def _say_what_is_missing(columns: Sequence[str], *, is_cut: bool, instead: str) -> None:
    if columns:
        named = ", ".join(columns[:LEFT_OUT_SHOWN])
        more = f" and {len(columns) - LEFT_OUT_SHOWN} more" if len(columns) > LEFT_OUT_SHOWN else ""
        note(f"llem: no room for {counted(len(columns), 'column')}: {named}{more}; {instead} shows them")
    elif is_cut:
        note(f"llem: texts that end in … are longer; {instead} shows them whole")


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)


def write_lines(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Each column's name and value, whole, on a line of their own; an empty line between two rows. A terminal gets no word broken."""
    heads = [on_one_line(name) for name in columns]
    width = max(map(len, heads), default=0)
    room = max(columns_of(sys.stdout) - width - GAP, FOLDED_WIDTH) if out.isatty() else None
    between = ""
    for row in rows:
        out.write(between)
        out.writelines(_line(head, cell, width, room) for head, cell in zip(heads, row, strict=True))
        between = "\n"


def _line(head: str, cell: Any, width: int, room: int | None) -> str:
    text = on_one_line(formats.text(cell))
    if room is not None and len(text) > room:
        parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
        text = f"\n{'':<{width}}  ".join(parts)
    return f"{head:<{width}}  {text}".rstrip() + "\n"
