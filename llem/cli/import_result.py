"""llem import."""

from pathlib import Path
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.options import StoreOption
from llem.importing import import_result as import_file
from llem.store import Store


def import_result(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="Results of LLenergyMeasure v0.8.")
    ],
    store: StoreOption = None,
) -> None:
    """Take results of LLenergyMeasure (schema 2.0) into the store, each as an experiment marked as imported."""
    place = Store.locate(store)
    for path in paths:
        done = import_file(path, place)
        console.say(done.experiment_id)
