"""How long a measurement takes at least, and how long it may take."""

import time
from collections.abc import Sequence

from llem.measure.windows import averages_over_s, guard_s
from llem.plan import Plan
from llem_events.events import MeteredDevice

AROUND_RUN_S = 1.0  # what starting, loading and warming up take at least
ENDING_S = 10.0  # for what is asked to end; a load that hangs is then killed


class TimeLimit:
    """Of all that is measured under it, from the moment in which it is made."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._ends_s = time.monotonic() + limit_s

    @property
    def cause(self) -> str:
        """What it is called where it ends something."""
        return f"its time limit of {self.limit_s:g} s"

    def level(self, plan: Plan) -> int:
        """0: go on; 1: stop; 2: kill what was to stop, and has not, though its server had the time to end."""
        over_s = time.monotonic() - self._ends_s
        is_ended_too = plan.is_served and plan.server.url is None
        patience_s = ENDING_S + (plan.server.stop_timeout_s if is_ended_too else 0.0)
        return (over_s >= 0) + (over_s >= patience_s)

    def fits(self, plan: Plan, *, is_program: bool) -> bool:
        """Whether a whole measurement may fit into what is left."""
        return time.monotonic() + least_s(plan, is_program=is_program) <= self._ends_s


def least_s(plan: Plan, *, is_program: bool) -> float:
    """Without the measurement of a program, which nobody knows before, and without a guard that the device decides."""
    return sum(seconds for _, seconds in planned_parts(plan, [], is_program=is_program)) + AROUND_RUN_S


def planned_parts(
    plan: Plan, devices: Sequence[MeteredDevice], *, is_program: bool, loads: int = 1
) -> list[tuple[str, float]]:
    """What lasts as long as the plan says, in its order; of so many loads under one server."""
    windows = plan.windows
    guarded_s = guard_s(windows.guard_s, max(map(averages_over_s, devices), default=0.0))
    is_found = plan.server.url is not None  # the board is never seen without it
    parts = [
        ("idling", 0.0 if windows.baseline_from or is_found else windows.baseline_s),
        ("idling with the server", loads * windows.baseline_s if plan.is_served else 0.0),
        ("measuring", 0.0 if is_program else loads * plan.workload.min_duration_s),
        ("guard", loads * guarded_s),
        ("idling", 0.0 if is_program or is_found else windows.baseline_after_s),
    ]
    return [(name, seconds) for name, seconds in parts if seconds]
