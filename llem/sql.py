"""Values and names as they stand in a statement of SQL, where it takes no parameters, and rows by the names of their columns."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb


def literal(value: str | float | Sequence[str] | None) -> str:
    """A text, a number, a truth value, NULL, or a list of texts."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case str():
            return "'" + value.replace("'", "''") + "'"
        case int() | float():
            return str(value)
    return "[" + ", ".join(map(literal, value)) + "]"


def identifier(name: str) -> str:
    """A name, however it is spelled."""
    return '"' + name.replace('"', '""') + '"'


def disk_reason(error: Exception) -> str:
    """Why a file could not be written, in the last words of what DuckDB says, which it may wrap in JSON."""
    text = str(error)
    if wrapped := re.search(r'"exception_message":"((?:[^"\\]|\\.)*)"', text):
        text = wrapped[1].replace('\\"', '"')
    return text.rpartition('": ')[2]


def rows_by_name(cursor: "duckdb.DuckDBPyConnection") -> list[dict[str, Any]]:
    """All rows that a statement gives, each value under its column's name."""
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
