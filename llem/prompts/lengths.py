"""Token counts drawn from the plan's distributions."""

import math
import random

from llem.errors import PlanError
from llem.plan import LengthPlan


def draw_length(lengths: LengthPlan, rng: random.Random) -> int:
    """A token count from the distribution; `mean` is the arithmetic mean before the cut to [min, max]."""
    if lengths.kind == "fixed":
        return lengths.mean
    if lengths.min > lengths.max:
        raise PlanError(
            "lengths cannot be drawn", found=f"min {lengths.min} > max {lengths.max}", expected="min <= max"
        )
    if lengths.kind == "uniform":
        return rng.randint(lengths.min, lengths.max)
    location = math.log(lengths.mean) - lengths.spread**2 / 2
    drawn = round(rng.lognormvariate(location, lengths.spread))
    return min(max(drawn, lengths.min), lengths.max)
