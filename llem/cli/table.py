"""Rows for people: a table as wide as the terminal, or one column a line where that is too wide; what does not fit is said."""

import sys
import textwrap
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
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


def write_table(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, instead: str) -> None:
    """One table; a pipe or a file gets the same without colour and unfolded. `instead` shows what did not fit."""
    kept = list(rows)
    if not kept:
        note("llem: no rows")
        return
    texts = [[on_one_line(formats.text(cell)) for cell in row] for row in kept]
    heads = [on_one_line(name) for name in columns]
    natural = [max(map(cell_len, (head, *(row[place] for row in texts)))) for place, head in enumerate(heads)]
    least = [
        _least([head, *(row[place] for row in texts)], natural[place]) for place, head in enumerate(heads)
    ]
    console = console_for(out)
    widths = fitted(natural, least, console.width)
    table = plain_table()
    for place, width in enumerate(widths):
        numeric = any(_is_number(row[place]) for row in kept)
        table.add_column(
            Text(heads[place]),
            justify="right" if numeric else "left",
            width=width,
            no_wrap=width == natural[place],
            overflow="fold",
        )
    is_cut = False
    for row in texts:
        shown = [_cut(text, width) for text, width in zip(row, widths, strict=False)]
        is_cut = is_cut or shown != row[: len(widths)]
        table.add_row(*map(Text, shown))
    draw(console, table)
    _say_what_is_missing(heads[len(widths) :], is_cut=is_cut, instead=instead)


def draw(console: Console, table: Table) -> None:
    """The table; where no terminal needs them, without spaces at the ends of lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as drawn:
        console.print(table)
    console.file.writelines(line.rstrip() + "\n" for line in drawn.get().splitlines())


def plain_table() -> Table:
    """A table with a rule below its heads and nothing else around it."""
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))


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
