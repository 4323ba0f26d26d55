"""llem runs."""

from typing import Annotated

import typer

from llem.cli.options import JsonOption, StoreOption
from llem.cli.screen import standard_output
from llem.cli.table import write_table
from llem.cli.tables import up_to_date
from llem.export import as_json
from llem.projections import open_readonly
from llem.store import Store

RUNS = """
SELECT experiment_id AS run, e.status, coalesce(e.name, r.model_name, array_to_string(e.command, ' ')) AS what,
       round(r.duration_sec, 1) AS seconds, r.total_tokens AS tokens, round(r.tokens_per_second, 1) AS "tokens/s",
       round(r.total_energy_j, 1) AS joules, r.energy_source AS source, r.valid
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
    up_to_date(place)
    with open_readonly(place) as connection:
        found = connection.execute(RUNS, [limit])
        columns = [column[0] for column in found.description or ()]
        rows = found.fetchall()
    write = as_json.write if json else write_table
    with standard_output() as out:
        write(out, columns, rows)
