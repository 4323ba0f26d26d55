"""Rows held in memory: as tables of a notebook, as text, and as those of other libraries."""

import html
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from llem.errors import MissingExtraError
from llem.query.types import Kind, arrow_type, of_column, pandas_dtype, polars_type, taken

ROWS_DRAWN = 50  # in a notebook, and as text
COLUMNS_NAMED = 8
TEXT_WIDTH = 40  # of a cell as text
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))}


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a query: tuples in the order of `columns`, whose DuckDB types are `types`."""

    columns: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    truncated: bool = False  # whether a limit left rows out
    notes: list[str] = []  # what a reader has to know before

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def __repr__(self) -> str:
        """How much there is, not all of it."""
        named = ", ".join(self.columns[:COLUMNS_NAMED]) + (", …" if len(self.columns) > COLUMNS_NAMED else "")
        cut = ", cut by a limit" if self.truncated else ""
        return f"<QueryResult: {len(self.rows)} rows of {len(self.columns)} columns ({named}){cut}>"

    def __str__(self) -> str:
        """The first rows as a table of text, for `print`."""
        return "\n".join([*map(printable, self.notes), *_aligned(self.columns, self._drawn()), *self._left()])

    def _repr_html_(self) -> str:
        """The first rows as a table, for notebooks; nothing of the data is markup."""
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            notes
            + html_table(self.columns, self._drawn())
            + "".join(f"<p>{line}</p>" for line in self._left())
        )

    def _drawn(self) -> Sequence[tuple[Any, ...]]:
        return self.rows[:ROWS_DRAWN]

    def _left(self) -> Iterator[str]:
        if (left := len(self.rows) - ROWS_DRAWN) > 0:
            yield f"and {left} more rows"

    def dicts(self) -> list[dict[str, Any]]:
        """One dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def df(self) -> Any:
        """A pandas DataFrame; integers with NULL among them stay integers. Raises MissingExtraError."""
        pandas = _library("pandas")
        columns = [pandas.Series(values, dtype=pandas_dtype(kind)) for kind, values in self._typed()]
        frame = pandas.DataFrame(dict(enumerate(columns)))
        frame.columns = self.columns
        return frame

    def pl(self) -> Any:
        """A polars DataFrame; a map is a list of its keys and values. Raises MissingExtraError."""
        polars = _library("polars")
        series = [
            polars.Series(
                name,
                [taken(value, kind, pairs=False) for value in values],
                polars_type(kind, polars),
            )
            for name, (kind, values) in zip(self.columns, self._typed(), strict=True)
        ]
        return polars.DataFrame(series)

    def arrow(self) -> Any:
        """A pyarrow Table. Raises MissingExtraError."""
        pyarrow = _library("pyarrow")
        arrays = [
            pyarrow.array([taken(value, kind, pairs=True) for value in values], arrow_type(kind, pyarrow))
            for kind, values in self._typed()
        ]
        return pyarrow.table(arrays, names=self.columns)

    def _typed(self) -> Iterator[tuple[Kind, Sequence[Any]]]:
        """Type and values of each column."""
        values = list(zip(*self.rows, strict=True)) if self.rows else [() for _ in self.columns]
        for written, column in zip(self.types, values, strict=True):
            yield of_column(written, column), column


def html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows as markup, with none in the cells."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{_html_cells(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_cells(row: Sequence[Any]) -> str:
    return "".join(f"<td>{html.escape(_text(cell))}</td>" for cell in row)


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    cells = [[printable(name) for name in columns], *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    text = printable(_text(value))
    return text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 1] + "…"


def _text(value: Any) -> str:
    """For people: six digits of a figure, and all before the point; nothing for NULL."""
    if isinstance(value, float):
        rounded = f"{value:.6g}"
        return f"{value:.0f}" if "e" in rounded and 1e5 < abs(value) < 1e9 else rounded
    return "" if value is None else str(value)


def printable(text: str) -> str:
    """On one line, and without what drives a terminal."""
    return text.translate(_CONTROL)


def _library(name: str) -> Any:
    """The one place where these are loaded: none of them is a dependency."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name} is not installed", hint=f"pip install {name}") from error
