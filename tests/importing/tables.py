"""The tables of a store, asked without a process for each question."""

from collections.abc import Sequence
from typing import Any

from llem.projections import catch_up, database
from llem.store import Store

Row = dict[str, Any]


def rows(store: Store, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Of a statement, by the names of its columns."""
    report = catch_up(store)
    assert not report.refused, report.refused
    with database.connect(store.projections_path, read_only=True) as connection:
        found = connection.execute(sql, list(parameters))
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def values(store: Store, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The same without names."""
    return [tuple(row.values()) for row in rows(store, sql, parameters)]
