"""A result held in memory, and as a table of other libraries where they are installed."""

import html
import importlib
from collections.abc import Iterator
from typing import Any

import msgspec

from llem.errors import MissingExtraError

ROWS_DRAWN = 50  # of a result in a notebook
COLUMNS_NAMED = 8


class QueryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of a query: tuples in the order of `columns`, whose DuckDB types are `types`."""

    columns: list[str]
    types: list[str]
    rows: list[tuple[Any, ...]]
    truncated: bool = False  # whether a limit left rows out

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def __repr__(self) -> str:
        """How much there is, not all of it."""
        named = ", ".join(self.columns[:COLUMNS_NAMED]) + (", …" if len(self.columns) > COLUMNS_NAMED else "")
        cut = ", cut by a limit" if self.truncated else ""
        return f"<QueryResult: {len(self.rows)} rows of {len(self.columns)} columns ({named}){cut}>"

    def _repr_html_(self) -> str:
        """The first rows as a table, for notebooks."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(f"<tr>{_html_cells(row)}</tr>" for row in self.rows[:ROWS_DRAWN])
        left = len(self.rows) - ROWS_DRAWN
        more = f"<p>and {left} more rows</p>" if left > 0 else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"

    def dicts(self) -> list[dict[str, Any]]:
        """One dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def df(self) -> Any:
        """A pandas DataFrame. Raises MissingExtraError."""
        return _library("pandas").DataFrame.from_records(self.rows, columns=self.columns)

    def pl(self) -> Any:
        """A polars DataFrame. Raises MissingExtraError."""
        polars = _library("polars")
        return polars.DataFrame(self.rows, schema=self.columns, orient="row", infer_schema_length=None)

    def arrow(self) -> Any:
        """A pyarrow Table. Raises MissingExtraError."""
        pyarrow = _library("pyarrow")
        values = zip(*self.rows, strict=True) if self.rows else ([] for _ in self.columns)
        return pyarrow.table([pyarrow.array(list(column)) for column in values], names=self.columns)


def _html_cells(row: tuple[Any, ...]) -> str:
    return "".join(f"<td>{'' if cell is None else html.escape(str(cell))}</td>" for cell in row)


def _library(name: str) -> Any:
    """The one place where these are loaded: none of them is a dependency."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name} is not installed", hint=f"pip install {name}") from error
