"""Bringing the tables up to the log before a query, and what the user is told about it."""

from collections.abc import Callable

import duckdb

from llem.projections import catch_up, open_readonly
from llem.store import Store


def open_caught_up(store: Store, notify: Callable[[str], None]) -> duckdb.DuckDBPyConnection:
    """The tables, read-only, with everything in them that the log holds, or a line about what is missing."""
    report = catch_up(store)
    if report.rebuilt is not None:
        notify(f"llem: built the tables from the log: {report.rebuilt}")
    for refusal in report.refused:
        notify(f"llem: left out: {refusal}")
    if report.behind_reason is not None:
        behind = f"{len(report.behind_experiments)} experiments, {report.behind_bytes} bytes"
        notify(f"llem: answering from tables that are behind the log by {behind}: {report.behind_reason}")
    return open_readonly(store)
