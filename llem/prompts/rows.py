"""A record as a prompt: OpenAI requests, ShareGPT conversations, alpaca rows, plain texts, and their output lengths."""

from collections.abc import Mapping, Sequence
from itertools import dropwhile
from typing import Any

import msgspec

from llem.errors import PlanError
from llem.plan import MAX_TOKENS
from llem.prompts.prompt import ChatMessage, Role
from llem.prompts.records import PROMPT_FIELDS, Record, field_names

Fields = Mapping[str, Any]
LENGTH_FIELDS = (
    "max_new_tokens",
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
    "output_tokens",
    "num_output_tokens",
    "output_len",
    "output_length",
    "expected_output_len",
    "completion_tokens",
)
CONVERSATIONS = frozenset({"conversations", "conversation"})
_TEXT_PARTS = frozenset({"text", "input_text"})
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "tool": "tool",
    "function": "tool",
}


class PromptRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one record asks for: a text or messages; `unused` are its other fields."""

    text: str | None = None
    messages: tuple[ChatMessage, ...] | None = None
    max_new_tokens: int | None = None
    unused: frozenset[str] = frozenset()


def read_row(record: Record, *, path: object) -> PromptRow | None:
    """The record's prompt; None for a conversation that asks nothing. Raises PlanError naming file and line."""
    try:
        return _row(record.content)
    except _UnusableError as error:
        raise PlanError(
            f"{path} line {record.line}{error.place}", found=error.found, expected=error.expected
        ) from None


class _UnusableError(Exception):
    """What is wrong with a record; its line is added where it is known."""

    def __init__(self, place: str, *, found: object, expected: str) -> None:
        self.place, self.found, self.expected = place, found, expected
        super().__init__(place)


def _row(content: Any) -> PromptRow | None:
    if isinstance(content, str):
        return PromptRow(text=_text("prompt", content))
    if not isinstance(content, dict):
        raise _UnusableError("", found=_kind(content), expected="an object or a text")
    fields = {name: field for name, field in content.items() if field is not None}
    # a line of a batch file has the request itself inside
    return _row(fields["body"]) if isinstance(fields.get("body"), dict) else _row_of_fields(fields)


def _row_of_fields(fields: Fields) -> PromptRow | None:
    name = next((name for name in PROMPT_FIELDS if name in fields), None)
    if name is None:
        found = ", ".join(sorted(fields)[:8]) or "no field"
        raise _UnusableError(" has no prompt", found=_short(found), expected=field_names())
    length = _length(fields)
    unused = frozenset(fields).difference([name], LENGTH_FIELDS)
    if name not in CONVERSATIONS and not isinstance(fields[name], list):
        return _text_row(name, fields, length, unused)
    messages = _messages(name, fields[name])
    asked = _first_question(messages) if name in CONVERSATIONS else _without_last_answer(messages)
    if not asked:
        return None
    if len(asked) < len(messages):
        unused |= {f"answers in {name}"}
    return PromptRow(messages=asked, max_new_tokens=length, unused=unused)


def _text_row(name: str, fields: Fields, length: int | None, unused: frozenset[str]) -> PromptRow:
    text = _text(name, fields[name])
    if name == "instruction" and fields.get("input"):
        text = f"{text}\n\n{_text('input', fields['input'])}"
        unused -= {"input"}
    return PromptRow(text=text, max_new_tokens=length, unused=unused)


def _text(name: str, content: Any) -> str:
    if not isinstance(content, str):
        raise _UnusableError(f": {name}", found=_kind(content), expected="a text")
    if not content:
        raise _UnusableError(f": {name}", found="an empty text", expected="a prompt")
    if not content.isascii():
        _check_characters(name, content)
    return content


def _check_characters(name: str, content: str) -> None:
    try:
        content.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(content[error.start]):04x}"
        raise _UnusableError(
            f": {name}", found=f"{half}, half of a character", expected="text that can be encoded"
        ) from None


def _messages(name: str, messages: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(messages, list):
        raise _UnusableError(f": {name}", found=_kind(messages), expected="a list of messages")
    return tuple(_message(f"{name}[{index}]", message) for index, message in enumerate(messages))


def _message(place: str, message: Any) -> ChatMessage:
    if not isinstance(message, dict):
        raise _UnusableError(f": {place}", found=_kind(message), expected="an object with role and content")
    if message.get("tool_calls"):
        raise _UnusableError(f": {place}", found="tool_calls", expected="messages of text alone")
    role = message.get("role", message.get("from"))
    if not isinstance(role, str) or role.casefold() not in _ROLES:
        raise _UnusableError(f": {place}: role", found=_short(repr(role)), expected=", ".join(_ROLES))
    content = message.get("content", message.get("value"))
    return ChatMessage(role=_ROLES[role.casefold()], content=_content(place, content))


def _content(place: str, content: Any) -> str:
    """The text of a message: a text, or a list of parts that are all texts."""
    if isinstance(content, list):
        return "".join(_part(f"{place}.content[{index}]", part) for index, part in enumerate(content))
    # an empty message is a message, as an empty system prompt
    return _text(f"{place}.content", content) if content != "" else ""


def _part(place: str, part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind not in _TEXT_PARTS:
        raise _UnusableError(
            f": {place}", found=_short(str(kind or _kind(part))), expected="a part of type text"
        )
    return _text(f"{place}.text", part.get("text"))


def _first_question(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """A recorded conversation up to its first answer, which is what benchmarks take of it."""
    asked: list[ChatMessage] = []
    for message in dropwhile(lambda message: message.role == "assistant", messages):
        if message.role == "assistant" and asked:
            break
        asked.append(message)
    return tuple(asked) if any(message.role == "user" for message in asked) else ()


def _without_last_answer(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """A request up to where the model has to answer."""
    end = len(messages)
    while end and messages[end - 1].role == "assistant":
        end -= 1
    return tuple(messages[:end])


def _length(fields: Fields) -> int | None:
    """The output length, if any of its names is there and all that are there agree."""
    lengths = {name: _whole_number(name, fields[name]) for name in LENGTH_FIELDS if name in fields}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise _UnusableError(" has two output lengths", found=found, expected="one")
    return next(iter(lengths.values()), None)


def _whole_number(name: str, number: Any) -> int:
    if isinstance(number, str) and len(number) < 20 and number.strip().isdecimal():
        number = int(number)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if type(number) is not int or not 0 < number <= MAX_TOKENS:
        raise _UnusableError(
            f": {name}", found=_short(repr(number)), expected=f"a whole number from 1 to {MAX_TOKENS}"
        )
    return number


def _kind(content: Any) -> str:
    """What JSON calls it."""
    if content is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a text", bool: "a truth value"}
    return names.get(type(content), "a number")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
