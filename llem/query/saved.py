"""Queries that ship with llem: one .sql file each, its first line a comment that says what it answers."""

from importlib.resources import files

import msgspec

from llem.errors import QueryError

_FOLDER = files("llem") / "queries"


class SavedQuery(msgspec.Struct, frozen=True):
    """A query by name."""

    name: str
    description: str
    sql: str


def saved_queries() -> list[SavedQuery]:
    """All of them, by name."""
    names = (file.name for file in _FOLDER.iterdir() if file.name.endswith(".sql"))
    return [_load(name.removesuffix(".sql")) for name in sorted(names)]


def saved_query(name: str) -> SavedQuery:
    """The query of that name. Raises QueryError."""
    known = {query.name: query for query in saved_queries()}
    if name not in known:
        raise QueryError("no such saved query", found=name, expected=", ".join(known))
    return known[name]


def _load(name: str) -> SavedQuery:
    sql = (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    return SavedQuery(name, sql.partition("\n")[0].removeprefix("--").strip(), sql)
