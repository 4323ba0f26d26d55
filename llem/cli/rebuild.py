"""llem rebuild."""

import sys
from itertools import groupby
from operator import itemgetter
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.options import StoreOption
from llem.cli.table import write_table
from llem.cli.tables import work_line
from llem.measure.known_calibrations import keep
from llem.projections import RebuildReport, open_readonly
from llem.projections import rebuild as rebuild_tables
from llem.projections.derive.calibrations import told_anew
from llem.sql import rows_by_name
from llem.store import Store

CHANGES_SHOWN = 100


def rebuild(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when the tables would differ.")
    ] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Use what can be read of a damaged log.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Replay the whole log into new projections, and say what changed."""
    place = Store.locate(store)
    with work_line():
        report = rebuild_tables(place, check=check, salvage=salvage)
    if not check:
        _keep_calibrations(place)
    _print(report, check=check)
    if report.refused:
        sys.exit(max(refusal.exit_status for refusal in report.refused))
    sys.exit(console.FAILED if check and report.differs else console.DONE)


def _keep_calibrations(store: Store) -> None:
    """What measurements look up, of all calibrations in the log, by today's formulas."""
    with open_readonly(store) as connection:
        rows = rows_by_name(connection.execute("FROM calibrations ORDER BY experiment_id, sensor DESC"))
    for experiment_id, group in groupby(rows, key=itemgetter("experiment_id")):
        of_one = list(group)
        calibrated_ns = max(row["calibrated_ns"] for row in of_one)
        keep(store, map(told_anew, of_one), experiment_id=experiment_id, calibrated_ns=calibrated_ns)


def _print(report: RebuildReport, *, check: bool) -> None:
    for refused in report.refused:
        console.complain(str(refused))
    verb = "would be" if check else "are"
    rows = ", ".join(f"{count:,} {table}" for table, count in report.rows.items() if count)
    read = ", ".join(
        console.counted(number, thing)
        for number, thing in (
            (report.experiments, "experiment"),
            (report.blocks, "block"),
            (report.events, "event"),
        )
    )
    console.note(f"llem: {read} in {report.duration_sec:.2f} s; rows: {rows}")
    if report.compared is not None:
        console.note(f"llem: nothing to compare with: {report.compared}")
    elif not report.changed_tables:
        console.note(f"llem: the tables {verb} the same as before")
    else:
        console.note(f"llem: {verb} different: {', '.join(report.changed_tables)}")
    if report.changes:
        _write_changes(report)


def _write_changes(report: RebuildReport) -> None:
    rows = [
        (change.experiment_id, change.column, change.before, change.after)
        for change in report.changes[:CHANGES_SHOWN]
    ]
    write_table(sys.stdout, ("experiment", "figure", "before", "now"), rows, instead="a wider terminal")
    if len(report.changes) > CHANGES_SHOWN:
        console.note(f"llem: and {len(report.changes) - CHANGES_SHOWN} more")
