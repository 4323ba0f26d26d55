"""Rows as CSV (RFC 4180, but with the line ends of Unix, which every reader takes): an empty cell for NULL, formulas in text neutralised."""

import csv
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from llem.export import formats


def write(
    out: TextIO, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, neutralise: bool = True
) -> None:
    """A header and the rows; `neutralise=False` leaves text as it is, for readers that are no spreadsheet."""
    writer = csv.writer(out, lineterminator="\n")
    cell = _neutralised_cell if neutralise else formats.text
    writer.writerow([cell(name) for name in columns])
    writer.writerows([cell(value) for value in row] for row in rows)


def _neutralised_cell(value: Any) -> str:
    return formats.neutralised(value) if isinstance(value, str) else formats.text(value)
