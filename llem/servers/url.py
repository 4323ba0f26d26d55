"""A server that runs already, at an address: it is measured, and left running."""

from collections.abc import Mapping
from typing import Any, ClassVar

from llem.errors import PlanError
from llem.plan import Plan
from llem.servers.base import Counters, sampling

COUNTERS: Counters | None = None


class AdoptedServer:
    """Anything OpenAI-compatible."""

    NAME: ClassVar[str] = "url"
    READY_PATH: ClassVar[str] = "/v1/models"
    METRICS_PATH: ClassVar[str | None] = "/metrics"
    COUNTERS: ClassVar[Counters | None] = COUNTERS

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def launch(self, *, port: int) -> None:
        """It runs already."""

    def model(self) -> str | None:
        return self._plan.model.name if self._plan.names_model else None

    def vocabulary(self, listed: Mapping[str, Any]) -> None:
        """What it takes is not known."""

    def body(self) -> dict[str, Any]:
        return sampling(self._plan, ignores_end=True)

    def versions(self) -> dict[str, str]:
        """What it runs is not known."""
        return {}


def create(plan: Plan) -> AdoptedServer:
    """The server at the plan's address."""
    return AdoptedServer(plan)


def check(plan: Plan) -> None:
    """Raises LlemError for options of a server that is started, and where nothing answers."""
    if plan.server.url is None:
        raise PlanError(
            "plan key server.url", found="nothing", expected="an address such as http://127.0.0.1:8000"
        )
    for key in ("command", "args", "env", "port"):
        if getattr(plan.server, key):
            raise PlanError(
                f"plan key server.{key}",
                found="a server that runs already",
                expected="its address alone; what follows -- is for a server that llem starts",
            )
