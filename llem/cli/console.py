"""What reaches the screen: data on stdout, everything else on stderr, no control characters of strangers."""

import logging
import os
import re
import sys
from contextlib import suppress

from llem.errors import OutputError

# Control characters but tab and line feed, the marks that turn the direction of writing,
# line ends that only some programs know, and half characters.
_DANGEROUS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = {"\r\n": r"\n", "\n": r"\n", "\t": r"\t", "\r": r"\r"}
_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
_state = {"verbosity": 0}


def set_verbosity(count: int) -> None:
    """How much of llem's own log goes to stderr: LLEM_LOG_LEVEL, or -v and -vv."""
    _state["verbosity"] = count
    named = logging.getLevelNamesMapping().get(os.environ.get("LLEM_LOG_LEVEL", "").upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("llem: %(message)s"))
    log = logging.getLogger("llem")
    log.addHandler(handler)
    log.setLevel(_LEVELS[min(count, 2)] if count or named is None else named)


def verbosity() -> int:
    """The number of -v given."""
    return _state["verbosity"]


def printable(text: str) -> str:
    """Text without control characters, so that no name or message can drive the terminal."""
    return _DANGEROUS.sub("�", text)


def on_one_line(text: str) -> str:
    """The same for a cell: line ends and tabs are shown, not done."""
    for character, shown in _BREAKS.items():
        text = text.replace(character, shown)
    return printable(text)


def say(text: str) -> None:
    """A line of data, on stdout."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + "\n")


def note(text: str) -> None:
    """A line about the run, on stderr; what cannot be written is dropped."""
    with suppress(OutputError):
        sys.stdout.flush()
    sys.stderr.write(printable(text) + "\n")


def complain(text: str) -> None:
    """An error in one line, on stderr."""
    note("llem: " + " ".join(text.split()))
