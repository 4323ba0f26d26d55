"""A file that may be of any format: its text, its rows and its JSON, each read when a format asks for it."""

import csv
import io
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from llem.errors import ExportError, in_words

Fields = dict[str, Any]
Kind = TypeVar("Kind")
# What numbers of a file can be.
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
LONGEST_LINE = 2**24
EARLIEST_S, LATEST_S = 946_684_800, 4_102_444_800  # of a moment: 2000 to 2100
UnixSeconds = Annotated[float, Meta(ge=EARLIEST_S, le=LATEST_S)]
UnixNs = Annotated[int, Meta(ge=EARLIEST_S * 10**9, le=LATEST_S * 10**9)]
Joules = Annotated[float, Meta(ge=0, le=1e12)]


class Document:
    """The bytes of a file, called `what` in messages; what else its program wrote may stand beside its `path`.

    Of a file that is larger than can be held they are its beginning, whole lines: `lines`, `table` and `each_object` read all of it.
    """

    def __init__(
        self, content: bytes, *, what: str, path: Path | None = None, is_beginning: bool = False
    ) -> None:
        self.content, self.what, self.path = content, what, path
        self.is_beginning = is_beginning

    @cached_property
    def text(self) -> str:
        """As UTF-8; what is none is replaced."""
        return self.content.decode("utf-8-sig", errors="replace")

    def lines(self) -> Iterator[str]:
        """All of them, each with its end."""
        if self.path is None or not self.is_beginning:
            yield from io.StringIO(self.text, newline="")
            return
        with open(self.path, encoding="utf-8-sig", errors="replace", newline="") as file:
            while line := file.readline(LONGEST_LINE):
                if len(line) == LONGEST_LINE:
                    raise self.refuse("a line is too long", expected=f"at most {LONGEST_LINE:,} characters")
                yield line

    def table(self) -> Iterator[list[str]]:
        """Rows of a CSV file, cells without blanks around them; rows without any are left out. Raises ExportError."""
        try:
            for row in csv.reader(self.lines()):
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield cells
        except csv.Error as error:
            raise self.refuse("cannot be read as CSV", found=str(error)) from None

    @cached_property
    def rows(self) -> list[list[str]]:
        """The same, all at once. Raises ExportError."""
        return [*self.table()]

    @cached_property
    def header(self) -> list[str]:
        """Cells of its first line."""
        return [cell.strip() for cell in self.text.lstrip().split("\n", 1)[0].split(",")]

    @cached_property
    def json(self) -> Any:
        """What it holds as JSON, numbers that are none as None; None where it is not JSON."""
        return read_json(self.text)

    @property
    def fields(self) -> Fields:
        """Of a JSON object; none of anything else."""
        return self.json if isinstance(self.json, dict) else {}

    @cached_property
    def objects(self) -> list[Fields]:
        """The one JSON object of a file, or those of its lines; none where any line is something else."""
        if self.fields:
            return [self.fields]
        read: list[Fields] = []
        for line in filter(str.strip, self.text.split("\n")):
            item = read_json(line)
            if not isinstance(item, dict):
                return []
            read.append(item)
        return read

    def each_object(self) -> Iterator[Fields]:
        """Those of its lines. Raises ExportError for a line that is none."""
        for number, line in enumerate(self.lines(), 1):
            item = read_json(line) if line.strip() else {}
            if not isinstance(item, dict):
                raise self.refuse(f"line {number} is no JSON object", found=repr(line[:40]))
            if item:
                yield item

    def convert(self, fields: Any, kind: type[Kind]) -> Kind:
        """Fields as a type. Raises ExportError, which names the one that does not fit."""
        try:
            return msgspec.convert(fields, kind)
        except (msgspec.ValidationError, OverflowError) as error:
            raise self.refuse("a field does not fit", found=in_words(str(error))) from None

    def refuse(
        self, why: str, *, found: object = None, expected: object = None, hint: str | None = None
    ) -> ExportError:
        """The error that names the file."""
        return ExportError(f"{self.what}: {why}", found=found, expected=expected, hint=hint)


def read_json(text: str) -> Any:
    """None where it is not JSON, or holds half a character, which no log can."""
    try:
        found = json.loads(text, parse_constant=lambda _: None)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found
