"""Bringing the tables up to the log before a command reads them, and saying what stands in the way."""

from llem.cli import console
from llem.projections import CatchUpReport, catch_up
from llem.projections.database import NOT_BUILT
from llem.store import Store


def up_to_date(store: Store, *, salvage: bool = False) -> CatchUpReport:
    """Catch up; what was rebuilt, refused, or could not be reached is told on stderr."""
    report = catch_up(store, salvage=salvage)
    if report.rebuilt and report.rebuilt != NOT_BUILT:
        console.note(f"llem: tables built from the log: {report.rebuilt}")
    for refused in report.refused:
        console.complain(str(refused))
    if report.behind_reason:
        behind = f"{len(report.behind_experiments)} experiments, {report.behind_bytes} bytes of log"
        console.note(f"llem: answering from tables that are behind by {behind}: {report.behind_reason}")
    return report
