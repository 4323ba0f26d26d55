"""Traces: JSON Lines of when requests came and how long they were, in the names of Mooncake's traces."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from llem.errors import PlanError
from llem.plan import MAX_TOKENS
from llem.prompts import Prompt

MAX_LINE_BYTES = 2**20
_FIELDS = "timestamp (ms), input_length and output_length"


class TracedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One line; further fields are not used."""

    timestamp: float
    input_length: int
    output_length: int


_decoder = msgspec.json.Decoder(TracedRequest)


def read_trace(path: Path) -> list[TracedRequest]:
    """The requests in the order of their times. Raises PlanError."""
    requests = sorted(_lines(path), key=lambda request: request.timestamp)
    if not requests:
        raise PlanError(f"trace {path}", found="no line", expected=f"JSON Lines of {_FIELDS}")
    return requests


def prompts_of(requests: list[TracedRequest], *, seed: int) -> list[Prompt]:
    """A prompt of drawn tokens for each request, as long as in the trace."""
    return [
        Prompt(
            request_id=number,
            input_tokens=request.input_length,
            max_new_tokens=request.output_length,
            seed=seed + number,
        )
        for number, request in enumerate(requests)
    ]


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
