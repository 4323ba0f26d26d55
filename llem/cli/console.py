"""What reaches the screen: data on stdout, everything else on stderr, no control characters of strangers."""

import logging
import os
import re
import sys
from contextlib import suppress

from llem.errors import OutputError
from llem_events.secrets import scrub

# Control characters but tab and line feed, the marks that turn the direction of writing,
# line ends that only some programs know, and half characters.
_DANGEROUS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = {"\r\n": r"\n", "\n": r"\n", "\t": r"\t", "\r": r"\r"}
MAX_ERROR_CHARS = 2000
_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
_state = {"verbosity": 0, "quiet": False}


def set_verbosity(count: int, *, quiet: bool = False) -> None:
    """How much goes to stderr beside errors: notes unless quiet, and of llem's own log what LLEM_LOG_LEVEL, -v and -vv say."""
    _state.update(verbosity=count, quiet=quiet)
    named = logging.getLevelNamesMapping().get(os.environ.get("LLEM_LOG_LEVEL", "").upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("llem: %(message)s"))
    log = logging.getLogger("llem")
    log.handlers[:] = [handler]
    usual = logging.ERROR if quiet else _LEVELS[min(count, 2)]
    log.setLevel(usual if count or quiet or named is None else named)


def verbosity() -> int:
    """The number of -v given."""
    return _state["verbosity"]


def is_quiet() -> bool:
    """Whether only errors are to be said."""
    return bool(_state["quiet"])


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
    """A line about the run, on stderr, unless only errors are wanted; what cannot be written is dropped."""
    if not is_quiet():
        _write_to_stderr(scrub(text))


def complain(text: str) -> None:
    """An error in one line, on stderr."""
    line = scrub(" ".join(text.split()))
    if len(line) > MAX_ERROR_CHARS:
        line = f"{line[: MAX_ERROR_CHARS // 2]} ... {line[-MAX_ERROR_CHARS // 2 :]}"
    _write_to_stderr("llem: " + line)


def _write_to_stderr(line: str) -> None:
    """After all that was said on stdout before, where both are one terminal."""
    with suppress(OutputError):
        sys.stdout.flush()
    sys.stderr.write(printable(line) + "\n")
