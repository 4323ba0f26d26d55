"""What shells complete beside commands and options: runs and studies of the store, keys of the plan, names that the code knows."""

import importlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import typer

from llem.errors import LlemError
from llem.store import LAST, Store


def one_of_these(names: Collection[str]) -> Callable[[str], list[str]]:
    """Those that begin as what is written so far."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def run(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of the runs in the store that the command line names so far."""
    return [each for each in (LAST, *_ids(context, studies=False)) if each.startswith(incomplete)]


def study(context: typer.Context, incomplete: str) -> list[str]:
    """The same of studies."""
    return [each for each in (LAST, *_ids(context, studies=True)) if each.startswith(incomplete)]


def run_or_study(context: typer.Context, incomplete: str) -> list[str]:
    """Of both."""
    return [*run(context, incomplete), *filter(LAST.__ne__, study(context, incomplete))]


def setting(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of the plan, to be given a value."""
    # every command loads this module, and few are asked for what follows
    keys: Iterator[str] = importlib.import_module("llem.plan_file").plan_keys()
    return [f"{key}=" for key in keys if key.startswith(incomplete)]


def _ids(context: typer.Context, *, studies: bool) -> list[str]:
    written = context.params.get("store")
    try:
        store = Store.locate(None if written is None else Path(written))
        if not studies:
            return store.experiment_ids()
        ids: list[str] = importlib.import_module("llem.study.history").study_ids(store)
        return ids
    except LlemError:
        return []
