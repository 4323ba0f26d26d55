"""What every engine does: load a model, turn prompts into tokens, run batches."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from llem.prompts import EncodedPrompt, Prompt
from llem_events.events import ModelLoaded, Request

__all__ = ["EncodedPrompt", "Engine", "Prompt"]


class Engine(Protocol):
    """Runs a model; knows nothing of power or storage. Used from one thread of one process."""

    NAME: ClassVar[str]

    def load(self) -> ModelLoaded:
        """Load the model onto its device. Raises EngineError with what to try."""
        ...

    def encode(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Token ids of each prompt, before or after `load`; one that the model cannot take has a refusal."""
        ...

    def run(
        self,
        batch: Sequence[EncodedPrompt],
        *,
        batch_index: int,
        arrival_ns: int,
        should_stop: Callable[[], bool],
        on_tokens: Callable[[int], None],
    ) -> list[Request]:
        """Run one batch to its end and return one Request per prompt, times on the host's monotonic clock.

        `should_stop` is asked once per token step; a stopped request has finish_reason "stopped" and keeps what it
        had. `on_tokens(n)` is told of n new real output tokens per step, for the progress line. A failure of one
        batch is returned as requests with finish_reason "error"; it is raised only when the engine cannot go on.
        """
        ...

    def synchronize(self) -> None:
        """Return when the device has finished all queued work."""
        ...

    def peak_memory_bytes(self) -> int | None:
        """Peak device memory held by the model's process since load; None where it cannot be known."""
        ...

    def versions(self) -> dict[str, str]:
        """Package name -> version of what runs the model."""
        ...

    def close(self) -> None:
        """Free the model; may be called twice."""
        ...
