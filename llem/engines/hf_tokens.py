"""Text to token ids and back: by the model's tokenizer, or a byte per token where it has none."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from transformers import AutoTokenizer

from llem.engines.hf_errors import LOADING_ERRORS, loading_error
from llem.engines.sources import ModelSource
from llem.errors import EngineError
from llem.prompts import ChatMessage

BYTES = 256
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")


class Tokens(Protocol):
    """Text to ids and back."""

    name: str
    special_ids: frozenset[int]
    begin_id: int | None
    size: int

    def to_ids(self, text: str, *, special: bool) -> list[int]:
        """Ids of the text; with those that the tokenizer puts around it where `special`."""
        ...

    def rendered(self, messages: Sequence[ChatMessage]) -> str:
        """The messages as the model's chat template writes them, up to where it has to answer. Raises EngineError."""
        ...

    def to_text(self, token_ids: Sequence[int]) -> str: ...


class ByteTokens:
    """Ids are bytes, so counts are exact."""

    name = "bytes"
    special_ids: frozenset[int] = frozenset()
    begin_id: int | None = None

    def __init__(self, vocabulary_size: int) -> None:
        self.size = vocabulary_size

    def to_ids(self, text: str, *, special: bool) -> list[int]:
        if self.size < BYTES:
            raise EngineError(
                "the vocabulary cannot hold bytes", found=f"{self.size} tokens", expected=f"at least {BYTES}"
            )
        return list(text.encode())

    def rendered(self, messages: Sequence[ChatMessage]) -> str:
        raise no_chat_template()

    def to_text(self, token_ids: Sequence[int]) -> str:
        return bytes(token_id % BYTES for token_id in token_ids).decode(errors="replace")


class TokenizerTokens:
    """Ids of the tokenizer that came with the model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.name: str = type(tokenizer).__name__
        self.special_ids = frozenset(tokenizer.all_special_ids)
        self.begin_id: int | None = tokenizer.bos_token_id
        self.size = len(tokenizer)

    def to_ids(self, text: str, *, special: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def rendered(self, messages: Sequence[ChatMessage]) -> str:
        if not self._tokenizer.chat_template:
            raise no_chat_template()
        conversation = [msgspec.structs.asdict(message) for message in messages]
        return str(
            self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        )

    def to_text(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids)))


def no_chat_template() -> EngineError:
    """What to do with messages for a model that has no template for them."""
    return EngineError(
        "the model has no chat template",
        found="prompts that are messages",
        hint="workload.chat = 'never' takes the messages' texts as they are",
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
