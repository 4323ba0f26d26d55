"""The server that runs of a study share as long as nothing changes but what is asked of it."""

import time

import msgspec

from llem.measure.supervisor import SharedServer
from llem.plan import LoadPlan, Plan, ValidityPlan, WorkloadPlan

MARGIN_S = 300.0  # a baseline is not to grow too old while a run is prepared


class StudyServer:
    """Open while a study runs; what it has started has ended when it is closed."""

    def __init__(self) -> None:
        self._shared: SharedServer | None = None
        self._begun_s = 0.0
        self._setting: Plan | None = None

    def __enter__(self) -> "StudyServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def under(self, plan: Plan) -> SharedServer | None:
        """The server for this run: the one that is there, or another in its place; None for a plan without one."""
        if self._setting is not None and (_setting(plan) != self._setting or self._is_old(plan)):
            self._close()
        if plan.is_served and self._shared is None:
            self._shared, self._begun_s, self._setting = SharedServer(plan), time.monotonic(), _setting(plan)
        return self._shared

    def is_kept_for(self, plan: Plan | None) -> bool:
        """Whether the run that follows uses it too."""
        return plan is not None and _setting(plan) == self._setting and not self._is_old(plan)

    def _is_old(self, plan: Plan) -> bool:
        """Whether the idle power that was measured before it was started is no longer to be relied on."""
        limit_s = plan.windows.baseline_max_age_s - MARGIN_S
        return bool(plan.windows.baseline_s) and time.monotonic() - self._begun_s > limit_s

    def _close(self) -> None:
        if self._shared is not None:
            self._shared.__exit__(None, None, None)
        self._shared = self._setting = None


def _setting(plan: Plan) -> Plan:
    """What a server is started for: all of a plan but what is asked of it, how that is called and how it is judged."""
    return msgspec.structs.replace(
        plan, name=None, labels={}, load=LoadPlan(), workload=WorkloadPlan(), validity=ValidityPlan()
    )
