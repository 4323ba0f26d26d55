"""Errors a user can act on: what went wrong, what was found, what was expected, what to try.

    LlemError                    exit status 2 unless a subclass says otherwise
    ├── PlanError                a plan or an option that cannot be used
    ├── StoreError               a store that cannot be opened, written or understood
    ├── EngineError              a model that cannot be loaded or run
    │   └── MissingExtraError    an optional package is not installed
    ├── MeterError               a device or a meter that cannot be read
    ├── MeasureError             a measurement that could not be carried out
    ├── DamagedLogError          a segment refused because it is corrupt (exit status 3)
    ├── QueryError               SQL that is wrong, refused or over its limits
    ├── ExportError              a file that cannot be written or read
    ├── OutputError              standard output cannot be written
    └── AggregationError         process results that cannot be joined

The log package has its own tree, `llem_events.LogError`; the command line prints both the same way.
"""

import difflib
import re
from collections.abc import Collection, Sequence

INTERNAL_STATUS = 70  # exit status for a fault of llem itself
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_NAMED_TYPES = re.compile(r"\b(Expected|got) `([a-z]+(?: \| [a-z]+)*)`")


class LlemError(Exception):
    """One line for the user; `hint` says what to try."""

    exit_status = 2

    def __init__(
        self, what: str, *, found: object = None, expected: object = None, hint: str | None = None
    ) -> None:
        self.what, self.found, self.expected, self.hint = what, found, expected, hint
        super().__init__(self._line())

    def _line(self) -> str:
        facts = [
            f"{word} {value}"
            for word, value in (("found", self.found), ("expected", self.expected))
            if value is not None
        ]
        line = f"{self.what}: {', '.join(facts)}" if facts else self.what
        return f"{line}; {self.hint}" if self.hint else line


class PlanError(LlemError):
    """A plan or an option that cannot be used."""


class StoreError(LlemError):
    """A store that cannot be opened, written or understood."""


class EngineError(LlemError):
    """A model that cannot be loaded or run."""


class MissingExtraError(EngineError):
    """An optional package is not installed."""


class MeterError(LlemError):
    """A device or a meter that cannot be read."""


class MeasureError(LlemError):
    """A measurement that could not be carried out."""


class DamagedLogError(LlemError):
    """A segment refused because it is corrupt."""

    exit_status = 3


class QueryError(LlemError):
    """SQL that is wrong, refused or over its limits."""


class ExportError(LlemError):
    """A file that cannot be written or read."""


class OutputError(LlemError):
    """Standard output cannot be written."""


class AggregationError(LlemError):
    """Process results that cannot be joined."""


def is_text(text: str) -> bool:
    """Whether the text can be stored: names from the system may hold bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def folder_reason(error: OSError) -> str | None:
    """Why a folder cannot be made or written."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file in the place of a folder"
    return error.strerror


def in_words(text: str) -> str:
    """msgspec's names of types as people say them: `int | null` is a whole number."""
    return _NAMED_TYPES.sub(lambda match: f"{match[1]} {_type_in_words(match[2].split(' | '))}", text)


def _type_in_words(names: Sequence[str]) -> str:
    """A number may be written as a whole one, and what may be missing need not be said."""
    told = [name for name in names if name != "null" and not (name == "int" and "float" in names)]
    return " or ".join(_TYPES.get(name, name) for name in told or names)


def nearest(written: str, names: Collection[str], *, place: str = "") -> str | None:
    """The hint at the name that was likely meant; None where none is near."""
    close = difflib.get_close_matches(written, names, n=1)
    return f"did you mean {place}{close[0]}?" if close else None
