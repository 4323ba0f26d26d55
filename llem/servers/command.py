"""A server of any kind, started by the plan's own command: TensorRT-LLM, TGI, Ollama, a container."""

import shutil
from collections.abc import Mapping
from typing import Any, ClassVar

from llem.errors import MeasureError, PlanError
from llem.plan import Plan
from llem.servers.base import HOST, Counters, Launch, sampling

COUNTERS: Counters | None = None


class CommandServer:
    """`{host}`, `{port}` and `{model}` in the command are replaced; anything OpenAI-compatible may answer there."""

    NAME: ClassVar[str] = "server command"
    READY_PATH: ClassVar[str] = "/v1/models"
    METRICS_PATH: ClassVar[str | None] = "/metrics"
    COUNTERS: ClassVar[Counters | None] = COUNTERS

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def launch(self, *, port: int) -> Launch:
        placeholders = {"{host}": HOST, "{port}": str(port), "{model}": self._plan.model.name}
        argv = [_filled(word, placeholders) for word in self._plan.server.command]
        return Launch(argv=[*argv, *self._plan.server.args])

    def model(self) -> str | None:
        return self._plan.model.name if self._plan.names_model else None

    def vocabulary(self, listed: Mapping[str, Any]) -> None:
        """What it takes is not known."""

    def body(self) -> dict[str, Any]:
        return sampling(self._plan, ignores_end=True)

    def versions(self) -> dict[str, str]:
        """What it runs is not known."""
        return {}


def _filled(word: str, placeholders: dict[str, str]) -> str:
    for name, text in placeholders.items():
        word = word.replace(name, text)
    return word


def create(plan: Plan) -> CommandServer:
    """The server of the plan's command."""
    return CommandServer(plan)


def check(plan: Plan) -> None:
    """Raises LlemError for a command that cannot be run, or that does not say where to listen."""
    command = plan.server.command
    if not command:
        raise PlanError("plan key server.command", found="nothing", expected="a program and its arguments")
    if shutil.which(command[0]) is None:
        raise MeasureError(
            "server.command", found=command[0], expected="an executable file or a name on PATH"
        )
    if plan.server.port is None and not any("{port}" in word for word in [*command, *plan.server.args]):
        raise PlanError(
            "plan key server.command",
            found="no {port} in it",
            expected="{port} where the port stands, or server.port",
        )
