"""Taking secrets out of text before it reaches a log that can never be changed."""

import re
from typing import Any

MASK = "***"

_SECRET_NAME = r"(?:token|passwd|password|passphrase|secret|credentials?|api[_-]?key|access[_-]?key|private[_-]?key|authorization)"
_NAMED = re.compile(rf"(?i)(?:^|[_\-.]){_SECRET_NAME}$|^{_SECRET_NAME}$")
_OPTION = re.compile(rf"(?i)^--?[\w-]*{_SECRET_NAME}$")

# What secrets look like, wherever they stand.
_SHAPES = (
    re.compile(r"\bhf_[A-Za-z0-9]{20,}"),  # Hugging Face
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),  # OpenAI, Anthropic
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"),
    re.compile(r"\bglpat-[\w-]{16,}|\bxox[abeprs]-[\w-]{10,}|\bnvapi-[\w-]{16,}|\bAIza[\w-]{30,}"),
    re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"),  # JSON web token
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
)
# What stands after something that announces a secret; the announcement stays readable.
_ANNOUNCED = (
    re.compile(
        r"(?P<keep>[a-z][a-z0-9+.-]*://)[^\s/@'\"]+(?=@)", re.IGNORECASE
    ),  # user:password@ and token@ in a URL
    re.compile(
        r"(?P<keep>\bauthorization\b['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic|token)\s+)?)[^\s'\",;]+",
        re.IGNORECASE,
    ),
    re.compile(r"(?P<keep>\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(rf"(?P<keep>[\w.-]*{_SECRET_NAME}['\"]?\s*=\s*['\"]?)[^\s'\",;&]{{4,}}", re.IGNORECASE),
    re.compile(rf"(?P<keep>['\"][\w.-]*{_SECRET_NAME}['\"]\s*:\s*['\"])[^'\"]+", re.IGNORECASE),
    re.compile(rf"(?P<keep>(?:^|\s)--?[\w-]*{_SECRET_NAME}\s+)(?!-)\S+", re.IGNORECASE),
)


def scrub(text: str) -> str:
    """The text with everything that looks like a secret, or is announced as one, replaced by `***`."""
    for shape in _SHAPES:
        text = shape.sub(MASK, text)
    for announced in _ANNOUNCED:
        text = announced.sub(rf"\g<keep>{MASK}", text)
    return text


def names_secret(name: str) -> bool:
    """Whether a key or a variable of this name holds a secret."""
    return _NAMED.search(name) is not None


def scrub_value(value: Any) -> Any:
    """The same through dicts, lists and tuples; a text under a secret name, or after such an option, goes whole."""
    match value:
        case str():
            return scrub(value)
        case dict():
            return {key: _under(key, item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_in_sequence(value))
    return value


def _under(key: Any, item: Any) -> Any:
    return (
        MASK
        if isinstance(key, str) and isinstance(item, str) and item and names_secret(key)
        else scrub_value(item)
    )


def _in_sequence(items: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Items of a command line: `--hf-token VALUE` are two of them."""
    before = ["", *items[:-1]] if items else []
    return [
        MASK
        if isinstance(item, str) and isinstance(option, str) and _OPTION.match(option)
        else scrub_value(item)
        for option, item in zip(before, items, strict=True)
    ]
