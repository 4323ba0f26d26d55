"""Requests as events: the rule for their times, and how they are split where one event cannot hold them."""

import operator
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from llem_events.cleaning import shortened
from llem_events.events import Request, RequestsCompleted

_TARGET_BYTES = RequestsCompleted.MAX_BYTES // 2
_LIMIT_BYTES = RequestsCompleted.MAX_BYTES - 2**16
_TEXT_FIELDS = ("error", "prompt", "output", "session_id", "times_reason", "finish_reason")
_texts = operator.attrgetter(*_TEXT_FIELDS)
_OTHER_FIELDS_BYTES = 600  # names and numbers
_INTEGER_BYTES, _COUNT_BYTES, _CHARACTER_BYTES = 9, 5, 6  # at most, in msgpack


def requests_completed(requests: Iterable[Request], *, window: str) -> Iterator[RequestsCompleted]:
    """All requests of a batch, in order, in events that fit their cap.

    One request that fits into no event loses its times, and then the end of its texts; `times_reason` and the text say so.
    """
    part: list[Request] = []
    part_bytes = 0
    for request in requests:
        size = _size(request)
        if size > _LIMIT_BYTES:
            request = _fitting(request)
            size = _size(request)
        if part and part_bytes + size > _TARGET_BYTES:
            yield RequestsCompleted(window=window, requests=part)
            part, part_bytes = [], 0
        part.append(request)
        part_bytes += size
    if part:
        yield RequestsCompleted(window=window, requests=part)


def _size(request: Request) -> int:
    """Bytes of its message, at most."""
    texts = sum(map(len, filter(None, _texts(request))))
    times = len(request.token_times_ns) + len(request.chunk_times_ns)
    counts = len(request.chunk_tokens)
    return _OTHER_FIELDS_BYTES + _CHARACTER_BYTES * texts + _INTEGER_BYTES * times + _COUNT_BYTES * counts


def _fitting(request: Request) -> Request:
    request = _without_times(request)
    return request if _size(request) <= _LIMIT_BYTES else _without_ends(request)


def _without_times(request: Request) -> Request:
    count = len(request.token_times_ns) or len(request.chunk_times_ns)
    if not count:
        return request
    reason = f"{count} times do not fit into one event"
    return msgspec.structs.replace(
        request, token_times_ns=[], chunk_times_ns=[], chunk_tokens=[], times_reason=reason
    )


def _without_ends(request: Request) -> Request:
    longest = _LIMIT_BYTES // _CHARACTER_BYTES // len(_TEXT_FIELDS) - 100
    texts = {field: text for field in _TEXT_FIELDS if (text := getattr(request, field)) is not None}
    return msgspec.structs.replace(
        request, **{field: shortened(text, longest) for field, text in texts.items()}
    )


def times_problem(request: Request) -> str | None:
    """What is wrong with the times of a request; None where exactly one of the three ways holds.

    One time for each output token; or a time and a count for each chunk, whose sum is the output tokens unless a count is None;
    or no times, with a reason. No output tokens need no times and no reason.
    """
    ways = {
        "token times": bool(request.token_times_ns),
        "chunk times": bool(request.chunk_times_ns or request.chunk_tokens),
        "a reason for having none": request.times_reason is not None,
    }
    given = [name for name, holds in ways.items() if holds]
    if len(given) > 1:
        return f"times: found {' and '.join(given)}, expected one of them"
    if ways["chunk times"]:
        return _chunks_problem(request.chunk_times_ns, request.chunk_tokens, request.output_tokens)
    if request.times_reason is None and len(request.token_times_ns) != request.output_tokens:
        return f"token times: found {len(request.token_times_ns)}, expected {request.output_tokens}, one for each output token"
    return None


def _chunks_problem(times_ns: Sequence[int], tokens: Sequence[int | None], output_tokens: int) -> str | None:
    if len(times_ns) != len(tokens):
        return f"chunk times: found {len(times_ns)}, expected {len(tokens)}, one for each count of tokens"
    counted = [count for count in tokens if count is not None]
    if len(counted) == len(tokens) and sum(counted) != output_tokens:
        return f"tokens of all chunks: found {sum(counted)}, expected {output_tokens}, the output tokens"
    return None
