"""Prompts as the model takes them: tokenizer or a byte a token, chat template, special tokens, length; what cannot be is refused by prompt."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from transformers import AutoTokenizer, GenerationConfig

from llem.engines.base import EncodedPrompt, Prompt
from llem.engines.hf_model import LOADING_ERRORS, load_config, loading_error
from llem.engines.hub import type_and_text
from llem.engines.sources import ModelSource
from llem.errors import EngineError
from llem.plan import WorkloadPlan
from llem.prompts import ChatMessage, drawn_ids, prompt_text

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


class PromptEncoder:
    """Prompts to ids; synthetic ones are drawn from the usable vocabulary, without special tokens."""

    def __init__(
        self,
        tokens: Tokens,
        workload: WorkloadPlan,
        *,
        vocabulary_size: int,
        reserved_ids: frozenset[int],
        max_length: int | None,
    ) -> None:
        reserved = tokens.special_ids | reserved_ids
        self.tokens = tokens
        self._workload = workload
        self._usable = [
            token_id for token_id in range(min(vocabulary_size, tokens.size)) if token_id not in reserved
        ]
        self._vocabulary_size = vocabulary_size
        self._max_length = max_length

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """The prompt's ids, or why the model cannot take it."""
        encoded = EncodedPrompt(
            request_id=prompt.request_id, max_new_tokens=prompt.max_new_tokens, token_ids=()
        )
        try:
            text, token_ids = self._written(prompt)
            self._check_vocabulary(token_ids)
        except EngineError as error:
            return msgspec.structs.replace(encoded, refusal=str(error))
        except Exception as error:  # noqa: BLE001 -- a template is a program of strangers, and the next prompt may go well
            refusal = f"the tokenizer failed: {type_and_text(error)}"
            return msgspec.structs.replace(encoded, refusal=refusal)
        return self._fitted(msgspec.structs.replace(encoded, text=text, token_ids=tuple(token_ids)))

    def any_ids(self, count: int) -> list[int]:
        """So many ordinary token ids."""
        return random.Random(0).choices(self._usable, k=count)

    def _written(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        """The text that the model reads, and its ids."""
        messages = self._messages(prompt)
        if messages is not None:
            text = self.tokens.rendered(messages)
            # a template writes all special tokens itself
            return text, self._ids(text, special=self._workload.special_tokens == "always")
        plain = prompt_text(prompt)
        if plain is None:
            return None, drawn_ids(prompt, self._usable)
        return plain, self._ids(plain, special=self._workload.special_tokens != "never")

    def _messages(self, prompt: Prompt) -> Sequence[ChatMessage] | None:
        """What goes through the chat template, if anything does."""
        chat = self._workload.chat
        if chat == "never" or (chat == "auto" and prompt.messages is None):
            return None
        if prompt.messages is None and prompt.text is not None:
            return [ChatMessage(role="user", content=prompt.text)]
        return prompt.messages

    def _ids(self, text: str, *, special: bool) -> list[int]:
        """Ids of the text; unless all special tokens are wanted, a text that brings a begin token gets no second."""
        token_ids = self.tokens.to_ids(text, special=special)
        begin_id = self.tokens.begin_id
        is_doubled = begin_id is not None and token_ids[:2] == [begin_id, begin_id]
        if not (special and is_doubled and self._workload.special_tokens == "auto"):
            return token_ids
        brings_one = self.tokens.to_ids(text, special=False)[:1] == [begin_id]
        return token_ids[1:] if brings_one else token_ids

    def _check_vocabulary(self, token_ids: Sequence[int]) -> None:
        if not token_ids:
            raise EngineError("the prompt has no tokens", expected="at least one")
        if max(token_ids) >= self._vocabulary_size:
            raise EngineError(
                "the prompt does not fit the vocabulary",
                found=f"token {max(token_ids)}",
                expected=f"below {self._vocabulary_size}",
                hint="the tokenizer belongs to another model",
            )

    def _fitted(self, prompt: EncodedPrompt) -> EncodedPrompt:
        """The prompt, shortened or refused where it and its output are longer than the model can take."""
        if self._max_length is None or len(prompt.token_ids) + prompt.max_new_tokens <= self._max_length:
            return prompt
        room = self._max_length - prompt.max_new_tokens
        if self._workload.too_long == "truncate" and room > 0:
            return msgspec.structs.replace(prompt, token_ids=prompt.token_ids[-room:], is_too_long=True)
        error = EngineError(
            "the prompt is too long for the model",
            found=f"{len(prompt.token_ids)} input + {prompt.max_new_tokens} output tokens",
            expected=f"at most {self._max_length} together",
            hint="workload.too_long = 'skip' or 'truncate'",
        )
        return msgspec.structs.replace(prompt, refusal=str(error), is_too_long=True)


def load_encoder(source: ModelSource, workload: WorkloadPlan) -> PromptEncoder:
    """The encoder of a model, from its configuration and tokenizer alone. Raises EngineError."""
    try:
        config = load_config(source).get_text_config(decoder=True)
    except LOADING_ERRORS as error:
        raise loading_error(error, source) from error
    return PromptEncoder(
        load_tokens(source, vocabulary_size=config.vocab_size),
        workload,
        vocabulary_size=config.vocab_size,
        reserved_ids=special_ids(config) | _end_ids(source),
        max_length=_max_length(config),
    )


def _max_length(config: Any) -> int | None:
    """The most tokens that the model takes; None where it names no such limit."""
    named = getattr(config, "max_position_embeddings", None)
    return named if isinstance(named, int) and named > 0 else None


def _end_ids(source: ModelSource) -> frozenset[int]:
    """The ids that end a sequence, where the model has a generation configuration of its own."""
    if source.kind not in {"path", "hub"}:
        return frozenset()
    try:
        named: Any = GenerationConfig.from_pretrained(source.location, revision=source.revision).eos_token_id
    except LOADING_ERRORS:
        return frozenset()
    return ids_of(named)
