"""A file that may be of any format: its text, its rows and its JSON, each read when a format asks for it."""

import csv
import io
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from llem.errors import ExportError

Fields = dict[str, Any]
Kind = TypeVar("Kind")
# What numbers of a file can be.
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
EARLIEST_S, LATEST_S = 946_684_800, 4_102_444_800  # of a moment: 2000 to 2100
UnixSeconds = Annotated[float, Meta(ge=EARLIEST_S, le=LATEST_S)]
UnixNs = Annotated[int, Meta(ge=EARLIEST_S * 10**9, le=LATEST_S * 10**9)]
Joules = Annotated[float, Meta(ge=0, le=1e12)]


class Document:
    """The bytes of a file, called `what` in messages; what else its program wrote may stand beside its `path`."""

    def __init__(self, content: bytes, *, what: str, path: Path | None = None) -> None:
        self.content, self.what, self.path = content, what, path

    @cached_property
    def text(self) -> str:
        """As UTF-8; what is none is replaced."""
        return self.content.decode("utf-8-sig", errors="replace")

    @cached_property
    def rows(self) -> list[list[str]]:
        """Of a CSV file, cells without blanks around them; rows without any are left out. Raises ExportError."""
        try:
            read = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(self.text, newline=""))]
        except csv.Error as error:
            raise self.refuse("cannot be read as CSV", found=str(error)) from None
        return [row for row in read if any(row)]

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

    def convert(self, fields: Any, kind: type[Kind]) -> Kind:
        """Fields as a type. Raises ExportError, which names the one that does not fit."""
        try:
            return msgspec.convert(fields, kind)
        except (msgspec.ValidationError, OverflowError) as error:
            raise self.refuse("a field does not fit", found=str(error)) from None

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
