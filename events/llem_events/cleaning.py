"""Texts of an event as the log may keep them: without secrets, without what UTF-8 cannot hold, and no longer than anybody reads.

Every writer's events come through here, because nothing can be taken out of a log again.
"""

import functools
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from llem_events.secrets import scrub, scrub_value

MAX_TEXT = 2**16  # characters of a message, a reason or an environment's entry
# What would mean something else if it were cut; where it is too long, its event is refused or left out with a reason.
_WHOLE = frozenset({"plan", "labels", "command", "cell", "prompt", "output"})
_TEXTLESS = (inspect.IntType, inspect.FloatType, inspect.BoolType, inspect.NoneType, inspect.BytesType)
Part = TypeVar("Part", bound=msgspec.Struct)


def clean(record: Part) -> Part:
    """The record with every text in it, however deep, cleaned; itself where nothing changes."""
    changed = {}
    for field in fields_with_text(type(record)):
        before = getattr(record, field)
        after = _cleaned(before, whole=field in _WHOLE) if before else before
        if after is not before:
            changed[field] = after
    return msgspec.structs.replace(record, **changed) if changed else record


def _cleaned(part: Any, *, whole: bool) -> Any:
    match part:
        case str():
            return clean_text(part, whole=whole)
        case msgspec.Struct():
            return clean(part)
        case [msgspec.Struct(), *_]:
            return [_cleaned(record, whole=whole) for record in part]
        case list() | dict():
            return scrub_value(_encodable(part, whole=whole))
    return part


def clean_text(text: str, *, whole: bool = False) -> str:
    """The same for one text; the very text where nothing changes."""
    scrubbed = scrub(_utf8(text if whole else shortened(text, MAX_TEXT)))
    return text if scrubbed == text else scrubbed


def shortened(text: str, limit: int) -> str:
    """The text, or so many characters of it and how many there were."""
    return text if len(text) <= limit else f"{text[:limit]} ... (cut, {len(text)} characters)"


def scrub_json(document: bytes) -> bytes:
    """A JSON document without secrets; the very bytes where none is in it. What is not JSON is scrubbed as a text."""
    try:
        before = msgspec.json.decode(document)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return scrub(document.decode(errors="replace")).encode()
    after = scrub_value(before)
    return document if after == before else msgspec.json.encode(after)


def _utf8(text: str) -> str:
    """Lone surrogates, which come from bytes that are no text, as escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def _encodable(part: Any, *, whole: bool) -> Any:
    """What stands in lists and maps, each text cut and as UTF-8."""
    match part:
        case str():
            return _utf8(part if whole else shortened(part, MAX_TEXT))
        case dict():
            return {_encodable(key, whole=True): _encodable(item, whole=whole) for key, item in part.items()}
        case list() | tuple():
            return [_encodable(item, whole=whole) for item in part]
    return part


@functools.cache
def fields_with_text(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields that may hold text, at any depth: all but those that surely hold none."""
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    return tuple(field.name for field in described.fields if _holds_text(field.type))


def _holds_text(kind: inspect.Type) -> bool:
    match kind:
        case inspect.UnionType(types=types):
            return any(map(_holds_text, types))
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return _holds_text(item)
        case inspect.Metadata(type=described):
            return _holds_text(described)
    return not isinstance(kind, _TEXTLESS)
