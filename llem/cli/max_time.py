"""--max-time: how long a measurement or a study may take."""

import re
from collections.abc import Iterable
from typing import Annotated

import typer

from llem.errors import PlanError
from llem.measure.time_limit import TimeLimit, least_s
from llem.plan import Plan

MaxTimeOption = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="End it in order after so long, such as 90s, 10m or 2h, loading and baselines included.",
        show_default=False,
    ),
]
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def limit_of(written: str | None, plans: Iterable[Plan], *, is_program: bool) -> TimeLimit | None:
    """From now on, where one is written. Raises PlanError for one into which not even the shortest of these plans fits."""
    if written is None:
        return None
    limit = TimeLimit(lasts_s(written))
    least = min(least_s(plan, is_program=is_program) for plan in plans)
    if least < limit.limit_s:
        return limit
    raise PlanError(
        "--max-time",
        found=f"{limit.limit_s:g} s",
        expected=f"more than {least:g} s, which the plan takes at least",
        hint="--dry-run says how long it takes",
    )


def lasts_s(written: str) -> float:
    """Seconds of such as 90, 90s, 10m, 2h or 1d. Raises PlanError."""
    length = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", written)
    if length is None or not float(length[1]):
        raise PlanError("--max-time", found=repr(written), expected="a time such as 90s, 10m, 2h")
    return float(length[1]) * _SECONDS[length[2]]
