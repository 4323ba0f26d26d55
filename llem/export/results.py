"""Results of experiments and processes as files: in every format, aggregated or per process, under the predecessor's names."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from llem.export import formats, parquet, target
from llem.export.columns import Column, aggregated_columns, flattened, rows
from llem.export.formats import Format
from llem.results.experiment import ExperimentResult
from llem.results.process import RawProcessResult

logger = logging.getLogger(__name__)
RAW: tuple[Column[Any], ...] = tuple(flattened(RawProcessResult))


def export_aggregated_to_csv(
    results: Sequence[ExperimentResult],
    output_path: Path,
    *,
    include_process_breakdown: bool = False,
    neutralise: bool = True,
    force: bool = True,
) -> Path:
    """One row per experiment: the 42 columns of LLenergyMeasure, then ours that are not among them. Raises ExportError."""
    columns = aggregated_columns(
        results, preset="llenergymeasure", process_breakdown=include_process_breakdown
    )
    return _to_csv(output_path, columns, results, neutralise=neutralise, force=force)


def export_raw_to_csv(
    results: Sequence[RawProcessResult], output_path: Path, *, neutralise: bool = True, force: bool = True
) -> Path:
    """One row per process, a column per field of RawProcessResult, lists as JSON in one cell. Raises ExportError."""
    return _to_csv(output_path, RAW, results, neutralise=neutralise, force=force)


def _to_csv(
    path: Path, columns: Sequence[Column[Any]], records: Sequence[Any], *, neutralise: bool, force: bool
) -> Path:
    with target.text_file(path, force=force) as out:
        formats.write_csv(
            out, [column.name for column in columns], rows(columns, records), neutralise=neutralise
        )
    logger.info("exported %d rows to %s", len(records), path)
    return path


class ResultsExporter:
    """Writes results into one folder, which is made when it is missing; files of the same name are replaced."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        output_dir.mkdir(parents=True, exist_ok=True)

    def export_aggregated(
        self,
        results: Sequence[ExperimentResult],
        filename: str = "results.csv",
        *,
        include_process_breakdown: bool = False,
    ) -> Path:
        """One row per experiment, as CSV. Raises ExportError."""
        path = self.output_dir / filename
        return export_aggregated_to_csv(results, path, include_process_breakdown=include_process_breakdown)

    def export_raw(self, results: Sequence[RawProcessResult], filename: str = "raw_results.csv") -> Path:
        """One row per process, as CSV. Raises ExportError."""
        return export_raw_to_csv(results, self.output_dir / filename)

    def export_json(self, results: Iterable[ExperimentResult], filename: str = "results.json") -> Path:
        """Whole results, as one JSON array. Raises ExportError."""
        path = self.output_dir / filename
        with target.text_file(path, force=True) as out:
            formats.write_json_objects(out, results)
        return path


def write_records(
    out: TextIO,
    records: Sequence[Any],
    columns: Sequence[Column[Any]],
    *,
    kind: Format,
    neutralise: bool = True,
) -> None:
    """Records as text."""
    chosen = formats.TEXT_FORMATS[kind]
    if chosen.write_objects is not None:
        chosen.write_objects(out, records)
        return
    names = [column.name for column in columns]
    chosen.writer(neutralise=neutralise)(out, names, rows(columns, records))


def write_parquet(path: Path, records: Sequence[Any], columns: Sequence[Column[Any]]) -> None:
    """Records as a Parquet file."""
    parquet.write_parquet(path, [(column.name, column.type) for column in columns], rows(columns, records))
