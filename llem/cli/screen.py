"""The standard streams: stdout says when it cannot be written, stderr never stops anybody."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

from llem.cli.console import printable
from llem.errors import OutputError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ReaderGone(OutputError):  # noqa: N818 -- no error: nobody is left to read, as with `| head`
    """Whoever read stdout has closed it."""


class _Output(io.FileIO):
    """Stdout; a failed write is an error that a user can act on."""

    def write(self, chunk: "Buffer", /) -> int | None:  # type: ignore[override]  # None where a pipe would block, as in io
        try:
            return super().write(chunk)
        except BrokenPipeError:
            raise ReaderGone("standard output is closed") from None
        except OSError as error:
            raise OutputError("standard output cannot be written", found=error.strerror) from None


class _Messages(io.FileIO):
    """Stderr; what cannot be written is dropped: what a person sees decides about no measurement."""

    def write(self, chunk: "Buffer", /) -> int:
        with suppress(OSError):
            super().write(chunk)
        return len(memoryview(chunk))


def set_up() -> None:
    """Make the standard streams safe: a closed one gets a descriptor, a terminal keeps its encoding, a file has UTF-8."""
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # No file of ours may be opened in its place. A write to this stdout fails, as it should.
            os.open(os.devnull, flags)
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout, errors="replace")
    sys.stderr = _text(_Messages(2, "w", closefd=False), sys.stderr, errors="backslashreplace")


def _text(raw: io.FileIO, before: TextIO | None, *, errors: str) -> TextIO:
    is_terminal = raw.isatty()
    encoding = before.encoding if before is not None and is_terminal else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=errors,
        newline="",
        line_buffering=is_terminal or raw.fileno() == 2,
    )


def discard_output() -> None:
    """Nothing more is written to stdout; what waits to be written is lost."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _CleanedLines(io.TextIOBase):
    """A terminal that shows a mark in the place of every control character."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        return self._terminal.write(printable(text))

    def flush(self) -> None:
        self._terminal.flush()

    def isatty(self) -> bool:
        return True


@contextmanager
def text_output() -> Iterator[TextIO]:
    """Stdout for lines of text: a pipe gets every character as it is, a terminal none that it would obey.

    Tables do not go this way: rich draws on the terminal itself, and their cells are cleaned before.
    """
    yield cast(TextIO, _CleanedLines(sys.stdout)) if sys.stdout.isatty() else sys.stdout
    sys.stdout.flush()
