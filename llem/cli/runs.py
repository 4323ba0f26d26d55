"""llem runs."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.console import text_output
from llem.cli.options import JsonOption, LabelOption, NameOption, SinceOption, StoreOption, key_and_value
from llem.cli.table import write_table
from llem.cli.tables import tables_of
from llem.export import formats
from llem.query.runs import COLUMNS, LONG_COLUMNS, LONG_SCREEN, SCREEN, select_runs, started_since_ns
from llem.store import Store

# whether --long and --json are given
_COLUMNS = {
    (False, False): SCREEN,
    (False, True): COLUMNS,
    (True, False): LONG_SCREEN,
    (True, True): LONG_COLUMNS,
}


def runs(
    label: LabelOption = None,
    name: NameOption = None,
    since: SinceOption = None,
    limit: Annotated[
        int, typer.Option(min=1, max=2**62, metavar="N", help="At most so many, the newest.")
    ] = 50,
    long: Annotated[
        bool, typer.Option("--long", help="Their start, labels, study and the size of their log instead.")
    ] = False,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """List the experiments in the store, the newest first."""
    labels = ["=".join(key_and_value(pair)) for pair in label or ()]
    since_ns = None if since is None else started_since_ns(since, now=datetime.now(UTC))
    place = Store.locate(store)
    with tables_of(place) as connection:
        found = select_runs(
            connection,
            columns=_COLUMNS[long, json],
            labels=labels,
            name=name,
            since_ns=since_ns,
            limit=limit,
        )
    if json:
        with text_output() as out:
            formats.write_json(out, found.columns, found.rows)
        return
    if found.rows:
        write_table(sys.stdout, found.columns, found.rows, instead="--json")
    else:
        console.note(f"llem: no such experiment in {place.path}")
