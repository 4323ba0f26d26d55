"""DuckDB's types of a result's columns as other libraries have them, and values as these take them."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_NUMBERS = {
    **{
        f"{sign}{name}": f"{sign.lower()}int{bits}"
        for sign in ("", "U")
        for name, bits in (("TINYINT", 8), ("SMALLINT", 16), ("INTEGER", 32), ("BIGINT", 64))
    },
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "BOOLEAN": "bool",
}
# No library has them: what fits is a BIGINT, else a DOUBLE.
_WIDE = ("HUGEINT", "UHUGEINT", "BIGNUM", "VARINT")
_LIST = re.compile(r"\[\d*\]$")
_INT64 = 2**63


class Kind(NamedTuple):
    """A type, and those that it is made of; `names` of a STRUCT's fields, `digits` of a DECIMAL."""

    name: str
    parts: tuple["Kind", ...] = ()
    names: tuple[str, ...] = ()
    digits: tuple[int, ...] = ()


def kind_of(written: str) -> Kind:
    """The type that DuckDB writes so."""
    if match := _LIST.search(written):
        return Kind("LIST", (kind_of(written[: match.start()]),))
    name, _, inner = written.removesuffix(")").partition("(")
    match name:
        case "MAP":
            return Kind("MAP", tuple(map(kind_of, _split(inner))))
        case "STRUCT":
            fields = [_field(part) for part in _split(inner)]
            return Kind(
                "STRUCT", tuple(kind_of(kind) for _, kind in fields), tuple(name for name, _ in fields)
            )
        case "DECIMAL":
            return Kind("DECIMAL", digits=tuple(map(int, _split(inner))))
    return Kind(written)


def _split(inner: str) -> list[str]:
    """At commas that stand in no brackets and no quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for place, character in enumerate(inner):
        quoted ^= character == '"'
        depth += (character == "(") - (character == ")") if not quoted else 0
        if character == "," and not depth and not quoted:
            parts.append(inner[start:place].strip())
            start = place + 1
    return [*parts, inner[start:].strip()]


def _field(written: str) -> tuple[str, str]:
    """Name and type of a STRUCT's field."""
    if written.startswith('"'):
        end = re.match(r'"((?:[^"]|"")*)" ', written)
        if end is not None:
            return end[1].replace('""', '"'), written[end.end() :]
    name, _, kind = written.partition(" ")
    return name, kind


def of_column(written: str, values: Sequence[Any]) -> Kind:
    """The type of a column in which wide integers have become those that hold these values."""
    kind = kind_of(written)
    if kind.name not in _WIDE:
        return kind
    fits = all(value is None or (isinstance(value, int) and -_INT64 <= value < _INT64) for value in values)
    return Kind("BIGINT" if fits else "DOUBLE")


def arrow_type(kind: Kind, pyarrow: Any) -> Any:
    """In pyarrow."""
    parts = [arrow_type(part, pyarrow) for part in kind.parts]
    match kind.name:
        case "LIST":
            return pyarrow.list_(*parts)
        case "MAP":
            return pyarrow.map_(*parts)
        case "STRUCT":
            return pyarrow.struct(list(zip(kind.names, parts, strict=True)))
        case "DECIMAL":
            return pyarrow.decimal128(*kind.digits)
        case "BOOLEAN":
            return pyarrow.bool_()
        case "BLOB":
            return pyarrow.binary()
        case "DATE":
            return pyarrow.date32()
        case "TIME":
            return pyarrow.time64("us")
        case "INTERVAL":
            return pyarrow.duration("us")
        case "TIMESTAMP" | "TIMESTAMP_NS" | "TIMESTAMP_MS" | "TIMESTAMP_S":
            return pyarrow.timestamp("us")
        case "TIMESTAMP WITH TIME ZONE":
            return pyarrow.timestamp("us", tz="UTC")
    return getattr(pyarrow, _number(kind) or "string")()


def polars_type(kind: Kind, polars: Any) -> Any:
    """In polars, where a map is a list of its pairs."""
    parts = [polars_type(part, polars) for part in kind.parts]
    match kind.name:
        case "LIST":
            return polars.List(*parts)
        case "MAP":
            return polars.List(polars.Struct(dict(zip(("key", "value"), parts, strict=True))))
        case "STRUCT":
            return polars.Struct(dict(zip(kind.names, parts, strict=True)))
        case "DECIMAL":
            return polars.Decimal(*kind.digits)
        case "BOOLEAN" | "DATE" | "TIME":
            return getattr(polars, kind.name.capitalize())
        case "BLOB":
            return polars.Binary
        case "INTERVAL":
            return polars.Duration("us")
        case "TIMESTAMP" | "TIMESTAMP_NS" | "TIMESTAMP_MS" | "TIMESTAMP_S":
            return polars.Datetime("us")
        case "TIMESTAMP WITH TIME ZONE":
            return polars.Datetime("us", "UTC")
    number = _number(kind)
    return getattr(
        polars,
        number.replace("uint", "UInt").replace("int", "Int").replace("float", "Float")
        if number
        else "String",
    )


def pandas_dtype(kind: Kind) -> str:
    """In pandas, where NULL stays NULL in every column; what it has no type for are Python's objects."""
    match kind.name:
        case "BOOLEAN":
            return "boolean"
        case "TIMESTAMP" | "TIMESTAMP_NS" | "TIMESTAMP_MS" | "TIMESTAMP_S":
            return "datetime64[us]"
        case "TIMESTAMP WITH TIME ZONE":
            return "datetime64[us, UTC]"
        case "INTERVAL":
            return "timedelta64[us]"
    number = _number(kind)
    return number.replace("uint", "UInt").replace("int", "Int") if number else "object"


def _number(kind: Kind) -> str | None:
    """Its usual name; None for what is none."""
    return _NUMBERS.get(kind.name)


def taken(value: Any, kind: Kind, *, pairs: bool) -> Any:
    """A value as a library takes it: a map as pairs or as a list of keys and values, what no library has as text."""
    if value is None:
        return None
    match kind.name:
        case "MAP":
            return list(_entries(value, kind, pairs=pairs))
        case "LIST":
            return [taken(item, kind.parts[0], pairs=pairs) for item in value]
        case "STRUCT":
            return {
                name: taken(value[name], part, pairs=pairs)
                for name, part in zip(kind.names, kind.parts, strict=True)
            }
        case "DOUBLE" | "FLOAT":
            return float(value)
    return value if kind.name in _NATIVE or isinstance(value, str) else str(value)


_NATIVE = frozenset(
    (
        *_NUMBERS,
        "DECIMAL",
        "BLOB",
        "DATE",
        "TIME",
        "INTERVAL",
        "TIMESTAMP",
        "TIMESTAMP_NS",
        "TIMESTAMP_MS",
        "TIMESTAMP_S",
    )
) | {"TIMESTAMP WITH TIME ZONE"}


def _entries(value: dict[Any, Any], kind: Kind, *, pairs: bool) -> Iterator[Any]:
    for key, item in value.items():
        entry = taken(key, kind.parts[0], pairs=pairs), taken(item, kind.parts[1], pairs=pairs)
        yield entry if pairs else dict(zip(("key", "value"), entry, strict=True))
