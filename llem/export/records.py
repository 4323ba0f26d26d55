"""Results of experiments and of processes in every format: columns for CSV and Parquet, whole objects for JSON."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from llem.export import as_csv, as_json, as_jsonl, parquet
from llem.export.columns import Column, rows


class Format(StrEnum):
    """Formats of an export."""

    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"


def write_records(
    out: TextIO,
    records: Sequence[Any],
    columns: Sequence[Column[Any]],
    *,
    kind: Format,
    neutralise: bool = True,
) -> None:
    """Records as text."""
    match kind:
        case Format.JSON:
            as_json.write_objects(out, records)
        case Format.JSONL:
            as_jsonl.write_objects(out, records)
        case _:
            names = [column.name for column in columns]
            as_csv.write(out, names, rows(columns, records), neutralise=neutralise)


def write_parquet(path: Path, records: Sequence[Any], columns: Sequence[Column[Any]]) -> None:
    """Records as a Parquet file."""
    parquet.write(path, [(column.name, column.type) for column in columns], rows(columns, records))
