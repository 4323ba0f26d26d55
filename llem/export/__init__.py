"""Results, samples and requests as files, in the formats that `formats.py` lists."""

from typing import TYPE_CHECKING

from llem_events.lazy import root_of

if TYPE_CHECKING:
    from llem.export.results import ResultsExporter as ResultsExporter
    from llem.export.results import export_aggregated_to_csv as export_aggregated_to_csv
    from llem.export.results import export_raw_to_csv as export_raw_to_csv

# Writing rows needs no numpy, which the exporters do.
__all__, __getattr__, __dir__ = root_of(
    __name__, {"results": "ResultsExporter export_aggregated_to_csv export_raw_to_csv"}
)
