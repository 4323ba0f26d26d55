"""What reaches the screen: data on stdout, everything else on stderr, no control characters of strangers."""

import io
import logging
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

from llem.errors import INTERNAL_STATUS, OutputError
from llem_events.secrets import scrub

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from llem.measure.outcome import Outcome
    from llem.results import ExperimentResult


# Control characters but tab and line feed, the marks that turn the direction of writing,
# line ends that only some programs know, and half characters.
_DANGEROUS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
DEFAULT_COLUMNS = 80
_BREAKS = {"\r\n": r"\n", "\n": r"\n", "\t": r"\t", "\r": r"\r"}
MAX_ERROR_CHARS = 2000
_LEVELS = {0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
_state = {"quiet": False}
DONE = 0
FAILED = 1  # something was done, but not all went well; under --strict also a result that is not valid
WRONG = 2  # wrong input, or not possible here
DAMAGED = 3  # damaged data was left out or refused
INTERNAL = INTERNAL_STATUS
INTERRUPTED = 130  # by any signal


class _LogLine(logging.Formatter):
    """A line of llem's own log, as harmless as every other one on stderr."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(scrub(super().format(record)))


def set_verbosity(count: int, *, quiet: bool = False) -> None:
    """How much goes to stderr beside errors: notes unless quiet, and of llem's own log what LLEM_LOG_LEVEL, -v and -vv say."""
    _state.update(quiet=quiet)
    named = logging.getLevelNamesMapping().get(os.environ.get("LLEM_LOG_LEVEL", "").upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogLine("llem: %(message)s"))
    log = logging.getLogger("llem")
    log.handlers[:] = [handler]
    usual = logging.ERROR if quiet else _LEVELS[min(count, 2)]
    log.setLevel(usual if count or quiet or named is None else named)


def is_quiet() -> bool:
    """Whether only errors are to be said."""
    return _state["quiet"]


def printable(text: str) -> str:
    """Text without control characters, so that no name or message can drive the terminal."""
    return _DANGEROUS.sub("�", text)


def on_one_line(text: str) -> str:
    """The same for a cell: line ends and tabs are shown, not done."""
    for character, shown in _BREAKS.items():
        text = text.replace(character, shown)
    return printable(text)


def counted(number: int, thing: str) -> str:
    """So many things, in the plural where there is not one."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def folded(text: str, out: TextIO) -> str:
    """Lines broken between words where a terminal would break them anywhere; as they are for a pipe."""
    width = columns_of(out) if out.isatty() else None
    return text if width is None else "\n".join(_fold(line, width) for line in text.split("\n"))


def _fold(line: str, width: int) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    lines = textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def columns_of(out: TextIO) -> int:
    """As wide as the terminal is now: it may be resized."""
    try:
        return os.get_terminal_size(out.fileno()).columns or DEFAULT_COLUMNS
    except OSError:
        return DEFAULT_COLUMNS


def can_be_drawn_over(out: TextIO) -> bool:
    """Whether it is a terminal on which a line can be written again."""
    return out.isatty() and os.environ.get("TERM") != "dumb"


def can_ask() -> bool:
    """Whether a person may answer on standard input."""
    return sys.stdin is not None and sys.stdin.isatty()


def clipped(text: str, columns: int, out: TextIO) -> str:
    """As much of the text as fits into so many columns of a terminal, and a mark where there is more."""
    whole = _beginning(text, columns)
    if whole == text:
        return text
    mark = "…" if can_write("…", out) else "."
    return _beginning(text, columns - 1) + mark


def can_write(text: str, out: TextIO) -> bool:
    """Whether the terminal's encoding has these characters."""
    try:
        text.encode(out.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _beginning(text: str, columns: int) -> str:
    """What of the text fits into so many columns; wide characters take two."""
    if text.isascii():
        return text[:columns]
    left = columns
    for place, character in enumerate(text):
        left -= 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if left < 0:
            return text[:place]
    return text


def say(text: str) -> None:
    """A line of data, on stdout."""
    write_line(sys.stdout, text)


def write_line(out: TextIO, text: str) -> None:
    """A line of results, safe for whoever reads it."""
    safe(out).write(text + "\n")


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
    sys.stderr.write(folded(printable(line), sys.stderr) + "\n")


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


def safe(out: TextIO) -> TextIO:
    """For lines of text: a pipe gets every character as it is, a terminal none that it would obey.

    Tables do not go this way: rich draws on the terminal itself, and their cells are cleaned before.
    """
    return cast(TextIO, _CleanedLines(out)) if out.isatty() else out


@contextmanager
def text_output() -> Iterator[TextIO]:
    """Stdout for lines of text."""
    yield safe(sys.stdout)
    sys.stdout.flush()


def status_of_measurement(
    outcome: "Outcome", result: "ExperimentResult | None", *, strict: bool, shown: bool
) -> int:
    """A wrapped program's own status where all else went well."""
    if outcome.interrupted:
        return FAILED if outcome.is_over_time else INTERRUPTED
    worst = max((failure.exit_status for failure in outcome.failures), default=DONE)
    if worst == INTERNAL or (worst != DONE and not outcome.has_measured):
        return worst
    if not outcome.is_complete or not shown or result is None or _has_failed(result, strict=strict):
        return FAILED
    return outcome.program_status or DONE


def status_of_part(outcome: "Outcome") -> int:
    """Of a rank's part of an experiment, whose result another rank shows."""
    if outcome.interrupted:
        return FAILED if outcome.is_over_time else INTERRUPTED
    worst = max((failure.exit_status for failure in outcome.failures), default=DONE)
    if worst != DONE or not outcome.is_complete:
        return worst or FAILED
    return outcome.program_status or DONE


def _has_failed(result: "ExperimentResult", *, strict: bool) -> bool:
    return bool(result.failed_requests) or (strict and result.valid is not True)
