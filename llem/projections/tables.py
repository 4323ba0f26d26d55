"""Rows of plain Python values into tables, quickly and with their NULLs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import msgspec

from llem.projections.progress import Course

Row = Mapping[str, Any]
Rows = list[dict[str, Any]]
MAX_ROWS = 2_000  # per statement; bounds the size of the JSON text


class Tables:
    """The tables of one open projection.

    Rows travel as one JSON text per statement: `executemany` is a thousand times slower, and registered object
    columns lose NULLs or take minutes with the oldest supported duckdb.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.course = Course()
        self._types: dict[str, dict[str, str]] = {}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the body did, or nothing of it."""
        self.connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        """Append rows; a column that a row does not name is NULL."""
        if not rows:
            return
        types = self.types(table)
        fields = ", ".join(f'"{column}" {kind}' for column, kind in types.items())
        for portion in _parts(rows):
            whole = [{column: row.get(column) for column in types} for row in portion]
            self.connection.execute(
                f"INSERT INTO {table} BY NAME SELECT unnest(?::JSON::STRUCT({fields})[], max_depth := 2)",
                [msgspec.json.encode(whole).decode()],
            )

    def delete_experiments(self, table: str, experiment_ids: Sequence[str]) -> None:
        """Remove all rows of some experiments."""
        self.connection.execute(
            f"DELETE FROM {table} WHERE experiment_id IN (SELECT unnest(?::VARCHAR[]))",
            [list(experiment_ids)],
        )

    def types(self, table: str) -> Mapping[str, str]:
        """Column name -> type."""
        if table not in self._types:
            described = self.connection.execute(f"DESCRIBE {table}").fetchall()
            self._types[table] = {name: kind for name, kind, *_ in described}
        return self._types[table]


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), MAX_ROWS):
        yield rows[start : start + MAX_ROWS]
