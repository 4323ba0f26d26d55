"""llem runs."""

import sys
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.options import JsonOption, StoreOption
from llem.cli.screen import text_output
from llem.cli.table import write_table
from llem.export import as_json
from llem.projections import open_tables
from llem.store import Store

RUNS = """
SELECT experiment_id AS run, e.status, r.valid, coalesce(e.name, r.model_name, array_to_string(e.command, ' ')) AS what,
       round(r.duration_sec, 1) AS seconds, round(r.total_energy_j, 1) AS joules, round(r.tokens_per_second, 1) AS "tokens/s",
       r.total_tokens AS tokens, r.energy_source AS source
FROM experiments e LEFT JOIN experiment_results r USING (experiment_id)
ORDER BY experiment_id DESC
LIMIT ?
"""


def runs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """List the experiments in the store, the newest first."""
    place = Store.locate(store)
    with open_tables(place, console.note) as connection:
        found = connection.execute(RUNS, [limit])
        columns = [column[0] for column in found.description or ()]
        rows = found.fetchall()
    if json:
        with text_output() as out:
            as_json.write(out, columns, rows)
    else:
        write_table(sys.stdout, columns, rows, instead="--json")
