"""A plan as TOML, for people: every key with its meaning, and the default where the plan has another value."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec
from msgspec import structs

from llem.plan import OwnGenerationPlan, Plan, Section
from llem.plan_file import literal_values

Field = structs.FieldInfo
HEADER = "# Every key of the plan; where it is not the default, the default stands beside it."


def to_toml(plan: Plan) -> str:
    """The plan as TOML; a key without a value is a comment, as TOML has no null."""
    return "\n".join([HEADER, *_section_lines(plan, ())]) + "\n"


def _section_lines(section: Section, path: tuple[str, ...]) -> Iterator[str]:
    """The section's own keys first, as TOML wants it, then the tables in it."""
    tables: list[Iterator[str]] = []
    for field in structs.fields(type(section)):
        setting = getattr(section, field.name)
        place = (*path, field.name)
        if isinstance(setting, Section):
            tables.append(_section_table(setting, place))
        elif isinstance(setting, Mapping) and setting:
            tables.append(_free_table(field, setting, place))
        else:
            yield _line(field, setting)
    yield from chain.from_iterable(tables)


def _section_table(section: Section, path: tuple[str, ...]) -> Iterator[str]:
    yield from _heading(path, (type(section).__doc__ or "").strip().splitlines()[0])
    yield from _section_lines(section, path)


def _free_table(field: Field, table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """A table whose keys are not all llem's."""
    yield from _heading(path, meaning_of(field.type) or "")
    own = {key.name: key for key in structs.fields(OwnGenerationPlan)} if path == ("generation",) else {}
    for key, setting in table.items():
        yield _line(own[key], setting) if key in own else f"{_key(key)} = {toml(setting)}"


def _heading(path: tuple[str, ...], meaning: str) -> list[str]:
    return ["", f"# {meaning}", f"[{'.'.join(path)}]"]


def _line(field: Field, setting: Any) -> str:
    if setting is None:
        return f"# {field.name} = (not set)  # {_comment(field, setting)}"
    return f"{field.name} = {toml(setting)}  # {_comment(field, setting)}"


def _comment(field: Field, setting: Any) -> str:
    """The meaning, the names allowed, and the default where the plan has another value."""
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    allowed = literal_values(field.type)
    return "; ".join(
        [
            *([meaning] if (meaning := meaning_of(field.type)) else []),
            *([f"one of {', '.join(allowed)}"] if allowed else []),
            *([f"default {'(not set)' if default is None else toml(default)}"] if setting != default else []),
        ]
    )


def meaning_of(kind: Any) -> str | None:
    """What the plan says of a key beside its type."""
    for note in getattr(kind, "__metadata__", ()):
        if isinstance(note, msgspec.Meta) and note.description:
            return note.description
    return None


def toml(setting: Any) -> str:
    """A value as TOML. JSON's texts, whole numbers and truth values are TOML's too, but for one control character."""
    match setting:
        case Mapping():
            pairs = ", ".join(f"{_key(name)} = {toml(inner)}" for name, inner in setting.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(map(toml, setting))}]"
        case float():
            # `inf` and `nan` are TOML, and not JSON
            return repr(setting)
        case _:
            return msgspec.json.encode(setting).decode().replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)
