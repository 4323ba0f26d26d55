"""Turns prompts into token ids: by the model's tokenizer, or a byte per token where it has none."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import AutoTokenizer

from llem.engines.base import EncodedPrompt, Prompt
from llem.engines.hf_errors import LOADING_ERRORS, loading_error
from llem.engines.sources import ModelSource
from llem.errors import EngineError

BYTES = 256
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


class Tokens(Protocol):
    """Text to ids and back."""

    name: str
    special_ids: frozenset[int]
    size: int

    def to_ids(self, text: str) -> list[int]: ...

    def to_text(self, token_ids: Sequence[int]) -> str: ...


class ByteTokens:
    """Ids are bytes, so counts are exact."""

    name = "bytes"
    special_ids: frozenset[int] = frozenset()

    def __init__(self, vocabulary_size: int) -> None:
        self.size = vocabulary_size

    def to_ids(self, text: str) -> list[int]:
        if self.size < BYTES:
            raise EngineError(
                "the vocabulary cannot hold bytes", found=f"{self.size} tokens", expected=f"at least {BYTES}"
            )
        return list(text.encode())

    def to_text(self, token_ids: Sequence[int]) -> str:
        return bytes(token_id % BYTES for token_id in token_ids).decode(errors="replace")


class TokenizerTokens:
    """Ids of the tokenizer that came with the model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.name: str = type(tokenizer).__name__
        self.special_ids = frozenset(tokenizer.all_special_ids)
        self.size = len(tokenizer)

    def to_ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def to_text(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids)))


class PromptEncoder:
    """Prompts to ids that the model can take: synthetic ones from the usable vocabulary, without special tokens."""

    def __init__(
        self, tokens: Tokens, *, vocabulary_size: int, reserved_ids: frozenset[int], max_length: int | None
    ) -> None:
        reserved = tokens.special_ids | reserved_ids
        self._tokens = tokens
        self._usable = [
            token_id for token_id in range(min(vocabulary_size, tokens.size)) if token_id not in reserved
        ]
        self._vocabulary_size = vocabulary_size
        self._max_length = max_length

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """The prompt's ids. Raises EngineError for a prompt that the model cannot take."""
        token_ids = self._synthetic(prompt) if prompt.text is None else self._tokens.to_ids(prompt.text)
        self._check(prompt, token_ids)
        return EncodedPrompt(
            request_id=prompt.request_id,
            max_new_tokens=prompt.max_new_tokens,
            token_ids=tuple(token_ids),
            text=prompt.text,
        )

    def any_ids(self, count: int) -> list[int]:
        """So many ordinary token ids."""
        return random.Random(0).choices(self._usable, k=count)

    def _synthetic(self, prompt: Prompt) -> list[int]:
        return random.Random(prompt.seed).choices(self._usable, k=prompt.input_tokens or 0)

    def _check(self, prompt: Prompt, token_ids: Sequence[int]) -> None:
        if not token_ids:
            raise EngineError(f"prompt {prompt.request_id} has no tokens", expected="at least one")
        if max(token_ids) >= self._vocabulary_size:
            raise EngineError(
                f"prompt {prompt.request_id} does not fit the vocabulary",
                found=f"token {max(token_ids)}",
                expected=f"below {self._vocabulary_size}",
                hint="the tokenizer belongs to another model",
            )
        length = len(token_ids) + prompt.max_new_tokens
        if self._max_length is not None and length > self._max_length:
            raise EngineError(
                f"prompt {prompt.request_id} is too long for the model",
                found=f"{len(token_ids)} input + {prompt.max_new_tokens} output tokens",
                expected=f"at most {self._max_length} together",
                hint="shorten workload.input_tokens or workload.output_tokens",
            )


def load_tokens(source: ModelSource, *, vocabulary_size: int) -> Tokens:
    """The tokenizer of the model's folder or hub repository; bytes where the model has none."""
    if source.kind in {"preset", "config"} or (
        source.kind == "path" and not _has_tokenizer(Path(source.location))
    ):
        return ByteTokens(vocabulary_size)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.location, revision=source.revision, trust_remote_code=source.trust_remote_code
        )
    except LOADING_ERRORS as error:
        raise loading_error(error, source) from error
    return TokenizerTokens(tokenizer)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in _TOKENIZER_FILES)


def special_ids(config: Any) -> frozenset[int]:
    """Begin, end and padding ids that a configuration names."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return frozenset(token_id for name in names for token_id in ids_of(getattr(config, name, None)))


def ids_of(named: int | list[int] | None) -> frozenset[int]:
    """The ids that a configuration names: none, one or several."""
    if named is None:
        return frozenset()
    return frozenset([named] if isinstance(named, int) else named)
