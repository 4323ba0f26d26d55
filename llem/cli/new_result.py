"""The result of a measurement that has just ended: from the store's tables, or without them where they cannot be had."""

import duckdb

from llem.cli import console
from llem.cli.run_facts import RunFacts, run_facts
from llem.cli.tables import tables_of
from llem.errors import LlemError
from llem.projections import results_for
from llem.results import ExperimentResult
from llem.store import Store
from llem_events import LogError

_CANNOT_BE_READ = (LlemError, LogError, OSError, duckdb.Error)


def new_result(store: Store, experiment_id: str) -> tuple[ExperimentResult, RunFacts] | None:
    """None, with a line that says why, where the log gives none; what was measured is safe all the same."""
    try:
        with tables_of(store, only=[experiment_id]) as connection:
            return results_for(connection, experiment_id), run_facts(connection, experiment_id)
    except _CANNOT_BE_READ as error:
        console.complain(f"no result of {experiment_id} can be shown now: {error}")
        console.note("llem: what was measured is in the log; `llem show` derives it again")
        return None
