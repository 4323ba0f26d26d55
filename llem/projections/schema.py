"""The statements of schema.sql, with the comment behind every column and table made a comment in the database."""

import re
from collections.abc import Iterator
from importlib import resources

import duckdb

from llem.versions import tables_version

_CREATED = re.compile(r"CREATE (TABLE|VIEW) (\w+)(?: AS| \() -- (.+)")
_COLUMN = re.compile(r" {4}(\w+) .*? -- (.+)")
_VIEW = re.compile(r"CREATE VIEW (\w+) AS(.*?);\n", re.DOTALL)
_BASE = re.compile(r"(?:FROM|JOIN) (\w+)")
_VIEW_COLUMN = re.compile(r"-- (\w+): (.+)")

SCHEMA_SQL = resources.files("llem.projections").joinpath("schema.sql").read_text("utf-8")
VERSION = tables_version()


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make empty tables, views and macros, and say which code they belong to."""
    connection.execute("BEGIN")
    connection.execute(SCHEMA_SQL)
    for statement in comments(SCHEMA_SQL):
        connection.execute(statement)
    for statement in _comments_of_views(connection):
        connection.execute(statement)
    connection.execute("INSERT INTO projection VALUES (?, ?, ?)", VERSION)
    connection.execute("COMMIT")


def comments(sql: str) -> Iterator[str]:
    """One COMMENT statement per line of `sql` that creates a table, a view or a column and says what it is."""
    table = ""
    for line in sql.splitlines():
        if created := _CREATED.match(line):
            kind, table, text = created.groups()
            yield f"COMMENT ON {kind} {table} IS {_quoted(text)}"
        elif column := _COLUMN.match(line) or _VIEW_COLUMN.match(line):
            name, text = column.groups()
            yield f"COMMENT ON COLUMN {table}.{name} IS {_quoted(text)}"


def _comments_of_views(connection: duckdb.DuckDBPyConnection) -> Iterator[str]:
    """A view's column that says nothing of itself is that of the first table in the view's FROM that has it."""
    for view, body in _VIEW.findall(SCHEMA_SQL):
        rows = connection.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        )
        said = {(table, column): comment for table, column, comment in rows.fetchall()}
        bases = _BASE.findall(body)
        for table, column in said:
            known = [text for base in bases if (text := said.get((base, column))) is not None]
            if table == view and said[table, column] is None and known:
                yield f"COMMENT ON COLUMN {view}.{column} IS {_quoted(known[0])}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
