"""llem import."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llem.cli import console
from llem.cli.options import StoreOption
from llem.cli.progress import Work, WorkLine
from llem.errors import LlemError
from llem.importing import import_result as import_file
from llem.store import Store
from llem_events import LogError


def import_result(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="Results of LLenergyMeasure v0.8.")
    ],
    keep_bytes: Annotated[
        bool, typer.Option("--keep-bytes", help="Keep each file byte for byte, secrets in it included.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Take results of LLenergyMeasure (schema 2.0) into the store, each as an experiment marked as imported.

    A file that is refused leaves nothing behind, and the others are taken: status 1; 2 where none was.
    """
    place = Store.locate(store)
    refused = 0
    line = WorkLine()
    for number, path in enumerate(paths):
        # On a terminal the ids themselves say how far it is.
        if not sys.stdout.isatty():
            line.update(Work("importing", number, len(paths), "files"))
        try:
            console.say(import_file(path, place, keep_bytes=keep_bytes).experiment_id)
        except (LlemError, LogError) as error:
            line.erase()
            console.complain(str(error))
            refused += 1
    line.erase()
    if refused:
        raise typer.Exit(console.FAILED if refused < len(paths) else console.WRONG)
