"""Statements that ship with llem, one .sql file each; the catalog of what there is to ask; parameters from the command line, typed by how they are written."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from llem.errors import QueryError
from llem.query import messages
from llem.query.process import Parameter

_FOLDER = Path(__file__).parents[1] / "queries"
CATALOG = """
SELECT table_name AS "table", column_name AS "column",
       regexp_extract(comment, '^\\[([^]]*)\\]', 1) AS unit, regexp_replace(comment, '^\\[[^]]*\\] *', '') AS meaning, data_type AS type
FROM duckdb_columns() WHERE NOT internal AND database_name <> 'temp' ORDER BY table_oid, column_index
"""
SCHEMA = """
SELECT column_name AS "column", regexp_extract(comment, '^\\[([^]]*)\\]', 1) AS unit,
       regexp_replace(comment, '^\\[[^]]*\\] *', '') AS meaning, data_type AS type
FROM duckdb_columns() WHERE NOT internal AND database_name <> 'temp' AND lower(table_name) = lower($table) ORDER BY column_index
"""
TABLES = """
SELECT table_name AS name, 'table' AS kind, comment AS meaning FROM duckdb_tables() WHERE NOT internal AND database_name <> 'temp'
UNION ALL SELECT view_name, 'view', comment FROM duckdb_views() WHERE NOT internal AND database_name <> 'temp'
UNION ALL SELECT function_name, 'macro', '(' || array_to_string(parameters, ', ') || ') ' || comment FROM duckdb_functions() WHERE NOT internal
ORDER BY kind = 'macro', name
"""
_TABLE_NAME = re.compile(r"\s*[A-Za-z_][A-Za-z0-9_]*\s*;?\s*")
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*)")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")
_MAX_DIGITS = 40
_WORDS: dict[str, Parameter] = {"true": True, "false": False, "null": None}


class SavedQuery(msgspec.Struct, frozen=True):
    """A query by name."""

    name: str
    description: str
    sql: str


def saved_queries() -> list[SavedQuery]:
    """All of them, by name."""
    return [_load(path) for path in sorted(_FOLDER.glob("*.sql"))]


def saved_query(name: str) -> SavedQuery:
    """The query of that name. Raises QueryError."""
    known = {query.name: query for query in saved_queries()}
    if name not in known:
        raise QueryError("no such saved query", found=name, expected=", ".join(known))
    return known[name]


def _load(path: Path) -> SavedQuery:
    sql = path.read_text(encoding="utf-8")
    return SavedQuery(path.stem, sql.partition("\n")[0].removeprefix("--").strip(), sql)


def statement(written: str) -> str:
    """The statement; the name of a table alone stands for all of its rows."""
    return f"FROM {written}" if _TABLE_NAME.fullmatch(written) else written


def parse_parameters(options: Sequence[str]) -> dict[str, Parameter]:
    """name=value pairs: 5 is a number, 1e3 too, true a truth value, null NULL, '5' or anything else text."""
    parameters: dict[str, Parameter] = {}
    for option in options:
        name, equals, written = option.partition("=")
        if not equals or not name.isidentifier():
            raise QueryError("parameter", found=repr(option), expected="name=value")
        parameters[name] = _typed(written)
    return parameters


def _typed(written: str) -> Parameter:
    if written.lower() in _WORDS:
        return _WORDS[written.lower()]
    if _INTEGER.fullmatch(written):
        return _whole(written)
    if _FLOAT.fullmatch(written):
        return float(written)
    quoted = len(written) > 1 and written[0] == written[-1] and written[0] in "'\""
    return written[1:-1] if quoted else written


def _whole(written: str) -> int:
    # no longer than can be counted: Python refuses to read thousands of digits
    if len(written) > _MAX_DIGITS or not messages.SMALLEST <= int(written) <= messages.LARGEST:
        raise QueryError(
            "parameter",
            found=written[:_MAX_DIGITS],
            expected="a whole number of 64 bits",
            hint="give a larger one as a text in quotes, and cast it in the SQL: $name::HUGEINT",
        )
    return int(written)
