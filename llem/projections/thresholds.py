"""The thresholds of the verdict as the plan of an experiment has them."""

from typing import Any

import msgspec

from llem.plan import ValidityPlan
from llem.results import InvalidReason


def thresholds(plan: dict[str, Any]) -> ValidityPlan:
    """Those of the plan; one that another llem called otherwise, or that cannot be read, is left at its default."""
    return _read(plan)[0]


def unreadable_thresholds(plan: dict[str, Any]) -> InvalidReason | None:
    """Why the verdict is by other thresholds than were asked for; None where it is not."""
    problem = _read(plan)[1]
    if problem is None:
        return None
    return InvalidReason(
        code="thresholds_unreadable",
        text=f"the plan's thresholds cannot be read, so the defaults stand: {problem}",
    )


def _read(plan: dict[str, Any]) -> tuple[ValidityPlan, str | None]:
    asked = plan.get("validity", {})
    if not isinstance(asked, dict):
        return ValidityPlan(), f"found {type(asked).__name__}, expected a table"
    known = {name: value for name, value in asked.items() if name in ValidityPlan.__struct_fields__}
    try:
        return msgspec.convert(known, ValidityPlan), None
    except msgspec.ValidationError as error:
        return ValidityPlan(), str(error)
