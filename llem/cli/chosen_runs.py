"""Runs as people choose them: by id, name, study or label, and by when they were started."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import duckdb

from llem.cli.options import key_and_value
from llem.comparing.named import named_groups
from llem.errors import QueryError, StoreError
from llem.query.runs import select_runs, started_since_ns
from llem.store import Store
from llem.study.history import find_study_id, neither_run_nor_study

_OF_STUDY = "SELECT experiment_id FROM study_runs WHERE study_id = $study ORDER BY ALL"


class Choice(NamedTuple):
    """What is asked for; nothing takes all."""

    names: Sequence[str] = ()  # of each: RUN, STUDY or KEY=VALUE
    labels: Sequence[str] = ()
    name: str | None = None
    since_ns: int | None = None

    @property
    def is_of_all(self) -> bool:
        """Whether every run of the store is meant."""
        return not self.names and not self._is_narrowed

    @property
    def _is_narrowed(self) -> bool:
        return bool(self.labels) or self.name is not None or self.since_ns is not None

    def known_ids(self, store: Store) -> list[str] | None:
        """The ids, where no table is needed to tell them; else None."""
        if self._is_narrowed or not self.names:
            return None
        try:
            return [run for name in self.names for run in store.resolve_all(name)]
        except StoreError:
            return None

    def ids(self, connection: duckdb.DuckDBPyConnection, store: Store) -> list[str]:
        """The ids of all that is meant, of which there is at least one. Raises QueryError and StoreError."""
        selected = select_runs(
            connection, columns="experiment_id", labels=self.labels, name=self.name, since_ns=self.since_ns
        )
        narrowed = {run for (run,) in selected.rows}
        named = narrowed
        if self.names:
            named = {run for name in self.names for run in _of(connection, store, name)}
        if not (chosen := sorted(named & narrowed)):
            raise QueryError("export", found="no such run", hint="`llem runs` lists them")
        return chosen


def choice(
    runs: Sequence[str] | None, labels: Sequence[str] | None, name: str | None, since: str | None
) -> Choice:
    """As the options say it. Raises PlanError and QueryError."""
    return Choice(
        names=[run for written in runs or () for run in written.split(",")],
        labels=["=".join(key_and_value(pair)) for pair in labels or ()],
        name=name,
        since_ns=None if since is None else started_since_ns(since, now=datetime.now(UTC)),
    )


def study_to_look_in(
    store: Store, groups: Sequence[str], *, within: str | None, everywhere: bool
) -> str | None:
    """The id of the study that --in names. Raises QueryError where --in or --all would do nothing, StoreError for an unknown study."""
    if within is not None and everywhere:
        raise QueryError("--in and --all", found="both", expected="one of them")
    if (within is not None or everywhere) and not any("=" in group for group in groups):
        option = "--all" if everywhere else "--in"
        raise QueryError(option, found="no group KEY=VALUE", expected="one, to be looked for there")
    return None if within is None else find_study_id(store.require(), within)


def _of(connection: duckdb.DuckDBPyConnection, store: Store, name: str) -> list[str]:
    if "=" in name:
        return named_groups(connection, store, [name], everywhere=True)[name]
    try:
        return store.resolve_all(name)
    except StoreError as no_run:
        try:
            study = find_study_id(store, name)
        except StoreError:
            raise neither_run_nor_study(store, name, no_run) from None
        return [run for (run,) in connection.execute(_OF_STUDY, {"study": study}).fetchall()]
