"""Options that several commands share."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llem.errors import LlemError, PlanError, QueryError
from llem.store import LAST, Store

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store", metavar="DIR", help="The store; LLEM_DIR or ./llem-data by default.", show_default=False
    ),
]
FactorsOption = Annotated[
    Path | None,
    typer.Option(
        "--factors",
        metavar="FILE",
        help="Carbon, PUE and price, as docs/footprint.md has it, or @RUN for those in its log; factors.toml beside the store by default.",
        show_default=False,
    ),
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only runs with this label.")
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Only those of this name; * stands for anything."),
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only those started since: 2026-01-31T12:00 (UTC), or 3d."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
Seconds = tuple[float, float]
WindowOption = Annotated[
    str | None,
    typer.Option(metavar="FROM:TO", help="Seconds from the experiment's start.", show_default=False),
]


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


def lasts_s(option: str, written: str) -> float:
    """Seconds of such as 90, 90s, 10m, 2h or 1d. Raises PlanError."""
    length = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", written)
    if length is None or not float(length[1]):
        raise PlanError(option, found=repr(written), expected="a time such as 90s, 10m, 2h")
    return float(length[1]) * SECONDS[length[2]]


class Methodology(StrEnum):
    """Which part of a measurement the figures are of."""

    TOTAL = "total"
    STEADY_STATE = "steady_state"
    WINDOWED = "windowed"


MethodologyOption = Annotated[
    Methodology | None,
    typer.Option(help="Which part of the measurement; windowed goes with --window.", show_default=False),
]


def chosen_part(methodology: Methodology | None, window: str | None) -> tuple[Methodology, Seconds | None]:
    """The methodology, and the window where one is named; a window alone means `windowed`. Raises QueryError."""
    if window is None:
        if methodology is Methodology.WINDOWED:
            raise QueryError(
                "--methodology windowed", found="no --window", expected="--window FROM:TO, such as 10:40"
            )
        return methodology or Methodology.TOTAL, None
    if methodology not in (None, Methodology.WINDOWED):
        raise QueryError("--window", found=f"--methodology {methodology}", expected="--methodology windowed")
    return Methodology.WINDOWED, _seconds(window)


def _seconds(window: str) -> Seconds:
    first, _, last = window.partition(":")
    try:
        seconds = (float(first), float(last))
    except ValueError:
        raise QueryError(
            "--window", found=repr(window), expected="FROM:TO in seconds, such as 10:40"
        ) from None
    if not 0 <= seconds[0] < seconds[1]:
        raise QueryError("--window", found=repr(window), expected="0 <= FROM < TO")
    return seconds
