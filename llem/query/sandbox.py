"""What the child process may do: a read-only database, one reading statement, no files, little memory, no successor."""

import math
import resource
import time
from pathlib import Path
from typing import Any

import duckdb

from llem.errors import QueryError
from llem.query.duckdb_errors import understandable
from llem.query.messages import Job
from llem.sql import literal

READING = frozenset({"SELECT", "EXPLAIN"})  # WITH, VALUES, FROM, DESCRIBE, SHOW and SUMMARIZE parse as SELECT
_UNSAFE_HINT = "--unsafe lifts this, for SQL of your own"


def limit_resources(job: Job) -> None:
    """No more memory, processor time or open files than given, no core, and not a byte into any file.

    What catching up has already used does not count against the query.
    """
    limits = [
        (resource.RLIMIT_AS, _mapped_bytes() + job.memory_bytes),
        (resource.RLIMIT_CPU, math.ceil(time.process_time()) + job.cpu_s),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ]
    if job.parquet_path is None:
        limits.append((resource.RLIMIT_FSIZE, 0))
    for name, limit in limits:
        ceiling = resource.getrlimit(name)[1]
        lowered = limit if ceiling == resource.RLIM_INFINITY else min(limit, ceiling)
        resource.setrlimit(name, (lowered, lowered))


def _mapped_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def configure(connection: duckdb.DuckDBPyConnection, job: Job) -> None:
    """Take away files, network, extensions and the means to get them back; errors come as JSON in any case."""
    connection.execute("SET errors_as_json = true")
    connection.execute("SET TimeZone = 'UTC'")  # as the times in the tables
    if not job.unsafe:
        _lock(
            connection,
            allowed_paths=[job.parquet_path] if job.parquet_path else [],
            allowed_directories=[job.sealed] if job.sealed else [],
        )


def _lock(
    connection: duckdb.DuckDBPyConnection, *, allowed_paths: list[str], allowed_directories: list[str]
) -> None:
    settings: dict[str, Any] = {
        "temp_directory": "",  # nothing is spilled to a disk
        "python_enable_replacements": False,  # a table name is no variable of this program
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allowed_paths": allowed_paths,
        "allowed_directories": allowed_directories,
        "enable_external_access": False,
        "lock_configuration": True,  # last: nothing can be set after it
    }
    for name, setting in settings.items():
        connection.execute(f"SET {name} = {literal(setting)}")


def only_statement(connection: duckdb.DuckDBPyConnection, job: Job) -> duckdb.Statement:
    """The one statement of the SQL, if it reads. Raises QueryError."""
    try:
        statements = connection.extract_statements(job.sql)
    except duckdb.Error as error:
        raise understandable(error, job.sql) from error
    if len(statements) != 1:
        raise QueryError("SQL", found=f"{len(statements)} statements", expected="one")
    if not job.unsafe:
        _check_reads(statements[0])
    _check_parameters(statements[0], job)
    return statements[0]


def _check_reads(statement: duckdb.Statement) -> None:
    kind = _kind(statement)
    if kind == "MULTI":
        raise QueryError("PIVOT", expected="its values in the statement, as in ON column IN ('a', 'b')")
    if kind not in READING:
        raise QueryError(
            f"{kind} is refused, a query only reads",
            expected="SELECT, WITH, VALUES, FROM, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN",
            hint=_UNSAFE_HINT,
        )


def _kind(statement: duckdb.Statement) -> str:
    try:
        return statement.type.name
    except ValueError:  # newer kinds of statement have no name in Python
        return "this statement"


def _check_parameters(statement: duckdb.Statement, job: Job) -> None:
    wanted, given = set(statement.named_parameters), set(job.parameters)
    if missing := sorted(wanted - given):
        raise QueryError(f"parameter ${missing[0]} has no value", hint=f"give it with -p {missing[0]}=VALUE")
    if unknown := sorted(given - wanted):
        raise QueryError(f"parameter {unknown[0]} is not in the SQL", hint=f"write it as ${unknown[0]}")
