"""Groups of runs as people name them: by runs, or by the value that a key of the plan or a label has."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb

from llem.errors import QueryError, StoreError
from llem.store import Store

SHOWN_VALUES = 4


def named_groups(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    named: Sequence[str],
    *,
    within: str | None = None,
    everywhere: bool = False,
) -> dict[str, list[str]]:
    """Name -> experiments of groups as people write them: RUN, RUN,RUN or KEY=VALUE.

    A KEY is looked for in the runs that count of the study `within`; else in those of the newest study that varies it, unless
    `everywhere`; else in all runs. Raises QueryError and StoreError.
    """
    # runs that are named by their ids need no look at all others
    experiments = functools.cache(lambda: _experiments(connection))

    @functools.cache
    def plans(key: str) -> _Plans:
        return _Plans(_scope(experiments(), key, within=within, everywhere=everywhere))

    ids = [
        plans(name.partition("=")[0]).matching(name) if "=" in name else _of_runs(store, name)
        for name in named
    ]
    _check_apart(named, ids)
    return dict(zip(named, ids, strict=True))


def _of_runs(store: Store, written: str) -> list[str]:
    runs = [run for run in written.split(",") if run]
    if not runs:
        raise QueryError("a group of runs", found=repr(written), expected="RUN, RUN,RUN or KEY=VALUE")
    return list(dict.fromkeys(found for run in runs for found in _resolved(store, run)))


def _resolved(store: Store, run: str) -> list[str]:
    try:
        return store.resolve_all(run)
    except StoreError as error:
        expected = "an id, a prefix of it, a name, @last, or KEY=VALUE of a label or the plan"
        raise StoreError(error.what, found=error.found, expected=expected, hint=error.hint) from None


def _check_apart(named: Sequence[str], ids: Sequence[Sequence[str]]) -> None:
    seen: dict[str, str] = {}
    for name, members in zip(named, ids, strict=True):
        for member in members:
            if member in seen:
                raise QueryError(
                    f"run {member}", found=f"in {seen[member]} and in {name}", expected="a run in one group"
                )
            seen[member] = name


class _Experiment(NamedTuple):
    """What tells an experiment from others."""

    labels: dict[str, str]
    plan: str | None
    study_id: str | None  # of which it is a run that counts
    cell: dict[str, str]

    def varies(self, key: str) -> bool:
        """Whether its study measures several values of this key."""
        return any(key in (name, name.rpartition(".")[2]) for name in self.cell)


def _experiments(connection: duckdb.DuckDBPyConnection) -> dict[str, _Experiment]:
    """All of them, the oldest first."""
    rows = connection.execute(
        "SELECT experiment_id, coalesce(labels, MAP {}), plan, study_id, cell FROM experiments"
        " LEFT JOIN (FROM study_runs WHERE counted) USING (experiment_id) ORDER BY started_ns, experiment_id"
    ).fetchall()
    return {
        run: _Experiment(labels, plan, study_id, cell or {}) for run, labels, plan, study_id, cell in rows
    }


def _scope(
    experiments: Mapping[str, _Experiment], key: str, *, within: str | None, everywhere: bool
) -> dict[str, _Experiment]:
    """Those among which a value of the key is looked for. Raises QueryError for a study of which no run counts."""
    varying = (each.study_id for each in experiments.values() if each.study_id and each.varies(key))
    study_id = within or (None if everywhere else max(varying, default=None))
    if study_id is None:
        return dict(experiments)
    scope = {run: each for run, each in experiments.items() if each.study_id == study_id}
    if not scope:
        raise QueryError(f"study {study_id}", found="no run that counts")
    return scope


class _Plans:
    """Labels and plans of some experiments, to find those in which a key has a value."""

    def __init__(self, experiments: Mapping[str, _Experiment]) -> None:
        self._labels = {run: each.labels for run, each in experiments.items()}
        self._plans = {run: flat_plan(each.plan) for run, each in experiments.items()}

    def matching(self, written: str) -> list[str]:
        """Experiments with this label, or whose plan says this. Raises QueryError for an unknown key or value."""
        key, _, value = written.partition("=")
        values = self._values(key)
        found = [run for run, known in values.items() if _is_same(known, value)]
        if not found:
            others = ", ".join(list(dict.fromkeys(values.values()))[:SHOWN_VALUES])
            raise QueryError(f"runs with {written}", found="none", expected=f"a value of {key}: {others}")
        return found

    def _values(self, key: str) -> dict[str, str]:
        if any(key in labels for labels in self._labels.values()):
            return {run: labels[key] for run, labels in self._labels.items() if key in labels}
        name = self._whole_key(key)
        return {run: plan[name] for run, plan in self._plans.items() if name in plan}

    def _whole_key(self, key: str) -> str:
        """The key of the plan that is meant: itself, or the only one with this last part, or the only such one that varies."""
        values: dict[str, set[str]] = {}
        for plan in self._plans.values():
            for name, value in plan.items():
                if key in (name, name.rpartition(".")[2]):
                    values.setdefault(name, set()).add(value)
        varying = [name for name, seen in values.items() if len(seen) > 1]
        for candidates in ([key] if key in values else [], values, varying):
            if len(candidates) == 1:
                return next(iter(candidates))
        raise QueryError(
            f"key {key}",
            found=", ".join(sorted(values)) or "neither a label nor a key of any plan",
            expected="a label, a key of the plan such as engine.batch_size, or its last part where only one is meant",
        )


def _is_same(known: str, written: str) -> bool:
    """Whether two texts are one value: 4 is 4.0."""
    try:
        return known == written or float(known) == float(written)
    except ValueError:
        return False


def flat_plan(plan: str | None) -> dict[str, str]:
    """Dotted key -> value as one would write it; nothing for an experiment without a plan."""
    return dict(_flat(json.loads(plan))) if plan else {}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)
