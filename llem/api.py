"""The store from Python: results as objects, and read-only SQL."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from llem.export.rows import stored_results
from llem.projections.current import open_caught_up
from llem.query.process import Limits, Parameter, QueryResult, running
from llem.results import ExperimentResult
from llem.store import Store

_log = logging.getLogger("llem")


class OpenStore:
    """A store to read from; nothing stays open between two calls."""

    def __init__(self, store: Store) -> None:
        self.path = store.path
        self._store = store

    def query(
        self,
        sql: str,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        limit: int | None = None,
        limits: Limits | None = None,
        unsafe: bool = False,
    ) -> QueryResult:
        """Run one reading statement in a child process; `$name` stands for a parameter. Raises QueryError."""
        with running(
            sql, store=self._store, parameters=parameters, limit=limit, limits=limits, unsafe=unsafe
        ) as result:
            rows = list(result.rows())
        return QueryResult(
            columns=[column.name for column in result.columns],
            types=[column.type for column in result.columns],
            rows=rows,
            truncated=result.truncated,
        )

    def results(self, runs: str | Sequence[str] | None = None) -> list[ExperimentResult]:
        """Results of the experiment or experiments named by id, prefix, name or @last, or of all, by id. Raises StoreError."""
        runs = [runs] if isinstance(runs, str) else runs
        experiment_ids = (
            None
            if runs is None
            else [experiment_id for run in runs for experiment_id in self._store.resolve_all(run)]
        )
        with open_caught_up(self._store, _log.info, only=experiment_ids) as connection:
            return list(stored_results(connection, experiment_ids))


def open_store(path: Path | str | None = None) -> OpenStore:
    """The store at `path`, or that of LLEM_DIR, or ./llem-data. Raises StoreError where there is none."""
    return OpenStore(Store.locate(None if path is None else Path(path)).require())
