"""Opening a projection file: whose it is, who else holds it, and whether this program can use it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from llem.errors import StoreError
from llem.projections.schema import VERSION
from llem.store import Store

POLL_S = 0.05
READER_WAIT_S = 10.0
NOT_BUILT = "not built yet"
STORAGE_VERSION = "v1.0.0"  # the oldest that every supported duckdb reads
_OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_BUSY = ("Could not set lock", "Conflicting lock", "different configuration")


_OF_THE_DISK = (duckdb.IOException, duckdb.FatalException, duckdb.TransactionException)


class BusyError(Exception):
    """Another process, or another connection of this one, holds the file."""


class UnusableError(Exception):
    """Not a projection that this program can read: to be rebuilt from the log."""


def connect(path: Path, *, read_only: bool, wait_s: float = 0.0) -> duckdb.DuckDBPyConnection:
    """Open an existing projection of this version. Raises BusyError, UnusableError, StoreError."""
    check_owner(path)
    connection = _wait_for(path, read_only=read_only, deadline=time.monotonic() + wait_s)
    try:
        found = connection.execute("SELECT * FROM projection").fetchall()
    except duckdb.Error as error:
        connection.close()
        raise UnusableError(first_line(error)) from error
    if found != [VERSION]:
        connection.close()
        raise UnusableError("built by another version of llem")
    return connection


def create(path: Path) -> duckdb.DuckDBPyConnection:
    """A new database file, mode 0600, in a folder that nobody else can write. Raises FileExistsError."""
    if path.exists():
        raise FileExistsError(path)
    connection = duckdb.connect(
        str(path), config={**_OFFLINE, "storage_compatibility_version": STORAGE_VERSION}
    )
    path.chmod(0o600)
    return in_utc(connection)


def in_memory() -> duckdb.DuckDBPyConnection:
    """A new database that is gone when it is closed."""
    return in_utc(duckdb.connect(config=_OFFLINE))


def in_utc(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """The same connection, with the zone in which times are stored: now() minus a time is then right everywhere."""
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def open_readonly(store: Store) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the tables as they are; `catch_up` first. Raises StoreError."""
    try:
        return connect(store.projections_path, read_only=True, wait_s=READER_WAIT_S)
    except BusyError as error:
        raise StoreError(
            f"projections {store.projections_path}",
            found="another llem is writing them",
            hint="try again in a moment",
        ) from error
    except UnusableError as error:
        raise StoreError(
            f"projections {store.projections_path}", found=str(error), hint="run `llem rebuild`"
        ) from error


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Say in a StoreError what a disk that is full, read-only or of too small files does not take."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise StoreError(f"{what} cannot be written", found=error.strerror) from error
    except _OF_THE_DISK as error:
        raise StoreError(f"{what} cannot be written", found=first_line(error)) from error


def is_held(path: Path) -> bool:
    """Whether some program has the file open in a way that keeps readers out."""
    try:
        connect(path, read_only=True).close()
    except BusyError:
        return True
    except UnusableError:
        pass
    return False


def check_owner(path: Path) -> None:
    """A database file can run code in whoever opens it, so only one's own is opened. Raises UnusableError, StoreError."""
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise UnusableError(NOT_BUILT) from error
    if path.is_symlink() or found.st_uid != os.geteuid():
        raise StoreError(
            f"projections {path}",
            found="a link" if path.is_symlink() else f"a file of user {found.st_uid}",
            expected="a file of your own",
            hint="remove it; it is built again from the log",
        )


def wal_path(store: Store) -> Path:
    """DuckDB's write-ahead log: gone when a writer closed in order."""
    return store.projections_path.with_name(f"{store.projections_path.name}.wal")


def has_wal(store: Store) -> bool:
    """Whether the last writer crashed. The caller holds the writer lock."""
    return wal_path(store).exists()


def _wait_for(path: Path, *, read_only: bool, deadline: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return in_utc(duckdb.connect(str(path), read_only=read_only, config=_OFFLINE))
        except duckdb.Error as error:
            if not any(sign in str(error) for sign in _BUSY):
                raise UnusableError(first_line(error)) from error
            if time.monotonic() >= deadline:
                raise BusyError(str(error)) from error
        time.sleep(POLL_S)


def first_line(error: Exception) -> str:
    """What DuckDB says, without the query and its arrows."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
