"""A prompt as the plan asks for it, and as the engine gets it; token counts drawn from the plan's distributions."""

import math
import random
from collections.abc import Sequence
from typing import Literal

import msgspec

from llem.errors import PlanError
from llem.plan import LengthPlan

Role = Literal["system", "developer", "user", "assistant", "tool"]


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation, for a model's chat template."""

    role: Role
    content: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan asks for: a text, messages, or else `input_tokens` seeded token ids, of which the first may be those of others, too."""

    request_id: int
    max_new_tokens: int
    text: str | None = None
    messages: tuple[ChatMessage, ...] | None = None
    input_tokens: int | None = None
    seed: int = 0
    shared: tuple[tuple[int, int], ...] = ()  # seed and tokens of each piece that it begins with

    def own_tokens(self) -> int:
        """How many of its drawn tokens are in no shared piece."""
        drawn = self.input_tokens or 0
        return drawn - sum(tokens for _, tokens in self.shared) if self.shared else drawn


class EncodedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine really gets; one with a `refusal` it does not get, and its request fails with it."""

    request_id: int
    max_new_tokens: int
    token_ids: tuple[int, ...]
    text: str | None = None
    refusal: str | None = None
    is_too_long: bool = False  # for the model, as it was asked for


def prompt_text(prompt: Prompt) -> str | None:
    """The prompt's words without any template; None where only token ids are asked for."""
    if prompt.messages is None:
        return prompt.text
    return "\n".join(message.content for message in prompt.messages)


def drawn_ids(prompt: Prompt, vocabulary: Sequence[int]) -> list[int]:
    """The tokens of a prompt that has no words: its shared pieces, each drawn by its own seed, then the rest by the prompt's."""
    pieces = [*prompt.shared, (prompt.seed, prompt.own_tokens())]
    return [
        token_id for seed, tokens in pieces for token_id in random.Random(seed).choices(vocabulary, k=tokens)
    ]


def draw_length(lengths: LengthPlan, rng: random.Random) -> int:
    """A token count from the distribution; `mean` is the arithmetic mean before the cut to [min, max]."""
    if lengths.kind == "fixed":
        return lengths.mean
    if lengths.min > lengths.max:
        raise PlanError(
            "lengths cannot be drawn", found=f"min {lengths.min} > max {lengths.max}", expected="min <= max"
        )
    if lengths.kind == "uniform":
        return rng.randint(lengths.min, lengths.max)
    location = math.log(lengths.mean) - lengths.spread**2 / 2
    drawn = round(rng.lognormvariate(location, lengths.spread))
    return min(max(drawn, lengths.min), lengths.max)
