"""Values and names as they stand in a statement of SQL, where it takes no parameters."""

from collections.abc import Sequence


def literal(value: str | float | Sequence[str] | None) -> str:
    """A text, a number, a truth value, NULL, or a list of texts."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case str():
            return "'" + value.replace("'", "''") + "'"
        case int() | float():
            return str(value)
    return "[" + ", ".join(map(literal, value)) + "]"


def identifier(name: str) -> str:
    """A name, however it is spelled."""
    return '"' + name.replace('"', '""') + '"'
