"""Requests as events, however large: split over as many as it takes, and what fits into none is left out with its reason."""

from collections.abc import Iterator, Sequence

import msgspec

from llem_events.cleaning import shortened
from llem_events.events import RequestsCompleted
from llem_events.records import Request

_TARGET_BYTES = RequestsCompleted.MAX_BYTES // 2
_LIMIT_BYTES = RequestsCompleted.MAX_BYTES - 2**16
_TEXT_FIELDS = ("error", "prompt", "output", "session_id", "times_reason", "finish_reason")
_OTHER_FIELDS_BYTES = 600  # names and numbers
_INTEGER_BYTES, _COUNT_BYTES, _CHARACTER_BYTES = 9, 5, 6  # at most, in msgpack


def requests_completed(requests: Sequence[Request], *, window: str) -> Iterator[RequestsCompleted]:
    """All requests of a batch, in order, in events that fit their cap.

    One request that fits into no event loses its times, and then the end of its texts; `times_reason` and the text say so.
    """
    part: list[Request] = []
    part_bytes = 0
    for request in map(_fitting, requests):
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
    texts = sum(len(getattr(request, field) or "") for field in _TEXT_FIELDS)
    times = len(request.token_times_ns) + len(request.chunk_times_ns)
    counts = len(request.chunk_tokens)
    return _OTHER_FIELDS_BYTES + _CHARACTER_BYTES * texts + _INTEGER_BYTES * times + _COUNT_BYTES * counts


def _fitting(request: Request) -> Request:
    if _size(request) > _LIMIT_BYTES:
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
