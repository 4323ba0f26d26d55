"""What every server does: say how it is started, where it tells its health and its counters, and what stands in a log of it."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

HOST = "127.0.0.1"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """The command line of a server, and the variables beside those that it inherits."""

    argv: list[str]
    environment: dict[str, str] = {}


class Counters(NamedTuple):
    """Names of the counters of tokens among a server's metrics."""

    input_tokens: str
    output_tokens: str


class Server(Protocol):
    """A kind of serving engine; knows nothing of power, storage or a model runtime."""

    NAME: ClassVar[str]
    # answers 200 when requests are taken
    READY_PATH: ClassVar[str]
    # Prometheus text; None: it tells none
    METRICS_PATH: ClassVar[str | None]
    COUNTERS: ClassVar[Counters | None]

    def launch(self, *, port: int) -> Launch | None:
        """How it is started on this port of HOST; None for one that runs already."""
        ...

    def model(self) -> str | None:
        """What requests have to call the model; None: the first one that the server lists."""
        ...

    def vocabulary(self, listed: Mapping[str, Any]) -> tuple[int, int] | None:
        """The least token id to ask with and the one after the highest, given what the server lists of its model.

        None: it is asked with texts.
        """
        ...

    def body(self) -> dict[str, Any]:
        """Fields of every request beside those that each has: how tokens are chosen, and what makes the server count them piece by piece."""
        ...

    def versions(self) -> dict[str, str]:
        """Package -> version, as far as that is known before it runs."""
        ...
