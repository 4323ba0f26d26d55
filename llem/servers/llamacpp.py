"""llama.cpp's server: the `llama-server` on the PATH, else the one in the wheel xllamacpp."""

import shutil
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from llem.errors import MissingExtraError
from llem.plan import Plan
from llem.servers.base import (
    HOST,
    Counters,
    Launch,
    has_package,
    plain_tokens,
    require_file,
    sampling,
    version_of,
)

PROGRAM, PACKAGE = "llama-server", "xllamacpp"
_A_FILE = "FILE.gguf, a model that llama.cpp can read"


COUNTERS: Counters | None = Counters("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total")


class LlamaCppServer:
    """One model in a GGUF file; closes the connection after every streamed answer."""

    NAME: ClassVar[str] = "llamacpp"
    READY_PATH: ClassVar[str] = "/health"
    METRICS_PATH: ClassVar[str | None] = "/metrics"
    COUNTERS: ClassVar[Counters | None] = COUNTERS

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def launch(self, *, port: int) -> Launch:
        program = shutil.which(PROGRAM)
        begin = [program] if program else [sys.executable, "-m", "llem.servers.llamacpp_wheel"]
        model = require_file(self._plan, what=_A_FILE)
        return Launch(
            argv=[
                *begin,
                "--model",
                str(model),
                "--host",
                HOST,
                "--port",
                str(port),
                "--metrics",
                *self._plan.server.args,
            ]
        )

    def model(self) -> None:
        """It takes any name."""

    def vocabulary(self, listed: Mapping[str, Any]) -> tuple[int, int] | None:
        size = (listed.get("meta") or {}).get("n_vocab")
        return plain_tokens(size) if isinstance(size, int) else None

    def body(self) -> dict[str, Any]:
        return {"timings_per_token": True, **sampling(self._plan, ignores_end=True)}

    def versions(self) -> dict[str, str]:
        return version_of(PACKAGE)


def create(plan: Plan) -> LlamaCppServer:
    """The server of the plan's file."""
    return LlamaCppServer(plan)


def check(plan: Plan) -> None:
    """Raises LlemError without the program, the wheel or the file."""
    if shutil.which(PROGRAM) is None and not has_package(PACKAGE):
        raise MissingExtraError(
            "server llamacpp",
            found=f"no {PROGRAM} on the PATH and no package {PACKAGE}",
            hint=f"pip install {PACKAGE}, or build llama.cpp",
        )
    require_file(plan, what=_A_FILE)
