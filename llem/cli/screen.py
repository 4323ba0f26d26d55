"""Standard output for data: what comes from a database cannot drive a terminal."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

# Control characters but tab and line ends, and the marks that turn the direction of writing.
_DANGEROUS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


class _Screen:
    """A terminal that shows a mark in the place of every control character."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        return self._terminal.write(_DANGEROUS.sub("�", text))

    def isatty(self) -> bool:
        return True

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output: a pipe gets every byte as it is, a terminal none that it would obey."""
    sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr] # a text wrapper wherever there is a file
    yield cast(TextIO, _Screen(sys.stdout)) if sys.stdout.isatty() else sys.stdout
    sys.stdout.flush()
