"""`transformers serve`: loads the model that a request names, on the first one."""

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from llem.plan import Plan
from llem.plan_file import path_of
from llem.servers.base import HOST, Counters, Launch, require_model, require_package, sampling, version_of

_HINT = "pip install 'transformers[serving]'"


COUNTERS: Counters | None = None


class TransformersServer:
    """Answers 200 before any model is loaded, and has no metrics."""

    NAME: ClassVar[str] = "transformers"
    READY_PATH: ClassVar[str] = "/health"
    METRICS_PATH: ClassVar[str | None] = None
    COUNTERS: ClassVar[Counters | None] = COUNTERS

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def launch(self, *, port: int) -> Launch:
        device = {"cuda": "cuda:0"}.get(self._plan.engine.device, self._plan.engine.device)
        argv = [
            sys.executable,
            "-m",
            "transformers.cli.transformers",
            "serve",
            "--host",
            HOST,
            "--port",
            str(port),
        ]
        dtype = ["--dtype", self._plan.model.dtype]
        return Launch(argv=[*argv, "--device", device, *dtype, *self._plan.server.args])

    def model(self) -> str:
        """The hub's name, or the folder, which has to be a whole path: the server has a working folder of its own."""
        name = require_model(self._plan, what="FOLDER or a hub name")
        folder = path_of(name)
        return str(folder.resolve()) if folder.is_dir() else name

    def vocabulary(self, listed: Mapping[str, Any]) -> None:
        """It takes texts alone."""

    def body(self) -> dict[str, Any]:
        return sampling(self._plan, ignores_end=False)

    def versions(self) -> dict[str, str]:
        return version_of("transformers") | version_of("torch")


def create(plan: Plan) -> TransformersServer:
    """The server; the plan's model is asked for in each request."""
    return TransformersServer(plan)


def check(plan: Plan) -> None:
    """Raises LlemError without its packages or a model's name."""
    for package in ("transformers", "torch", "fastapi", "uvicorn"):
        require_package(package, server="transformers", hint=_HINT)
    require_model(plan, what="FOLDER or a hub name")
