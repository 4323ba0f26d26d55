"""Rows of Python objects into a table, column by column: numbers and texts as they are, everything else as JSON."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import duckdb
import msgspec

from llem.projections.arrow_stream import ArrowStream, Cells, doubles, integers, lists, texts

Row = Mapping[str, Any]
Make = Callable[[Sequence[Any]], Cells]
# Type of a column -> the types that its cells may all be, beside None, to go as they are, and how they go.
_PLAIN: Mapping[str, tuple[tuple[type, ...], Make]] = {
    "BIGINT": ((int,), integers),
    "INTEGER": ((int,), integers),
    "SMALLINT": ((int,), integers),
    "BOOLEAN": ((bool,), integers),
    "DOUBLE": ((float, int), doubles),
    "TIMESTAMP": ((str,), texts),
    "BIGINT[]": ((list,), lists),
}
_VIEW = "appended_rows"


class Batch(NamedTuple):
    """Rows in columns of cells, and what each column of the table is in terms of these."""

    cells: Mapping[str, Cells]
    selected: Mapping[str, str]


def batch(rows: Sequence[Row], types: Mapping[str, str]) -> Batch:
    """Rows for the columns named in `types`; one that a row does not name is NULL."""
    return of_columns(_columns(rows, list(types)), types)


def of_columns(values: Mapping[str, Sequence[Any]], types: Mapping[str, str]) -> Batch:
    """The same from the values of each column."""
    columns = {name: _column(values[name], kind) for name, kind in types.items()}
    return Batch(
        {name: cells for name, (cells, _) in columns.items() if cells is not None},
        {name: expression.format(f'"{name}"') for name, (_, expression) in columns.items()},
    )


def _columns(rows: Sequence[Row], names: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """The values of each name, None in a row that has it not."""
    try:
        every = zip(*map(itemgetter(*names, names[0]), rows), strict=True)
    except KeyError:
        return {name: [row.get(name) for row in rows] for name in names}
    return dict(zip(names, every, strict=False))


def insert(connection: duckdb.DuckDBPyConnection, table: str, batches: Sequence[Batch]) -> None:
    """Insert batches, in order. Raises duckdb.Error for what no column holds."""
    for selected, group in groupby(batches, key=attrgetter("selected")):
        alike = [batch.cells for batch in group]
        chosen = ", ".join(f'{expression} AS "{name}"' for name, expression in selected.items())
        kinds = {name: cells.schema for name, cells in alike[0].items()}
        with ArrowStream(kinds, alike) as rows:
            connection.register(_VIEW, rows)
            connection.execute(f"INSERT INTO {table} BY NAME SELECT {chosen} FROM {_VIEW}")
        connection.unregister(_VIEW)


def _column(values: Sequence[Any], kind: str) -> tuple[Cells | None, str]:
    """The cells of a column, if it has any, and how the table's value is made of a cell."""
    found = set(map(type, values)) - {type(None)}
    if not found:
        return None, "NULL"
    if kind == "VARCHAR":
        return texts(values if found == {str} else list(map(_text, values))), "{}"
    plain, make = _PLAIN.get(kind, ((), texts))
    if found <= set(plain):
        try:
            return make(values), "{}"
        except OverflowError:
            pass  # DuckDB says which value it is
    return texts(list(map(_json, values))), f"{{}}::JSON::{kind}"


def _text(value: Any) -> str | bytes | None:
    """A text as it is, anything else as its JSON."""
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> bytes | None:
    """As JSON; what is JSON already stays it."""
    if value is None:
        return None
    return bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
