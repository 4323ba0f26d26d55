"""Queries that ship with llem: one .sql file each, its first line a comment that says what it answers."""

from pathlib import Path

import msgspec

from llem.errors import QueryError

_FOLDER = Path(__file__).parents[1] / "queries"


class SavedQuery(msgspec.Struct, frozen=True):
    """A query by name."""

    name: str
    description: str
    sql: str


def saved_queries() -> list[SavedQuery]:
    """All of them, by name."""
    return [_load(path) for path in sorted(_FOLDER.glob("*.sql"))]


def saved_query(name: str) -> SavedQuery:
    """The query of that name. Raises QueryError."""
    known = {query.name: query for query in saved_queries()}
    if name not in known:
        raise QueryError("no such saved query", found=name, expected=", ".join(known))
    return known[name]


def _load(path: Path) -> SavedQuery:
    sql = path.read_text(encoding="utf-8")
    return SavedQuery(path.stem, sql.partition("\n")[0].removeprefix("--").strip(), sql)
