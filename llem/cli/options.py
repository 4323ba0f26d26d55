"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from llem.errors import LlemError, PlanError
from llem.store import LAST, Store

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store", metavar="DIR", help="The store; LLEM_DIR or ./llem-data by default.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def complete_run(incomplete: str) -> list[str]:
    """Ids for the shell's completion."""
    try:
        return [run for run in (LAST, *Store.locate().experiment_ids()) if run.startswith(incomplete)]
    except LlemError:
        return []


RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="An id, a prefix of one, a name, or @last.", autocompletion=complete_run
    ),
]


def key_and_value(written: str) -> tuple[str, str]:
    """A label on the command line. Raises PlanError."""
    key, equals, value = written.partition("=")
    if not equals or not key or "." in key:
        raise PlanError("--label", found=repr(written), expected="key=value, with no dot in the key")
    return key, value
