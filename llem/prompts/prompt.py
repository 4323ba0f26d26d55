"""A prompt as the plan asks for it, and as the engine gets it."""

from typing import Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation, for a model's chat template."""

    role: Role
    content: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan asks for: a text, messages, or else `input_tokens` seeded token ids."""

    request_id: int
    max_new_tokens: int
    text: str | None = None
    messages: tuple[ChatMessage, ...] | None = None
    input_tokens: int | None = None
    seed: int = 0


class EncodedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine really gets."""

    request_id: int
    max_new_tokens: int
    token_ids: tuple[int, ...]
    text: str | None = None
