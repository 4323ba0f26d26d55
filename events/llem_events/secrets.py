"""Taking secrets out of text from outside, where it enters a log that can never be changed.

What looks like a secret goes wherever it stands; what is announced as one goes whatever it looks like. A short password that nothing
announces cannot be known. Every pattern takes time that is linear in the text.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

MASK = "***"
_CACHED_CHARACTERS = 512

_KEYS = r"(?:api|access|private|secret|auth|account|client|service|encryption|signing|ssh|storage)[_-]?key"
_ORDINARY = "".join(
    rf"(?<!{word}_)"
    for word in ("bos", "eos", "pad", "unk", "sep", "cls", "mask", "image", "next", "per", "new")
)
_WORDS = rf"(?:{_ORDINARY}token|passwd|password|passphrase|secret|credentials?|authorization|amz-signature|{_KEYS})"
_SHORT_WORDS = r"(?<![^\W_])(?:pass|pwd|pat|auth|sig|cookie|otp)"  # only where a word of the name begins
_NAME = rf"(?:{_WORDS}|{_SHORT_WORDS})"
_NAMED = rf"(?i){_NAME}$"
_OPTION = rf"(?i)^--?[\w.-]*{_NAME}$"
_ASSIGNED = rf"(?is)^(?P<keep>[\w.-]*{_NAME}=).+"  # as an item of a command line: all of the rest
_USER_OPTIONS = frozenset({"-u", "-U", "--user", "--proxy-user"})
_MYSQL = frozenset({"mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump"})


# What secrets look like, wherever they stand: a text that each holds, looked for first because it costs little, and the whole.
_SHAPES = (
    ("hf_", r"\bhf_[A-Za-z0-9]{16,}"),  # Hugging Face
    ("sk-", r"\bsk-[\w-]{16,}"),  # OpenAI, Anthropic
    ("gsk_", r"\bgsk_\w{20,}"),
    ("r8_", r"\br8_\w{20,}"),
    ("xai-", r"\bxai-\w{20,}"),
    ("pplx-", r"\bpplx-\w{20,}"),
    ("gh", r"\bgh[pousr]_[A-Za-z0-9]{20,}"),
    ("github_pat_", r"\bgithub_pat_\w{20,}"),
    ("gl", r"\bgl(?:pat|rt|dt|cbt|ft)-[\w-]{16,}"),
    ("xox", r"\bxox[abeprs]-[\w-]{10,}"),
    ("xapp-", r"\bxapp-[\w-]{10,}"),
    ("hooks.slack.com/", r"(?<=hooks\.slack\.com/)[\w/-]{8,}"),
    ("nvapi-", r"\bnvapi-[\w-]{16,}"),
    ("AIza", r"\bAIza[\w-]{30,}"),  # Google
    ("ya29.", r"\bya29\.[\w-]{20,}"),
    ("GOCSPX-", r"\bGOCSPX-[\w-]{20,}"),
    ("A", r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b"),  # AWS
    ("eyJ", r"\beyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"),  # JSON web token
    (
        "-----BEGIN ",
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    ),
    ("npm_", r"\bnpm_[A-Za-z0-9]{20,}"),
    ("pypi-", r"\bpypi-[\w-]{16,}"),
    ("dckr_pat_", r"\bdckr_pat_[\w-]{16,}"),
    ("dop_v1_", r"\bdop_v1_[0-9a-f]{32,}"),
    ("dapi", r"\bdapi[0-9a-f]{32}"),
    ("hv", r"\bhv[sbr]\.[\w-]{20,}"),
    ("k_", r"\b[sr]k_(?:live|test)_\w{16,}"),  # Stripe
    ("whsec_", r"\bwhsec_\w{16,}"),
    ("SG.", r"\bSG\.[\w-]{16,}\.[\w-]{16,}"),
    ("SK", r"\bSK[0-9a-f]{32}\b"),
    ("shp", r"\bshp(?:at|ca|pa|ss)_[0-9a-f]{32}"),
    ("lin_api_", r"\blin_api_\w{20,}"),
    ("ATATT3", r"\bATATT3[\w=-]{20,}"),
    ("AGE-SECRET-KEY-", r"\bAGE-SECRET-KEY-1[0-9A-Z]{40,}"),
    (":AA", r"\b\d{8,10}:AA[\w-]{30,}"),  # bots
    ("/api/webhooks/", r"(?<=/api/webhooks/)[\w/-]{8,}"),
)


_QUOTED = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_IN_URL = r"(?<=://)[^\s/?#'\"]+(?=@)"  # user:password@ and token@
# What stands after something that announces a secret; the announcement, `keep`, stays readable.
_BY_NAME = (
    r"(?P<keep>\bauthorization\b\\*['\"]?\s*[:=]\s*\\*['\"]?(?:(?:bearer|basic|token|digest)\s+)?)[^\s'\",;\\]+",
    rf"(?P<keep>{_NAME}\\*['\"]?\s*=\s*)(?:{_QUOTED}|\\*['\"]?[^\s'\",;&\\]{{4,}})",
    rf"(?P<keep>(?<!\\)['\"][\w.-]{{0,64}}{_NAME}['\"]\s*:\s*){_QUOTED}",
    rf"(?P<keep>\\['\"][\w.-]{{0,64}}{_NAME}\\{{1,8}}['\"]\s*:\s*\\{{1,8}}['\"])[^'\"\\]+",
    rf"(?P<keep>\\?['\"]--?[\w.-]{{0,64}}{_NAME}\\?['\"]\s*,\s*\\?['\"])[^'\"\\]+",
    rf"(?P<keep>(?:\b(?:password|passwd|passphrase|secret)|[-_](?:token|{_KEYS}))\s*:\s*)[^\s'\",;]{{4,}}",
    rf"(?P<keep>(?:^|[\s'\"])--?[\w.-]{{0,64}}{_NAME}\s+)(?!-)(?:{_QUOTED}|\S+)",
    r"(?P<keep>\b(?:set-)?cookie\s*:\s*)[^'\"\n]+",  # the last, because it takes so much that it would hide announcements
)
_BY_OTHERS = (
    r"(?P<keep>\bbearer\s+)[\w.~+/=-]{8,}",
    r"(?P<keep>\bsshpass\s+-p\s*)\S+",
    r"(?P<keep>[\s'\"](?:-u|--user|--proxy-user)[\s=,'\"\\]+[^\s:'\"\\]{1,64}:)(?!\d+\b)[^\s'\"\\]+",
)


@functools.cache
def _compiled(pattern: str, flags: int = re.DOTALL) -> re.Pattern[str]:
    """Compiled when it is first needed: whoever prints a line does not wait for fifty of them."""
    return re.compile(pattern, flags)


def scrub(text: str) -> str:
    """The text with everything that looks like a secret, or is announced as one, replaced by `***`."""
    return _scrub_short(text) if len(text) <= _CACHED_CHARACTERS else _scrub(text)


def _scrub(text: str) -> str:
    text = _without_shapes(text)
    if "://" in text:
        text = _compiled(_IN_URL).sub(MASK, text)
    lowered = text.lower()
    if _compiled(_NAME).search(lowered):
        text = _without(_BY_NAME, text)
    announced_otherwise = any(mark in lowered for mark in ("bearer", "sshpass", "-u"))
    return _without(_BY_OTHERS, text) if announced_otherwise else text


def _without_shapes(text: str) -> str:
    for mark, shape in _SHAPES:
        if mark in text:
            text = _compiled(shape).sub(MASK, text)
    return text


def _without(patterns: tuple[str, ...], text: str) -> str:
    for announced in patterns:
        text = _compiled(announced, re.IGNORECASE | re.DOTALL).sub(rf"\g<keep>{MASK}", text)
    return text


_scrub_short = functools.lru_cache(maxsize=4096)(_scrub)


def names_secret(name: str) -> bool:
    """Whether a key or a variable of this name holds a secret."""
    return _compiled(_NAMED).search(name) is not None


def scrub_value(value: Any) -> Any:
    """The same through dicts, lists and tuples; a text under a secret name, or after such an option, goes whole."""
    match value:
        case str():
            return scrub(value)
        case dict():
            return {_key(key): _under(key, item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_in_sequence(value))
    return value


def _key(key: Any) -> Any:
    return _without_shapes(key) if isinstance(key, str) else key


def _under(key: Any, item: Any) -> Any:
    return _hidden(item) if isinstance(key, str) and names_secret(key) else scrub_value(item)


def _hidden(item: Any) -> Any:
    """Every text of what stands under a secret name; numbers are counts."""
    match item:
        case str():
            return MASK if item else item
        case list() | tuple():
            return type(item)(_hidden(inner) for inner in item)
    return scrub_value(item)


def _in_sequence(items: Sequence[Any]) -> Iterator[Any]:
    """Items of a command line: `--hf-token VALUE` are two of them."""
    programs = {
        PurePath(item).name for item in items if isinstance(item, str) and len(item) < _CACHED_CHARACTERS
    }
    before: Any = ""
    for item in items:
        yield (
            _item(before, item, programs)
            if isinstance(item, str) and isinstance(before, str)
            else scrub_value(item)
        )
        before = item


def _item(option: str, item: str, programs: set[str]) -> str:
    if _compiled(_OPTION).match(option) or (option == "-p" and "sshpass" in programs):
        return MASK
    if option in _USER_OPTIONS and (user := item.partition(":"))[2] and not user[2].isdigit():
        return f"{user[0]}:{MASK}"
    if item.startswith("-p") and len(item) > 2 and programs & (_MYSQL | {"sshpass"}):
        return f"-p{MASK}"
    return _compiled(_ASSIGNED).sub(rf"\g<keep>{MASK}", scrub(item))
