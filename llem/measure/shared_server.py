"""A server that one experiment starts and others after it use, so that each rate is an experiment of its own under one server."""

from types import TracebackType

import msgspec

from llem.measure.messages import RunningServer
from llem.plan import Plan
from llem.servers.keeper import Keeper


class SharedServer:
    """Open while experiments use the server; when it is closed, all that its keeper keeps ends.

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
