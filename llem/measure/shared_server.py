"""A server under which several experiments are measured: each load of one plan, and the runs of a study for as long as nothing changes but what is asked of it."""

import time
from types import TracebackType

import msgspec

from llem.measure.messages import RunningServer
from llem.plan import LoadPlan, Plan, ValidityPlan, WorkloadPlan
from llem.servers.keeper import Keeper

MARGIN_S = 300.0  # a baseline is not to grow too old while a run is prepared


class SharedServer:
    """A server that one experiment starts and others after it use, so that each rate is an experiment of its own under one server.

    Open while experiments use it; when it is closed, all that its keeper keeps ends.

    `running` is what the last experiment left running; None before the first, and after one that ended it.
    """

    def __init__(self, plan: Plan) -> None:
        is_started_here = plan.is_served and plan.server.url is None
        self.keeper = Keeper.start() if is_started_here else None
        self.running: RunningServer | None = None

    def __enter__(self) -> "SharedServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keeper is not None:
            self.keeper.close()

    def plan_of(self, plan: Plan) -> Plan:
        """The plan of an experiment under a server that runs: the board's idle power is that of the experiment that started it."""
        if self.running is None or plan.windows.baseline_from is not None or not plan.windows.baseline_s:
            return plan
        windows = msgspec.structs.replace(plan.windows, baseline_from=self.running.experiment_id)
        return msgspec.structs.replace(plan, windows=windows)


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
