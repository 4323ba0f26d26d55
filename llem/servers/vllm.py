"""vLLM's server: `vllm serve`. Its GPUs are held by grandchildren of what is started."""

from collections.abc import Mapping
from typing import Any, ClassVar

from llem.plan import Plan
from llem.servers.base import (
    HOST,
    Counters,
    Launch,
    require_model,
    require_program,
    sampling,
    version_of,
    vocabulary_of_folder,
)

_A_MODEL = "a folder or a hub name"


COUNTERS: Counters | None = Counters("vllm:prompt_tokens_total", "vllm:generation_tokens_total")


class VllmServer:
    """One model on one or several GPUs."""

    NAME: ClassVar[str] = "vllm"
    READY_PATH: ClassVar[str] = "/health"
    METRICS_PATH: ClassVar[str | None] = "/metrics"
    COUNTERS: ClassVar[Counters | None] = COUNTERS

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def launch(self, *, port: int) -> Launch:
        model = require_model(self._plan, what=_A_MODEL)
        dtype = [] if self._plan.model.dtype == "auto" else ["--dtype", self._plan.model.dtype]
        revision = ["--revision", self._plan.model.revision] if self._plan.model.revision else []
        argv = ["vllm", "serve", model, "--host", HOST, "--port", str(port)]
        return Launch(argv=[*argv, *dtype, *revision, *self._plan.server.args])

    def model(self) -> None:
        """The first that it lists: --served-model-name may have renamed it."""

    def vocabulary(self, listed: Mapping[str, Any]) -> tuple[int, int] | None:
        return vocabulary_of_folder(self._plan)

    def body(self) -> dict[str, Any]:
        counted = {"include_usage": True, "continuous_usage_stats": True}
        return {"stream_options": counted, **sampling(self._plan, ignores_end=True)}

    def versions(self) -> dict[str, str]:
        return version_of("vllm")


def create(plan: Plan) -> VllmServer:
    """The server of the plan's model."""
    return VllmServer(plan)


def check(plan: Plan) -> None:
    """Raises LlemError without the program or a model's name."""
    require_program("vllm", server="vllm", hint="pip install vllm, or name its address with --server URL")
    require_model(plan, what=_A_MODEL)
