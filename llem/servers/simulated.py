"""A server without a model: given tokens at given times over real HTTP, so that everything around a server can be tried."""

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from llem.plan import Plan
from llem.servers.base import HOST, Counters, Launch

COUNTERS: Counters | None = Counters("simulated:prompt_tokens_total", "simulated:generation_tokens_total")


class SimulatedServer:
    """A process of our own, `llem.servers.simulated_program`."""

    NAME: ClassVar[str] = "simulated"
    READY_PATH: ClassVar[str] = "/health"
    METRICS_PATH: ClassVar[str | None] = "/metrics"
    COUNTERS: ClassVar[Counters | None] = COUNTERS

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def launch(self, *, port: int) -> Launch:
        times = msgspec.json.encode(self._plan.server.simulated).decode()
        argv = [sys.executable, "-m", "llem.servers.simulated_program", HOST, str(port), times]
        return Launch(argv=[*argv, *self._plan.server.args])

    def model(self) -> str:
        return "simulated"

    def vocabulary(self, listed: Mapping[str, Any]) -> tuple[int, int]:
        return 0, 256

    def body(self) -> dict[str, Any]:
        """It chooses no tokens."""
        return {}

    def versions(self) -> dict[str, str]:
        """No package runs it."""
        return {}


def create(plan: Plan) -> SimulatedServer:
    """The simulated server with the plan's times."""
    return SimulatedServer(plan)


def check(plan: Plan) -> None:
    """Anything can be simulated."""
