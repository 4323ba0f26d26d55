"""DuckDB's errors in one line for the user: what, where, and what it suggests instead."""

import re

import duckdb
import msgspec

from llem.errors import QueryError

_OWN_PREFIXES = ("pg_", "duckdb_", "sqlite_", "pragma_")
_UNSAFE_HINT = "--unsafe lifts this, for SQL of your own"


class Complaint(msgspec.Struct, frozen=True):
    """An error as DuckDB gives it under `errors_as_json`."""

    exception_message: str
    position: str | None = None  # bytes from the start of the SQL
    candidates: str | None = None


def understandable(error: duckdb.Error | MemoryError, sql: str, *, before: str = "") -> QueryError:
    """The error that the user sees; `before` is what stood before the user's SQL."""
    complaint = _parsed(str(error))
    first_line = complaint.exception_message.split("\n", 1)[0].rstrip(" !.:")
    match error:
        case duckdb.OutOfMemoryException() | MemoryError():
            return QueryError(
                "the query needs more memory than it may have",
                hint="aggregate or filter earlier, take fewer rows, or lift the limit with --unsafe",
            )
        case duckdb.PermissionException():
            return QueryError(f"refused: {first_line}", hint=_UNSAFE_HINT)
    if "read-only mode" in first_line:
        return QueryError("a write is refused, a query only reads: the tables are rebuilt from the log")
    if "'pytz'" in first_line:
        return QueryError(
            "a column is TIMESTAMP WITH TIME ZONE, which Python cannot show",
            hint="cast it, as in column::TIMESTAMP or column::VARCHAR",
        )
    if "configuration has been locked" in first_line:
        return QueryError(f"refused: {first_line}", hint=_UNSAFE_HINT)
    return QueryError(f"SQL: {first_line}{_place(complaint, sql, len(before))}", hint=_suggestion(complaint))


def _parsed(text: str) -> Complaint:
    """DuckDB writes the kind of error before the JSON; a few errors are plain text."""
    _, _, after_kind = text.partition(": ")
    try:
        return msgspec.json.decode(after_kind, type=Complaint)
    except msgspec.DecodeError:
        return Complaint(after_kind or text)


def _place(complaint: Complaint, sql: str, shift: int) -> str:
    if complaint.position is None:
        return ""
    before = sql.encode()[: max(0, int(complaint.position) - shift)].decode(errors="ignore")
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    return f" at line {line}, column {column}"


def _suggestion(complaint: Complaint) -> str | None:
    """What DuckDB takes for similar, without the tables of its own that nobody asks for."""
    if not complaint.candidates:
        return None
    named = re.split(r", ?| or ", complaint.candidates)
    ours = [name for name in named if not name.startswith(_OWN_PREFIXES)]
    return f"did you mean {', '.join(ours)}?" if ours else "`llem query` lists the tables and their columns"
