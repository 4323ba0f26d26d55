"""A projection file: whose it is, who else holds it, whether this program can use it; its tables with their comments, and rows into them."""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from llem.errors import StoreError
from llem.projections import cells
from llem.projections.current import stranger
from llem.projections.progress import Course
from llem.projections.sample_pieces import PIECES_SQL
from llem.projections.tables_version import tables_version
from llem.results.figures import REQUESTS_SQL, RESULTS_SQL
from llem.sql import literal
from llem.store import Store

_CREATED = re.compile(r"CREATE (TABLE|VIEW) (\w+)(?: AS| \() -- (.+)")
_TABLE = re.compile(r"^CREATE TABLE (.+?^\);)", re.DOTALL | re.MULTILINE)
_COLUMN = re.compile(r" {4}(\w+) .*? -- (.+)")
_VIEW = re.compile(r"CREATE VIEW (\w+) AS(.*?);\n", re.DOTALL)
_BASE = re.compile(r"(?:FROM|JOIN) (\w+)")
_MACRO = re.compile(r"((?:^-- .*\n)+)CREATE MACRO (\w+)\(.*\) AS( TABLE)?", re.MULTILINE)
_SENTENCE = re.compile(r"(.+?)\.(?: |$)")
_VIEW_COLUMN = re.compile(r"-- (\w+): (.+)")

LOG_SQL, DERIVED_SQL, _STUDENT_T_SQL = (
    made + resources.files("llem.projections").joinpath(file).read_text("utf-8")
    for made, file in (
        (REQUESTS_SQL + PIECES_SQL, "log.sql"),
        (RESULTS_SQL, "derived.sql"),
        ("", "student_t.sql"),
    )
)
DERIVED_SQL += _STUDENT_T_SQL
SCHEMA_SQL = LOG_SQL + DERIVED_SQL
VERSION = tables_version()
DEFINITIONS = hashlib.sha256(SCHEMA_SQL.encode()).hexdigest()
POLL_S = 0.05
READER_WAIT_S = 10.0
NOT_BUILT = "not built yet"
STORAGE_VERSION = "v1.0.0"  # the oldest that every supported duckdb reads
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # At a checkpoint DuckDB joins row groups that are half full, with hundreds of MB for each: not before rows were removed.
    "max_vacuum_tasks": "0",
    # And five of them would wait in memory for one another before they are written.
    "write_buffer_row_group_count": "1",
}
# Every checkpoint writes row groups that are not full: with DuckDB's 16 MB a new file of small experiments is half as large again.
_FILLED = {"checkpoint_threshold": "128MB"}
_BUSY = ("Could not set lock", "Conflicting lock", "different configuration")
_OF_THE_DISK = (duckdb.IOException, duckdb.FatalException, duckdb.TransactionException)
Row = Mapping[str, Any]
Rows = list[dict[str, Any]]
MAX_ROWS = 20_000  # per statement; bounds the memory of its columns
EMPTIED_CACHE = "16MB"
HELD_CACHE_BYTES = 2**25  # less is not let go of: it would be read again


class BusyError(Exception):
    """Another process, or another connection of this one, holds the file."""


class UnusableError(Exception):
    """Not a projection that this program can read: to be rebuilt from the log."""


class OutdatedError(UnusableError):
    """Its tables of the log can be read; what was derived from them is by other formulas."""


def connect(
    path: Path, *, read_only: bool, wait_s: float = 0.0, outdated: bool = False
) -> duckdb.DuckDBPyConnection:
    """Open an existing projection of this version, or one that is `outdated`. Raises BusyError, OutdatedError, UnusableError, StoreError."""
    check_owner(path)
    connection = _wait_for(path, read_only=read_only, deadline=time.monotonic() + wait_s)
    try:
        check_version(connection, outdated=outdated)
    except UnusableError:
        connection.close()
        raise
    return connection


def check_version(connection: duckdb.DuckDBPyConnection, *, outdated: bool = False) -> None:
    """Raises UnusableError for tables of another version, OutdatedError for those by other formulas unless they may be `outdated`."""
    try:
        found = connection.execute("SELECT log_digest, derived_digest FROM projection").fetchall()
    except duckdb.BinderException as error:  # other columns
        raise UnusableError("built by another version of llem") from error
    except duckdb.Error as error:
        raise UnusableError(first_line(error)) from error
    if [log for log, _ in found] != [VERSION.log]:
        raise UnusableError("built by another version of llem")
    if found != [VERSION] and not outdated:
        raise OutdatedError("derived by another version of llem")


def create(path: Path) -> duckdb.DuckDBPyConnection:
    """A new database file, mode 0600, in a folder that nobody else can write. Raises FileExistsError."""
    if path.exists():
        raise FileExistsError(path)
    connection = duckdb.connect(
        str(path), config={**_CONFIG, **_FILLED, "storage_compatibility_version": STORAGE_VERSION}
    )
    path.chmod(0o600)
    return in_utc(connection)


def in_memory() -> duckdb.DuckDBPyConnection:
    """A new database that is gone when it is closed."""
    return in_utc(duckdb.connect(config=_CONFIG))


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
    """Say in a StoreError what a disk that is full, read-only or of too small files does not take, and where memory is too little."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise StoreError(f"{what} cannot be written", found=error.strerror) from error
    except _OF_THE_DISK as error:
        raise StoreError(f"{what} cannot be written", found=first_line(error)) from error
    except (MemoryError, duckdb.OutOfMemoryException) as error:
        raise StoreError(
            f"{what} cannot be made", found="too little memory", expected="a few hundred MB that are free"
        ) from error


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
    """Only one's own file is opened. Raises UnusableError, StoreError."""
    try:
        found = stranger(path)
    except FileNotFoundError as error:
        raise UnusableError(NOT_BUILT) from error
    if found is not None:
        raise StoreError(
            f"projections {path}",
            found=found,
            expected="a file of your own",
            hint="remove it; it is built again from the log",
        )


def wal_beside(path: Path) -> Path:
    """DuckDB's write-ahead log of a file."""
    return path.with_name(f"{path.name}.wal")


def wal_path(store: Store) -> Path:
    """That of the tables: gone when a writer closed in order."""
    return wal_beside(store.projections_path)


def complete(connection: duckdb.DuckDBPyConnection) -> None:
    """Put into the file all that was committed: closing it would leave in the log beside it, without a word, what the disk does not take. Raises duckdb.Error."""
    connection.execute("CHECKPOINT")


def has_wal(store: Store) -> bool:
    """Whether the last writer crashed. The caller holds the writer lock."""
    return wal_path(store).exists()


def _wait_for(path: Path, *, read_only: bool, deadline: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return in_utc(duckdb.connect(str(path), read_only=read_only, config=_CONFIG))
        except duckdb.Error as error:
            if not any(sign in str(error) for sign in _BUSY):
                raise UnusableError(first_line(error)) from error
            if time.monotonic() >= deadline:
                raise BusyError(str(error)) from error
        time.sleep(POLL_S)


def first_line(error: Exception) -> str:
    """What DuckDB says, without the query and its arrows."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make empty tables, views and macros, and say which code they belong to."""
    with one_thread(connection):
        connection.execute("BEGIN")
        connection.execute(SCHEMA_SQL)
        add_comments(connection, SCHEMA_SQL)
        connection.execute("INSERT INTO projection VALUES (?, ?, ?)", [*VERSION, DEFINITIONS])
        connection.execute("COMMIT")


@contextmanager
def one_thread(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """To hand a small statement on to other threads takes longer than it does."""
    with connection.cursor() as settings:
        (threads,) = settings.execute("SELECT current_setting('threads')").fetchall()[0]
        settings.execute("SET threads = 1")
        try:
            yield
        finally:
            settings.execute(f"SET threads = {threads}")


def add_comments(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Say of every table, view, column and macro that `sql` made what it is."""
    # The optimizer has nothing to do in them, and takes a quarter of the time of each.
    connection.execute("PRAGMA disable_optimizer")
    connection.execute(";\n".join((*comments(sql), *_comments_of_macros(sql))))
    connection.execute(";\n".join(_comments_of_views(connection, sql)))
    connection.execute("PRAGMA enable_optimizer")


def split_tables(sql: str) -> tuple[list[str], str]:
    """Definitions of its tables, each from the name on, and all the rest."""
    return _TABLE.findall(sql), _TABLE.sub("", sql)


def views_and_macros(sql: str) -> set[str]:
    """Their names."""
    return {view for view, _ in _VIEW.findall(sql)} | {macro for _, macro, _ in _MACRO.findall(sql)}


def comments(sql: str) -> Iterator[str]:
    """One COMMENT statement per line of `sql` that creates a table, a view or a column and says what it is."""
    table = ""
    for line in sql.splitlines():
        if created := _CREATED.match(line):
            kind, table, text = created.groups()
            yield f"COMMENT ON {kind} {table} IS {literal(text)}"
        elif column := _COLUMN.match(line) or _VIEW_COLUMN.match(line):
            name, text = column.groups()
            yield f"COMMENT ON COLUMN {table}.{name} IS {literal(text)}"


def _comments_of_macros(sql: str) -> Iterator[str]:
    """The first sentence of what stands above each."""
    for above, name, table in _MACRO.findall(sql):
        said = " ".join(line.removeprefix("-- ") for line in above.splitlines())
        sentence = _SENTENCE.match(said)
        yield f"COMMENT ON MACRO{table} {name} IS {literal(sentence[1] if sentence else said)}"


def _comments_of_views(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[str]:
    """A view's column that says nothing of itself is that of the first table in the view's FROM that has it."""
    views = _VIEW.findall(sql)
    if not views:
        return
    rows = connection.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
    )
    said: dict[str, dict[str, str | None]] = {}
    for table, column, comment in rows.fetchall():
        said.setdefault(table, {})[column] = comment
    for view, body in views:
        bases = [said.get(base, {}) for base in _BASE.findall(body)]
        for column, comment in said[view].items():
            known = [text for base in bases if (text := base.get(column)) is not None]
            if comment is None and known:
                said[view][column] = known[0]
                yield f"COMMENT ON COLUMN {view}.{column} IS {literal(known[0])}"


def release_cache(connection: duckdb.DuckDBPyConnection) -> None:
    """Let go of blocks that stand in the file already, where they are many."""
    with connection.cursor() as beside:
        held_bytes = beside.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchall()[0][0]
    if held_bytes > HELD_CACHE_BYTES:
        limit_cache(connection, EMPTIED_CACHE)
        limit_cache(connection, None)


def limit_cache(connection: duckdb.DuckDBPyConnection, limit: str | None) -> None:
    """Bound what DuckDB holds in memory; what stands in the file already goes at once."""
    with connection.cursor() as settings:  # a failed transaction takes no statement any more
        if limit is None:
            settings.execute("RESET memory_limit")
            # DuckDB 1.5 then tells the default and keeps to the limit before.
            limit = settings.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
        settings.execute(f"SET memory_limit = '{limit}'")


class Tables:
    """The tables of one open projection.

    Rows travel in columns: `executemany` is a thousand times slower, one JSON text for all rows five times, and registered object
    columns lose NULLs or take minutes with the oldest supported duckdb.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, prefix: str = "") -> None:
        """Those whose names begin with `prefix`, which stands in no name that is given here."""
        self.connection, self._prefix = connection, prefix
        self.course = Course()
        self._types: dict[str, dict[str, str]] = {}

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the body did, or nothing of it."""
        self.connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        """Append rows; a column that a row does not name is NULL. Raises KeyError for a name that no column has."""
        self.insert_batches(table, self.batches(table, rows))

    def batches(self, table: str, rows: Sequence[Row]) -> list[cells.Batch]:
        """The same rows in columns, which take a fraction of the memory. Raises KeyError for a name that no column has."""
        types = self.types(table)
        if unknown := set().union(*rows) - types.keys():
            raise KeyError(f"table {table} has no column {', '.join(sorted(unknown))}")
        return [cells.batch(portion, types) for portion in _parts(rows)]

    def insert_batches(self, table: str, batches: Sequence[cells.Batch]) -> None:
        """Append them, in order."""
        cells.insert(self.connection, f"{self._prefix}{table}", batches)

    def has_rows(self, table: str, experiment_id: str) -> bool:
        """Whether anything of an experiment is there."""
        sql = f"SELECT 1 FROM {self._prefix}{table} WHERE experiment_id = ? LIMIT 1"
        return bool(self.connection.execute(sql, [experiment_id]).fetchall())

    def delete_experiments(self, table: str, experiment_ids: Sequence[str]) -> None:
        """Remove all rows of some experiments; the next checkpoint closes the gaps, one at a time."""
        removed = self.connection.execute(
            f"DELETE FROM {self._prefix}{table} WHERE experiment_id IN (SELECT unnest(?::VARCHAR[]))",
            [list(experiment_ids)],
        ).fetchall()
        if removed[0][0]:
            self.connection.execute("SET max_vacuum_tasks = 1")

    def types(self, table: str) -> Mapping[str, str]:
        """Column name -> type."""
        if table not in self._types:
            described = self.connection.execute(f"DESCRIBE {self._prefix}{table}").fetchall()
            self._types[table] = {name: kind for name, kind, *_ in described}
        return self._types[table]


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), MAX_ROWS):
        yield rows[start : start + MAX_ROWS]


@contextmanager
def writer_lock(store: Store, *, wait_s: float) -> Iterator[bool]:
    """Hold the store's lock around the body; yields False where another process kept it for `wait_s`."""
    fd = os.open(store.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield _take_lock(fd, time.monotonic() + wait_s)
    finally:
        os.close(fd)


def _take_lock(fd: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        else:
            return True
