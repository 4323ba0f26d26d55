"""Tables built from the log: disposable, and the only place where figures are looked up."""

from typing import TYPE_CHECKING

from llem_events.lazy import root_of

if TYPE_CHECKING:
    from llem.projections.checkpoint import SegmentLineage as SegmentLineage
    from llem.projections.checkpoint import lineage as lineage
    from llem.projections.database import open_readonly as open_readonly
    from llem.projections.derive.late_window import results_for as results_for
    from llem.projections.diff import Change as Change
    from llem.projections.opening import open_tables as open_tables
    from llem.projections.opening import snapshot as snapshot
    from llem.projections.projector import CatchUpReport as CatchUpReport
    from llem.projections.projector import RebuildReport as RebuildReport
    from llem.projections.projector import catch_up as catch_up
    from llem.projections.projector import rebuild as rebuild

# Whoever reads tables that are up to date waits for nothing that builds them.
__all__, __getattr__, __dir__ = root_of(
    __name__,
    {
        "checkpoint": "SegmentLineage lineage",
        "database": "open_readonly",
        "derive.late_window": "results_for",
        "diff": "Change",
        "opening": "open_tables snapshot",
        "projector": "CatchUpReport RebuildReport catch_up rebuild",
    },
)
