"""SGLang's server: its command line only, which has never been run by us."""

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from llem.plan import Plan
from llem.servers.base import HOST, Counters, Launch, require_model, require_package, sampling, version_of

_A_MODEL = "a folder or a hub name"


COUNTERS: Counters | None = Counters("sglang:prompt_tokens_total", "sglang:generation_tokens_total")


class SglangServer:
    """One model on one or several GPUs."""

    NAME: ClassVar[str] = "sglang"
    READY_PATH: ClassVar[str] = "/health"
    METRICS_PATH: ClassVar[str | None] = "/metrics"
    COUNTERS: ClassVar[Counters | None] = COUNTERS

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def launch(self, *, port: int) -> Launch:
        model = require_model(self._plan, what=_A_MODEL)
        dtype = [] if self._plan.model.dtype == "auto" else ["--dtype", self._plan.model.dtype]
        argv = [
            sys.executable,
            "-m",
            "sglang.launch_server",
            "--model-path",
            model,
            "--host",
            HOST,
            "--port",
            str(port),
        ]
        return Launch(argv=[*argv, "--enable-metrics", *dtype, *self._plan.server.args])

    def model(self) -> None:
        """The first that it lists."""

    def vocabulary(self, listed: Mapping[str, Any]) -> None:
        """Not tried: texts are safe."""

    def body(self) -> dict[str, Any]:
        return sampling(self._plan, ignores_end=True)

    def versions(self) -> dict[str, str]:
        return version_of("sglang")


def create(plan: Plan) -> SglangServer:
    """The server of the plan's model."""
    return SglangServer(plan)


def check(plan: Plan) -> None:
    """Raises LlemError without the package or a model's name."""
    require_package(
        "sglang", server="sglang", hint="pip install sglang, or name its address with --server URL"
    )
    require_model(plan, what=_A_MODEL)
