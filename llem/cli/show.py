"""llem show."""

from typing import Annotated

import msgspec
import typer

from llem.cli import console
from llem.cli.options import JsonOption, StoreOption
from llem.cli.result import print_result
from llem.cli.tables import up_to_date
from llem.errors import StoreError
from llem.projections import open_readonly
from llem.results import ExperimentResult
from llem.store import Store


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An id, a prefix of one, or @last.")] = "@last",
    json: JsonOption = False,
    store: StoreOption = None,
) -> None:
    """Show one experiment's result."""
    place = Store.locate(store)
    show_new(place, place.resolve(run), json=json)


def show_new(store: Store, experiment_id: str, *, json: bool) -> ExperimentResult:
    """Catch up, then print the result of an experiment. Raises StoreError where it has none."""
    up_to_date(store)
    result = _stored_result(store, experiment_id)
    if json:
        console.say(msgspec.json.encode(result).decode())
    else:
        print_result(result)
    return result


def _stored_result(store: Store, experiment_id: str) -> ExperimentResult:
    with open_readonly(store) as connection:
        row = connection.execute(
            "SELECT e.status, e.problem, r.result FROM experiments e LEFT JOIN experiment_results r USING (experiment_id)"
            " WHERE experiment_id = ?",
            [experiment_id],
        ).fetchone()
    if row is None or row[2] is None:
        status, problem = (row[0], row[1]) if row else ("not in the tables", None)
        raise StoreError(
            f"{experiment_id} has no result",
            found=problem or status,
            hint=f"llem log cat {experiment_id} shows its events",
        )
    return msgspec.json.decode(row[2], type=ExperimentResult)
