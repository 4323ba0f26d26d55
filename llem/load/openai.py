"""The endpoints that OpenAI made usual: each prompt as the whole HTTP message that asks it, and what a piece of their streams says."""

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from hashlib import shake_128
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llem.errors import PlanError
from llem.load.http1 import AnswerError, Target
from llem.plan import Plan
from llem.prompts import Prompt, prompt_text

Endpoint = Literal["completions", "chat"]
PATHS: Mapping[Endpoint, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
DONE = b"[DONE]"
NUMBERS = 2**16  # of which one is drawn for each token
_SHOWN_CHARACTERS = 300
MAX_COUNT = 2**31 - 1  # what a column of the log holds; any larger number is no count
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
# Each is one token in most vocabularies.
_TEXT = (
    "the of and to in is that it was for on are as with his they at be this from have or by one had not but what all were "
    "when we there can an your which their said if do will each about how up out them then she many some so these would other "
    "into has more her two like him see time could no make than first been its who now people my made over did down only way "
    "find use may water long little very after words called just where most know"
)
_WORDS = _TEXT.split()


class Delta(msgspec.Struct, gc=False):
    """What a piece adds to a message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct, gc=False):
    """One answer of those that a request asks for; llem asks for one."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class Usage(msgspec.Struct, gc=False):
    """Tokens as the server counts them, of the whole request so far."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Timings(msgspec.Struct, gc=False):
    """What llama.cpp adds; `predicted_n` counts the output tokens so far."""

    predicted_n: Count | None = None
    cache_n: Count | None = None


class Chunk(msgspec.Struct, gc=False):
    """A piece of a stream, as far as it is of use."""

    choices: list[Choice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(Chunk)
_list_decoder = msgspec.json.Decoder(list[Chunk])
_UNFIT = (msgspec.MsgspecError, ValueError, RecursionError)
_encoder = msgspec.json.Encoder()


def decode_chunks(events: Sequence[bytes]) -> Iterable[Chunk]:
    """The pieces, those before a wrong one too. Raises AnswerError for what is none, and for an error that the server sends in its stream."""
    try:
        # as one array, because each call costs as much as a small piece
        return _list_decoder.decode(b"[%b]" % b",".join(events))
    except _UNFIT:
        return map(_decode_chunk, events)


def _decode_chunk(event: bytes) -> Chunk:
    try:
        return _decoder.decode(event)
    except _UNFIT as error:
        found = event[:60].decode(errors="replace")
        raise AnswerError(f"a piece of the stream is not as expected: {error}, in {found!r}") from None


def in_stream(error: Any) -> AnswerError:
    """What a server says in its stream when it gives up."""
    return AnswerError(f"the server sent an error in its stream: {_message_of(error)}")


def text_of(delta: Delta) -> str | None:
    """The text that a piece of a chat brought, answer or reasoning; a piece of a tool call counts, and nothing is None or empty."""
    return delta.content or delta.reasoning_content or delta.reasoning or (" " if delta.tool_calls else None)


def error_of(status: int, body: bytes) -> str:
    """What a server says in an answer that is no stream, in one line."""
    try:
        decoded = msgspec.json.decode(body)
    except _UNFIT:
        decoded = body.decode(errors="replace")
    if isinstance(decoded, dict):
        decoded = decoded.get("error", decoded.get("detail", decoded))
    text = _message_of(decoded)
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"


def _message_of(said: Any) -> str:
    if isinstance(said, dict):
        said = said.get("message", said)
    return " ".join(str(said).split())[:_SHOWN_CHARACTERS]


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A request's body; `input_tokens` is None where only the server can count them."""

    body: bytes
    input_tokens: int | None
    max_tokens: int
    text: str | None


class RequestWriter:
    """Turns prompts into bodies; a synthetic prompt is drawn anew in each round, so that no cache knows it."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        model: str,
        extra: Mapping[str, Any],
        vocabulary: tuple[int, int] | None,
        keeps_text: bool,
    ) -> None:
        self._is_chat, self._keeps_text = endpoint == "chat", keeps_text
        fixed = {"model": model, "stream": True, "stream_options": {"include_usage": True}, **extra}
        # encoded once; what differs from request to request follows
        self._fixed = _encoder.encode(fixed)[:-1]
        # for synthetic prompts: the token id of each number in digits; None where the server gets words
        self._ids = None if self._is_chat or vocabulary is None else _spread(*vocabulary)

    def prepare(self, prompt: Prompt, *, round_index: int) -> Prepared:
        """The body for one prompt."""
        text = prompt_text(prompt)
        if text is None and self._ids is not None:
            numbers = _numbers(prompt, round_index)
            ids = b",".join(map(self._ids.__getitem__, numbers))
            body = b'%b,"prompt":[%b],"max_tokens":%d}' % (self._fixed, ids, prompt.max_new_tokens)
            return Prepared(body, len(numbers), prompt.max_new_tokens, None)
        text = text or _words(prompt, round_index)
        if self._is_chat:
            said: Any = prompt.messages or [{"role": "user", "content": text}]
            asked = b'"messages":%b' % _encoder.encode(said)
        else:
            asked = b'"prompt":%b' % _encoder.encode(text)
        body = b'%b,%b,"max_tokens":%d}' % (self._fixed, asked, prompt.max_new_tokens)
        return Prepared(body, None, prompt.max_new_tokens, text if self._keeps_text else None)


def _words(prompt: Prompt, round_index: int) -> str:
    return " ".join(_WORDS[number % len(_WORDS)] for number in _numbers(prompt, round_index))


def _numbers(prompt: Prompt, round_index: int) -> Sequence[int]:
    """A number below NUMBERS for each token: those of a shared piece always the same, the prompt's own the same for the same seed and round."""
    digest = _digest(f"{prompt.seed}:{round_index}", prompt.own_tokens())
    if prompt.shared:
        digest = b"".join(_digest(f"shared:{seed}", tokens) for seed, tokens in prompt.shared) + digest
    return array("H", digest)


@cache
def _spread(first: int, end: int) -> list[bytes]:
    """The token id for each number in digits, all of them equally far apart: looking one up costs a third of working it out."""
    ids = [first + number * (end - first) // NUMBERS for number in range(NUMBERS)]
    digits = {token_id: b"%d" % token_id for token_id in ids}
    return [digits[token_id] for token_id in ids]


def _digest(seed: str, tokens: int) -> bytes:
    return shake_128(seed.encode()).digest(2 * tokens)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be known of a server to ask it."""

    base_url: str
    model: str
    body: Mapping[str, Any]
    api_key_env: str | None
    vocabulary: tuple[int, int] | None


class Source:
    """The n-th request is the prompt n of the plan; the prompts are gone through again from their start."""

    def __init__(
        self, plan: Plan, prompts: Sequence[Prompt], server: Server, *, is_warmup: bool = False
    ) -> None:
        """What a warm-up draws is drawn anew for a measurement, so that no cache knows it. Raises PlanError."""
        endpoint = _endpoint(plan, prompts)
        self._prompts, self._is_warmup = prompts, is_warmup
        self._head = _head(server, endpoint)
        self._writer = RequestWriter(
            endpoint,
            model=server.model,
            extra=server.body,
            vocabulary=server.vocabulary,
            keeps_text=plan.workload.record_text,
        )

    def request(self, number: int) -> tuple[bytes, Prepared]:
        """The message of the n-th request, and what there is to know of it."""
        repeat, index = divmod(number, len(self._prompts))
        round_index = -1 - repeat if self._is_warmup else repeat
        prepared = self._writer.prepare(self._prompts[index], round_index=round_index)
        return self._head % len(prepared.body) + prepared.body, prepared


def _endpoint(plan: Plan, prompts: Sequence[Prompt]) -> Endpoint:
    has_messages = any(prompt.messages is not None for prompt in prompts)
    if plan.load.endpoint == "auto":
        return "chat" if has_messages else "completions"
    if has_messages and plan.load.endpoint == "completions":
        found = "completions, and prompts of messages"
        raise PlanError("plan key load.endpoint", found=found, expected="chat or auto")
    return plan.load.endpoint


def _head(server: Server, endpoint: Endpoint) -> bytes:
    """Request line and headers, with a place for the length."""
    target = Target(server.base_url)
    key = None if server.api_key_env is None else _api_key(server.api_key_env)
    lines = [
        f"POST {target.base}{PATHS[endpoint]} HTTP/1.1",
        f"Host: {target.authority}",
        "User-Agent: llem",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        *([] if key is None else [f"Authorization: Bearer {key}"]),
    ]
    return "\r\n".join(lines).encode().replace(b"%", b"%%") + b"\r\nContent-Length: %d\r\n\r\n"


def _api_key(variable: str) -> str:
    """The key itself, which no message, log or screen holds."""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        found = "an empty or unprintable one" if variable in os.environ else "none"
        raise PlanError(f"environment variable {variable}", found=found, expected="the server's API key")
    return key
