"""Factors put where the macro footprint() looks for them: temporary tables of one connection, over the views of the same names."""

from collections.abc import Sequence

import duckdb
import msgspec

from llem.factors import Factor, Factors, Intensity


def state(connection: duckdb.DuckDBPyConnection, factors: Factors) -> None:
    """Let footprint() of this connection reckon with them; nothing is written."""
    _fill(connection, "factors", factors.stated, Factor)
    _fill(connection, "hourly_factors", factors.hourly, Intensity)


def _fill(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    rows: Sequence[msgspec.Struct],
    kind: type[msgspec.Struct],
) -> None:
    connection.execute(f"CREATE TEMP TABLE {table} AS FROM {table}")
    columns = [[getattr(row, name) for row in rows] for name in kind.__struct_fields__]
    connection.execute(f"INSERT INTO temp.{table} SELECT {', '.join(['unnest(?)'] * len(columns))}", columns)
