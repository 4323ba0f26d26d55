"""What reaches the screen: data on stdout, everything else on stderr, no control characters of strangers."""

import logging
import os
import re
import sys

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
_state = {"verbosity": 0}


def set_verbosity(count: int) -> None:
    """How much goes to stderr: LLEM_LOG_LEVEL, or -v and -vv."""
    _state["verbosity"] = count
    level = os.environ.get("LLEM_LOG_LEVEL", "").upper()
    known = level in logging.getLevelNamesMapping() and count == 0
    logging.basicConfig(
        stream=sys.stderr, format="llem: %(message)s", level=level if known else _LEVELS[min(count, 2)]
    )


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
