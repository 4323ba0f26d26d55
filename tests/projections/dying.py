"""Kills a catch-up, or what derives outdated tables again, at each of its database calls in turn, then catches up and compares: run as a program on a copy of a store.

Prints one JSON object: how many calls there are, and at which the tables differed afterwards.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from llem.projections import catch_up, database
from llem.projections.database import VERSION, writer_lock
from llem.projections.derive_again import derive_again
from llem.projections.projector import apply_experiments
from llem.store import Store
from tests.projections.tables import hashes, hashes_of

ONLY_ASKED = ("SELECT", "DESCRIBE")  # dying there is dying after the call before it


class DyingConnection:
    """A connection whose process is killed at its n-th call that is more than a question, before or after the call is done."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, dies_at: int, *, after: bool) -> None:
        self._connection, self._left, self._after = connection, dies_at, after

    def execute(self, *arguments: Any) -> duckdb.DuckDBPyConnection:
        if str(arguments[0]).lstrip().startswith(ONLY_ASKED):
            return self._connection.execute(*arguments)
        self._left -= 1
        if self._left == 0 and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = self._connection.execute(*arguments)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def survives(store: Store, dies_at: int, *, after: bool) -> bool:
    """Whether a catch-up in a process of its own got to its end."""
    pid = os.fork()
    if pid == 0:
        with (
            writer_lock(store, wait_s=5),
            database.connect(store.projections_path, read_only=False, outdated=True) as connection,
        ):
            dying = DyingConnection(connection, dies_at, after=after)
            if is_outdated(connection):
                derive_again(dying)
            else:
                apply_experiments(store, dying)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def is_outdated(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether there is anything to derive again."""
    return connection.execute("SELECT derived_digest FROM projection").fetchall() != [(VERSION.derived,)]


def after_catch_up(store: Store) -> dict[str, str]:
    """Hashes of all tables, brought up to date."""
    catch_up(store)
    return hashes(store)


def while_outdated(store: Store) -> dict[str, str]:
    """Hashes of all tables but the one that names their formulas; nothing where these are the program's."""
    with database.connect(store.projections_path, read_only=True, outdated=True) as connection:
        found = hashes_of(connection) if is_outdated(connection) else {}
        return {table: of_rows for table, of_rows in found.items() if table != "projection"}


def in_child(look: Callable[[Store], dict[str, str]], store: Store) -> dict[str, str]:
    """What a process of its own finds: DuckDB's threads do not survive a fork."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.write(writer, json.dumps(look(store)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        found = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(found)


def differing(before: Path, scratch: Path, stride: int) -> Iterator[int | str]:
    """Every call at which a death changed the tables; at last, the number of calls."""
    shutil.copytree(before, scratch / "whole")
    untouched = in_child(while_outdated, Store(before))
    expected = in_child(after_catch_up, Store(scratch / "whole"))
    dies_at = 1
    while True:
        store = Store(scratch / str(dies_at))
        shutil.copytree(before, store.path)
        done = survives(store, dies_at, after=dies_at % 2 == 0)
        if (
            in_child(while_outdated, store) not in ({}, untouched)
            or in_child(after_catch_up, store) != expected
        ):
            yield dies_at
        shutil.rmtree(store.path)
        if done:
            yield f"{dies_at} calls"
            return
        dies_at += stride


def main() -> None:
    """Arguments: a store that is behind its log, an empty folder, and how many calls to advance each time."""
    before, scratch, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    *deaths, calls = differing(before, scratch, stride)
    print(json.dumps({"calls": calls, "differing": deaths}))


if __name__ == "__main__":
    main()
