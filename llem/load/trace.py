"""Traces: JSON Lines of when requests came and how long they were, in the names of Mooncake's traces."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from llem.errors import PlanError
from llem.plan import MAX_TOKENS
from llem.prompts import Prompt

MAX_LINE_BYTES = 2**20
BLOCK_TOKENS = 512  # of Mooncake's traces
_FIELDS = "timestamp (ms), input_length and output_length, perhaps hash_ids"


class TracedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One line; equal `hash_ids` are equal blocks of tokens. Further fields are not used."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


_decoder = msgspec.json.Decoder(TracedRequest)


def read_trace(path: Path) -> list[TracedRequest]:
    """The requests in the order of their times. Raises PlanError."""
    requests = sorted(_lines(path), key=lambda request: request.timestamp)
    if not requests:
        raise PlanError(f"trace {path}", found="no line", expected=f"JSON Lines of {_FIELDS}")
    return requests


def prompts_of(requests: list[TracedRequest], *, seed: int, is_warmup: bool) -> list[Prompt]:
    """A prompt of drawn tokens for each request, as long as in the trace and with the same blocks; a warm-up has blocks of its own."""
    return [
        Prompt(
            request_id=number,
            input_tokens=request.input_length,
            max_new_tokens=request.output_length,
            seed=seed + number,
            shared=tuple(_blocks(request, is_warmup=is_warmup)),
        )
        for number, request in enumerate(requests)
    ]


def _blocks(request: TracedRequest, *, is_warmup: bool) -> Iterator[tuple[int, int]]:
    """Seed and tokens of each block; the last may be cut, and what no block covers is the prompt's own."""
    left = request.input_length
    for block in request.hash_ids:
        tokens = min(BLOCK_TOKENS, left)
        if tokens == 0:
            return
        left -= tokens
        yield (-1 - block if is_warmup else block), tokens


def _lines(path: Path) -> Iterator[TracedRequest]:
    try:
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if line.strip():
                    yield _request(path, number, line)
    except OSError as error:
        raise PlanError(f"trace {path} cannot be read", found=error.strerror) from None


def _request(path: Path, number: int, line: bytes) -> TracedRequest:
    try:
        request = _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PlanError(f"trace {path}, line {number}", found=error, expected=_FIELDS) from None
    for name in ("input_length", "output_length"):
        if not 1 <= getattr(request, name) <= MAX_TOKENS:
            found = f"{name} {getattr(request, name)}"
            raise PlanError(f"trace {path}, line {number}", found=found, expected=f"1 to {MAX_TOKENS}")
    return request
