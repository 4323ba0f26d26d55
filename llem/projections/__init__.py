"""Tables built from the log: disposable, and the only place where figures are looked up."""

from llem.projections.checkpoint import SegmentLineage, lineage
from llem.projections.database import open_readonly
from llem.projections.derive.late_window import results_for
from llem.projections.diff import Change
from llem.projections.opening import open_tables, snapshot
from llem.projections.projector import CatchUpReport, RebuildReport, catch_up, rebuild

__all__ = [
    "CatchUpReport",
    "Change",
    "RebuildReport",
    "SegmentLineage",
    "catch_up",
    "lineage",
    "open_readonly",
    "open_tables",
    "rebuild",
    "results_for",
    "snapshot",
]
