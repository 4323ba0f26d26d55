"""What every engine does: load a model, turn prompts into tokens, run batches; and what comes out of a batch."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Literal, Protocol

from llem.prompts import EncodedPrompt, Prompt
from llem_events.events import ModelLoaded, Request

__all__ = ["EncodedPrompt", "Engine", "Prompt"]
FinishReason = Literal["length", "eos", "stopped", "error"]


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


class GroupedEngine(Engine, Protocol):
    """One that runs a model together with those of other processes, batch by batch in step."""

    def agree(self, goes_on: bool) -> bool:
        """What rank 0 of the group says; all of them ask at the same places."""
        ...


class GeneratedSequence:
    """The output of one prompt as it grows, step by step."""

    __slots__ = ("error", "finish_reason", "prompt", "step_times_ns", "step_tokens", "token_ids")

    def __init__(self, prompt: EncodedPrompt) -> None:
        self.prompt = prompt
        self.token_ids: list[int] = []
        self.step_times_ns: list[int] = []
        self.step_tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None

    def take(self, token_ids: Sequence[int], *, at_ns: int, eos_ids: frozenset[int]) -> int:
        """Take what one step brought, up to the sequence's end; return how many tokens that is."""
        room = self.prompt.max_new_tokens - len(self.token_ids)
        taken = token_ids[:room]
        if not eos_ids.isdisjoint(taken):
            taken = taken[: 1 + next(place for place, token_id in enumerate(taken) if token_id in eos_ids)]
            self.finish_reason = "eos"
        elif len(taken) == room:
            self.finish_reason = "length"
        self.token_ids += taken
        self.step_times_ns.append(at_ns)
        self.step_tokens.append(len(taken))
        return len(taken)


class Generation:
    """The outputs of a batch.

    An end-of-sequence token was computed like any other, so it is the last token that counts; what the batch
    computes for a sequence after it, or after the sequence's own limit, does not.
    """

    def __init__(self, batch: Sequence[EncodedPrompt], *, eos_ids: frozenset[int] = frozenset()) -> None:
        self.sequences = [GeneratedSequence(prompt) for prompt in batch]
        self._eos_ids = eos_ids
        self._live = list(enumerate(self.sequences))

    @property
    def finished(self) -> bool:
        """Whether no sequence can take another token."""
        return not self._live

    @property
    def max_steps(self) -> int:
        """Steps after which every sequence has reached its own limit."""
        return max(sequence.prompt.max_new_tokens for sequence in self.sequences)

    def append(self, token_ids: Sequence[Sequence[int]], *, at_ns: int) -> int:
        """Take one step's tokens of every sequence in the batch; return how many of them count."""
        counted = sum(
            sequence.take(token_ids[row], at_ns=at_ns, eos_ids=self._eos_ids) for row, sequence in self._live
        )
        self._drop_ended()
        return counted

    def end(self, reason: FinishReason, *, error: str | None = None) -> None:
        """End every sequence that still runs; it keeps what it has."""
        for _, sequence in self._live:
            sequence.finish_reason, sequence.error = reason, error
        self._live = []

    def fail(self, request_ids: Collection[int], *, error: str) -> None:
        """End the named sequences with an error, also where they had ended well."""
        for sequence in self.sequences:
            if sequence.prompt.request_id in request_ids:
                sequence.finish_reason, sequence.error = "error", error
        self._drop_ended()

    def _drop_ended(self) -> None:
        if any(sequence.finish_reason is not None for _, sequence in self._live):
            self._live = [(row, sequence) for row, sequence in self._live if sequence.finish_reason is None]


def requests_of(
    generation: Generation,
    *,
    batch_index: int,
    arrival_ns: int,
    start_ns: int,
    end_ns: int,
    tokens_computed: int | None = None,
    to_text: Callable[[Sequence[int]], str] | None = None,
) -> list[Request]:
    """One Request per sequence; one that finished ends with its last token, any other at the batch's `end_ns`.

    Texts are left out unless `to_text` turns token ids into them.
    """
    return [
        Request(
            request_id=sequence.prompt.request_id,
            batch_index=batch_index,
            batch_size=len(generation.sequences),
            arrival_ns=arrival_ns,
            start_ns=start_ns,
            first_token_ns=sequence.step_times_ns[0] if sequence.step_times_ns else None,
            end_ns=_end_ns(sequence, end_ns=end_ns),
            input_tokens=len(sequence.prompt.token_ids),
            output_tokens=len(sequence.token_ids),
            **_times(sequence),
            tokens_computed=tokens_computed,
            finish_reason=sequence.finish_reason or "stopped",
            error=sequence.error,
            prompt=to_text and (sequence.prompt.text or to_text(sequence.prompt.token_ids)),
            output=to_text and to_text(sequence.token_ids),
        )
        for sequence in generation.sequences
    ]


def _times(sequence: GeneratedSequence) -> dict[str, Any]:
    """A time for each token where every step brought one, else for each step, as a chunk."""
    if all(tokens == 1 for tokens in sequence.step_tokens):
        return {"token_times_ns": sequence.step_times_ns}
    return {"chunk_times_ns": sequence.step_times_ns, "chunk_tokens": sequence.step_tokens}


def _end_ns(sequence: GeneratedSequence, *, end_ns: int) -> int:
    finished = sequence.finish_reason in {"length", "eos"}
    return sequence.step_times_ns[-1] if finished else end_ns
