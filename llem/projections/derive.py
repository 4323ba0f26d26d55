"""Results of experiments as rows, replaced as a whole whenever the log grew."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import duckdb

from llem.projections import rows
from llem.projections.derive_experiment import derive_experiment
from llem.projections.facts import load_facts
from llem.projections.tables import Tables

DERIVED_TABLES = (
    "experiments",
    "processes",
    "devices",
    "windows",
    "warnings",
    "raw_process_results",
    "experiment_results",
)
Transaction = Callable[[duckdb.DuckDBPyConnection], AbstractContextManager[None]]


def derive(tables: Tables, experiment_ids: Sequence[str], *, transaction: Transaction) -> None:
    """Replace the derived rows of the experiments, one transaction each."""
    for experiment_id in experiment_ids:
        with transaction(tables.connection):
            _derive_one(tables, experiment_id)


def _derive_one(tables: Tables, experiment_id: str) -> None:
    for table in DERIVED_TABLES:
        tables.delete(table, experiment_id=experiment_id)
    facts = load_facts(tables.connection, experiment_id)
    if not facts.segments:
        return
    derived = derive_experiment(tables.connection, facts)
    for table, build in rows.BUILDERS.items():
        tables.insert(table, build(tables.connection, derived))
    for segment in facts.segments:
        tables.connection.execute(
            "UPDATE segments SET derived_blocks = blocks, clock_offset_ns = ? WHERE experiment_id = ? AND file = ?",
            [derived.clocks.offset_ns(segment), experiment_id, segment.file],
        )
