"""What reaches the screen: data on stdout, everything else on stderr, no control characters of strangers."""

import logging
import os
import re
import sys

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
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
    return _CONTROL.sub("�", text)


def say(text: str) -> None:
    """A line of data, on stdout."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + "\n")


def note(text: str) -> None:
    """A line about the run, on stderr."""
    sys.stdout.flush()
    sys.stderr.write(printable(text) + "\n")


def complain(text: str) -> None:
    """An error in one line, on stderr."""
    note("llem: " + " ".join(text.split()))
