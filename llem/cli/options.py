"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llem.cli import completing
from llem.errors import PlanError, QueryError

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
CacheLimitOption = Annotated[
    str | None,
    typer.Option(
        "--cache-limit",
        metavar="SIZE",
        help="What an address may leave here, as 20GB; LLEM_CACHE_LIMIT or 10GB by default.",
        show_default=False,
    ),
]
MarginOption = Annotated[
    float,
    typer.Option("--margin", min=0.0001, max=1.0, help="A difference of this share does not matter."),
]
LevelOption = Annotated[
    float,
    typer.Option("--level", min=0.5, max=0.9999, help="How often an interval shall hold the truth."),
]
InStudyOption = Annotated[
    str | None,
    typer.Option(
        "--in",
        metavar="STUDY",
        help="Look for KEY=VALUE in this study, not in the newest that varies KEY.",
        autocompletion=completing.study,
        show_default=False,
    ),
]
EverywhereOption = Annotated[bool, typer.Option("--all", help="Look for KEY=VALUE in all runs.")]
ValidOption = Annotated[bool, typer.Option("--valid", help="Leave out runs that are not valid.")]
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
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of the plan.", autocompletion=completing.setting
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seconds = tuple[float, float]
WindowOption = Annotated[
    str | None,
    typer.Option(metavar="FROM:TO", help="Seconds from the experiment's start.", show_default=False),
]


RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="An id, a prefix of one, a name, or @last.", autocompletion=completing.run
    ),
]


def key_and_value(written: str) -> tuple[str, str]:
    """A label on the command line. Raises PlanError."""
    key, equals, value = written.partition("=")
    if not equals or not key or "." in key:
        raise PlanError("--label", found=repr(written), expected="key=value, with no dot in the key")
    return key, value


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
