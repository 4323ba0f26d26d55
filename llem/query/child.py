"""Entry point of the child process: catches the tables up, locks itself in, runs one statement, sends its rows."""

import importlib
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from llem.errors import LlemError, QueryError
from llem.parent_death import die_with_parent
from llem.projections.current import open_caught_up
from llem.projections.progress import watched_by
from llem.query import messages, sandbox
from llem.query.duckdb_errors import understandable
from llem.query.messages import (
    LENGTH,
    Column,
    Columns,
    Done,
    Failed,
    Job,
    Message,
    Notice,
    Progress,
    Ready,
    Rows,
)
from llem.store import Store

TARGET_BYTES = 4 * 2**20  # of one message
NAMED = 3  # of experiments
FIRST_ROWS, MOST_ROWS = 64, 8192
PLAN = "EXPLAIN (FORMAT json) "
_EXPLAIN = re.compile(
    r"\A(?:\s|--[^\n]*\n|/\*.*?\*/)*EXPLAIN(\s+ANALYZE)?(\s*\([^()]*\))?(?=\s)", re.IGNORECASE | re.DOTALL
)
_PLAIN = frozenset(
    [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "FLOAT",
        "DOUBLE",
        "VARCHAR",
        "BLOB",
        "JSON",
    ]
)


def main() -> None:
    """Read a job from standard input, answer on standard output."""
    try:
        _answer(_receive())
    except LlemError as error:
        _send_failure(error)
    except BaseException as error:  # noqa: BLE001 -- the outermost frame of a process: its parent gets one line
        _send(Failed(what=f"the query's process failed with {type(error).__name__}: {error}"))


def _receive() -> Job:
    channel = sys.stdin.buffer
    (length,) = LENGTH.unpack(channel.read(LENGTH.size))
    return messages.unpack_job(channel.read(length))


def _send(message: Message) -> int:
    """Send, and return the bytes sent. Raises QueryError for a message that is too large."""
    packed = messages.pack(message)
    if len(packed) > messages.MAX_MESSAGE_BYTES:
        raise QueryError(
            "a row is too large",
            found=f"{len(packed)} bytes",
            expected=f"at most {messages.MAX_MESSAGE_BYTES}",
        )
    sys.stdout.buffer.write(packed)
    sys.stdout.buffer.flush()
    return len(packed)


def _send_failure(error: LlemError) -> None:
    found, expected = (None if fact is None else str(fact) for fact in (error.found, error.expected))
    status = error.exit_status
    _send(Failed(what=error.what, found=found, expected=expected, hint=error.hint, exit_status=status))


def _answer(job: Job) -> None:
    """The order matters: nothing of the user's runs before the limits and the lock are in place."""
    die_with_parent(job.parent_pid)
    with _open(job) as connection:
        if job.factors is not None:
            importlib.import_module("llem.projections.footprint").state(connection, job.factors)
        if not job.unsafe:
            sandbox.limit_resources(job)
        _send(Ready())
        try:
            _run(connection, job)
        except (duckdb.Error, MemoryError) as error:
            raise understandable(error, job.sql, before=PLAN if job.plan_only else "") from error


def _open(job: Job) -> DuckDBPyConnection:
    """The tables up to date, or those over sealed Parquet, or empty ones."""
    if job.plan_only:
        empty: DuckDBPyConnection = importlib.import_module("llem.query.pruning").open_empty()
        return empty
    if job.sealed is not None:
        return _open_sealed(Path(job.sealed), job.sql)
    with watched_by(_tell):
        return open_caught_up(Store(Path(job.store)), lambda line: _send(Notice(text=line)))


def _open_sealed(root: Path, sql: str) -> DuckDBPyConnection:
    sealed = importlib.import_module("llem.projections.sealed")
    in_part = sealed.sealed_in_part(root)
    if in_part:
        named = ", ".join(in_part[:NAMED])
        count = f"{len(in_part)} experiment{'s' if len(in_part) != 1 else ''}"
        _send(Notice(text=f"llem: sealed only in part: {count}, such as {named}; run `llem seal` again"))
    connection: DuckDBPyConnection = sealed.open_sealed(root, described="duckdb_" in sql.lower())
    return connection


def _tell(progress: Any) -> None:
    """Pass on how far the tables have come; this module loads none of what builds them."""
    _send(Progress(work=progress.work, done=progress.done, total=progress.total, unit=progress.unit))


def _run(connection: DuckDBPyConnection, job: Job) -> None:
    sandbox.configure(connection, job)
    statement = sandbox.only_statement(connection, job)
    if job.plan_only:
        statement = _plan_of(connection, statement)
    if job.parquet_path is None:
        _send_result(connection, statement, job)
    else:
        _write_parquet(connection, statement, job, job.parquet_path)


def _plan_of(connection: DuckDBPyConnection, statement: duckdb.Statement) -> duckdb.Statement:
    """The statement that asks for the plan of another one, or of what that one explains."""
    asked = _EXPLAIN.sub("", statement.query, count=1)
    return connection.extract_statements(PLAN + asked)[0]


def _send_result(connection: DuckDBPyConnection, statement: duckdb.Statement, job: Job) -> None:
    cursor = connection.execute(statement, job.parameters or None)
    columns = [Column(name, str(kind)) for name, kind, *_ in cursor.description or ()]
    _send(Columns(columns=_with_unique_names(columns)))
    plain = all(column.type in _PLAIN for column in columns)
    _send(Done(truncated=_send_rows(cursor, limit=job.limit, plain=plain)))


def _with_unique_names(columns: Sequence[Column]) -> list[Column]:
    """A repeated name gets a number, as DuckDB does it in tables."""
    seen: Counter[str] = Counter()
    unique = []
    for column in columns:
        repeated = seen[column.name]
        seen[column.name] += 1
        unique.append(Column(f"{column.name}_{repeated}", column.type) if repeated else column)
    return unique


def _send_rows(cursor: DuckDBPyConnection, *, limit: int | None, plain: bool) -> bool:
    """Send rows in messages of about TARGET_BYTES; whether the limit left any out."""
    total, count = 0, FIRST_ROWS
    while rows := cursor.fetchmany(count):
        kept = rows if limit is None else rows[: limit - total]
        sent_bytes = _send(Rows(rows=kept if plain else [tuple(map(messages.portable, row)) for row in kept]))
        if len(kept) < len(rows):
            return True
        total += len(kept)
        count = max(1, min(MOST_ROWS, count * TARGET_BYTES // sent_bytes))
    return False


def _write_parquet(
    connection: DuckDBPyConnection, statement: duckdb.Statement, job: Job, parquet_path: str
) -> None:
    relation = connection.sql(statement, params=job.parameters or None)
    if relation is None:
        raise QueryError("a statement without a result cannot become a Parquet file")
    limited = relation if job.limit is None else relation.limit(job.limit)
    limited.write_parquet(parquet_path, compression="zstd")
    _send(Columns(columns=_columns_of(relation)))
    _send(Done())


def _columns_of(relation: duckdb.DuckDBPyRelation) -> list[Column]:
    named = zip(relation.columns, relation.types, strict=True)
    return _with_unique_names([Column(name, str(kind)) for name, kind in named])


if __name__ == "__main__":
    main()
