"""Results of experiments as rows, replaced as a whole whenever the log grew."""

from collections.abc import Sequence

from llem.projections.derive_experiment import derive_experiment
from llem.projections.facts import load_facts
from llem.projections.process_rows import devices, experiments, processes
from llem.projections.result_rows import experiment_results, raw_process_results, warnings
from llem.projections.tables import Tables
from llem.projections.window_rows import windows

DERIVED_TABLES = (
    "experiments",
    "processes",
    "devices",
    "windows",
    "warnings",
    "raw_process_results",
    "experiment_results",
)


def derive(tables: Tables, experiment_ids: Sequence[str]) -> None:
    """Replace the derived rows of the experiments, one transaction each."""
    for experiment_id in experiment_ids:
        with tables.transaction():
            _derive_one(tables, experiment_id)


def _derive_one(tables: Tables, experiment_id: str) -> None:
    for table in DERIVED_TABLES:
        tables.delete(table, experiment_id=experiment_id)
    facts = load_facts(tables.connection, experiment_id)
    if not facts.segments:
        return
    derived = derive_experiment(tables.connection, facts)
    for table, rows in {
        "experiments": experiments(derived),
        "processes": processes(derived),
        "devices": devices(derived),
        "windows": windows(tables.connection, derived),
        "warnings": warnings(derived),
        "raw_process_results": raw_process_results(derived),
        "experiment_results": experiment_results(derived),
    }.items():
        tables.insert(table, rows)
    for segment in facts.segments:
        tables.connection.execute(
            "UPDATE segments SET derived_blocks = blocks, clock_offset_ns = ? WHERE experiment_id = ? AND file = ?",
            [derived.clocks.offset_ns(segment), experiment_id, segment.file],
        )
