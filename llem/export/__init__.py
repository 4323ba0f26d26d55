"""Results, samples and requests as files, in the formats that `formats.py` lists."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llem.export.results import ResultsExporter, export_aggregated_to_csv, export_raw_to_csv

__all__ = ["ResultsExporter", "export_aggregated_to_csv", "export_raw_to_csv"]


def __getattr__(name: str) -> Any:
    """The exporters are loaded when they are asked for: writing rows needs no numpy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("llem.export.results"), name)
