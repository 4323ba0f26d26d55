"""Which experiments of which tables a statement can need, by DuckDB's own plan of it over tables without rows."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from llem.errors import QueryError
from llem.projections import database
from llem.projections.sealed import ROLLUP
from llem.query.process import Limits, Parameter, running
from llem.store import Store

# Of a table, the experiments whose rows are needed; None for all of them.
Scanned = dict[str, frozenset[str] | None]

_ID = r"'[\w.-]+'"
_EQUALS = rf"\(?experiment_id ?= ?{_ID}\)?"
# What a scan lets through, as DuckDB writes it; of any other condition nothing is concluded.
_ONLY_THESE = re.compile(
    rf"(?:optional: ?)?(?:{_EQUALS}|\(?experiment_id IN \({_ID}(?:, ?{_ID})*\)\)?|\(?{_EQUALS}(?: OR {_EQUALS})+\)?)",
    re.ASCII,
)


def open_empty() -> duckdb.DuckDBPyConnection:
    """All tables without rows; that of seconds too, which elsewhere than in Parquet is a view."""
    connection = database.in_memory()
    connection.execute(database.SCHEMA_SQL)
    connection.execute(f"CREATE TABLE seconds AS FROM {ROLLUP}; DROP VIEW {ROLLUP}")
    connection.execute(f"ALTER TABLE seconds RENAME TO {ROLLUP}")
    # it would conclude from the missing rows that nothing has to be read
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection


def scanned(
    sql: str, *, store: Store, parameters: Mapping[str, Parameter], factors: Path | None, limits: Limits
) -> Scanned:
    """What the statement scans; tables that are not named are not. Raises QueryError."""
    with running(
        sql, store=store, parameters=parameters, plan_only=True, factors=factors, limits=limits
    ) as result:
        rows = [text for _, text in result.rows()]
    try:
        return scans_of([node for text in rows for node in msgspec.json.decode(text)])
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise QueryError("the plan of the statement", found=f"{type(error).__name__}: {error}") from error


def scans_of(plan: list[dict[str, Any]]) -> Scanned:
    """The same, of a plan as DuckDB says it in JSON."""
    found: Scanned = {}
    for node in _nodes(plan):
        facts = node["extra_info"]
        if "Table" in facts:
            table = facts["Table"].rpartition(".")[2]
            chosen, before = _experiments(facts.get("Filters", [])), found.get(table, frozenset())
            found[table] = None if chosen is None or before is None else before | chosen
    return found


def _nodes(plan: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in plan:
        yield node
        yield from _nodes(node["children"])


def _experiments(filters: str | list[str]) -> frozenset[str] | None:
    """Those that all conditions of a scan let through; None where no condition names them."""
    conditions = filters.splitlines() if isinstance(filters, str) else filters
    # a text with a line break in it comes in pieces, one of which may look like a condition
    if any(condition.count("'") % 2 for condition in conditions):
        return None
    named = [
        frozenset(name.strip("'") for name in re.findall(_ID, condition, re.ASCII))
        for condition in conditions
        if _ONLY_THESE.fullmatch(condition)
    ]
    return frozenset.intersection(*named) if named else None
