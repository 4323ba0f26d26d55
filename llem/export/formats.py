"""Rows as text: CSV, one JSON array, JSON lines, a Markdown table. None is empty or null, a legal zero stays, nothing is rounded."""

import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import msgspec

Writer = Callable[[TextIO, Sequence[str], Iterable[Sequence[Any]]], None]
ObjectWriter = Callable[[TextIO, Iterable[Any]], None]
_encoder = msgspec.json.Encoder(decimal_format="number")
_INT64 = 2**63
# LibreOffice reads full-width signs too.
_FORMULA = re.compile("[\\s'\"]*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n\0]")


def text(value: Any) -> str:
    """The value as one cell of text; lists and maps as JSON, NULL as nothing."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list() | tuple() | dict() | msgspec.Struct() | msgspec.Raw():
            return as_json(value).decode()
    return str(value)


def as_json(value: Any) -> bytes:
    """The value as JSON: exact numbers, null for NULL, "NaN" and "Infinity" as text because JSON has no number for them."""
    return _encoder.encode(json_value(value))


def json_value(value: Any) -> Any:
    """The value in JSON's own types and msgspec's: what has no type there becomes text."""
    match value:
        case None | str() | bool():
            return value
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case int() if not -_INT64 <= value < _INT64:
            return Decimal(value)
        case bytes():
            return value.hex()
        case list() | tuple():
            return [json_value(item) for item in value]
        case dict():
            return {text(key): json_value(item) for key, item in value.items()}
        case msgspec.Struct():
            return json_value(msgspec.to_builtins(value))
    return value


def neutralised(cell: str) -> str:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe (OWASP, CSV Injection)."""
    return "'" + cell if _FORMULA.match(cell) else cell


def write_csv(
    out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, neutralise: bool = True
) -> None:
    """A header and the rows; `neutralise=False` leaves text as it is, for readers that are no spreadsheet."""
    writer = csv.writer(out, lineterminator="\n")
    cell = _neutralised_cell if neutralise else text
    writer.writerow([cell(name) for name in columns])
    writer.writerows([cell(value) for value in row] for row in rows)


def _neutralised_cell(value: Any) -> str:
    return neutralised(value) if isinstance(value, str) else text(value)


def write_json(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """The array, one row a line."""
    write_json_objects(out, (dict(zip(columns, row, strict=True)) for row in rows))


def write_json_objects(out: TextIO, objects: Iterable[Any]) -> None:
    """An array of any objects, one a line."""
    separator = "["
    for found in objects:
        out.write(f"{separator}\n{as_json(found).decode()}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


def write_jsonl(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """One line per row."""
    write_jsonl_objects(out, (dict(zip(columns, row, strict=True)) for row in rows))


def write_jsonl_objects(out: TextIO, objects: Iterable[Any]) -> None:
    """One line per object."""
    out.writelines(as_json(found).decode() + "\n" for found in objects)


def write_markdown(out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A header, a rule and the rows; the cells are not padded, so that rows can be written as they come."""
    out.write(_markdown_line(columns))
    out.write("|" + " --- |" * len(columns) + "\n")
    out.writelines(_markdown_line(row) for row in rows)


def _markdown_line(row: Sequence[Any]) -> str:
    return "| " + " | ".join(_escaped(text(value)) for value in row) + " |\n"


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").splitlines())


class TextFormat(NamedTuple):
    """How rows become text; `raw` where text that a spreadsheet would run can be left as it is."""

    write: Writer
    raw: Writer | None = None
    # Records as they are nested; None: their columns, as rows.
    write_objects: ObjectWriter | None = None
    # Whether `llem export` offers it: what a program can read back.
    is_export: bool = True

    def writer(self, *, neutralise: bool) -> Writer:
        """The writer of rows that suits the reader."""
        return self.write if neutralise or self.raw is None else self.raw


TEXT_FORMATS = {
    "csv": TextFormat(write_csv, raw=partial(write_csv, neutralise=False)),
    "json": TextFormat(write_json, write_objects=write_json_objects),
    "jsonl": TextFormat(write_jsonl, write_objects=write_jsonl_objects),
    "md": TextFormat(write_markdown, is_export=False),
}

if TYPE_CHECKING:

    class Format(StrEnum):
        """Formats of an export: the text formats and Parquet. Those that the code itself names."""

        CSV = "csv"
        PARQUET = "parquet"
else:
    _NAMES = [*(name for name, kind in TEXT_FORMATS.items() if kind.is_export), "parquet"]
    Format = StrEnum("Format", {name.upper(): name for name in _NAMES})
