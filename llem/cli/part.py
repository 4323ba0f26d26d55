"""Options that choose the part of a measurement whose figures are wanted."""

from enum import StrEnum
from typing import Annotated

import typer

from llem.errors import QueryError

Seconds = tuple[float, float]


class Methodology(StrEnum):
    """Which part of a measurement the figures are of."""

    TOTAL = "total"
    STEADY_STATE = "steady_state"
    WINDOWED = "windowed"


MethodologyOption = Annotated[
    Methodology | None,
    typer.Option(help="Which part of the measurement; windowed goes with --window.", show_default=False),
]
WindowOption = Annotated[
    str | None,
    typer.Option(metavar="FROM:TO", help="Seconds from the experiment's start.", show_default=False),
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
