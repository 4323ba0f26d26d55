"""Where statements end in SQL as it is typed: at semicolons, but not at those in quotes and comments."""

import re
from collections.abc import Iterable, Iterator

_TOKEN = re.compile(
    r"""
      (?<!\w)[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"   # in quotes
    | (?<!\w)\$(?P<tag>\w*)\$.*?\$(?P=tag)\$                             # in dollar quotes
    | (?P<comment> --[^\n]*(?:\n|$) | /\*.*?\*/ )
    | (?P<open> ['"] | /\* | (?<!\w)\$\w*\$ )                            # begun and not ended
    | (?P<end> ; )
    """,
    re.DOTALL | re.VERBOSE,
)


def split(text: str) -> tuple[list[str], str]:
    """The statements that end in the text, each with its semicolon, and what comes behind them."""
    statements, start = [], 0
    for token in _TOKEN.finditer(text):
        if token["open"]:
            break
        if token["end"]:
            statements.append(text[start : token.end()].strip())
            start = token.end()
    return [statement for statement in statements if not is_blank(statement)], text[start:]


def is_blank(text: str) -> bool:
    """Whether it holds nothing but spaces, comments and semicolons."""
    return not _TOKEN.sub(lambda token: "" if token["comment"] or token["end"] else "x", text).strip()


def is_whole(text: str) -> bool:
    """Whether it can be run as it is: a command with a dot, or statements that have all ended."""
    return text.lstrip().startswith(".") or is_blank(split(text)[1])


def commands(lines: Iterable[str]) -> Iterator[str]:
    """Statements over any number of lines, and the lines between them that begin with a dot; what is left at the end is a statement too."""
    text = ""
    for line in lines:
        if is_blank(text) and line.lstrip().startswith("."):
            yield line.strip()
            text = ""
            continue
        text += line
        if ";" in line:
            ended, text = split(text)
            yield from ended
    if not is_blank(text):
        yield text.strip()
