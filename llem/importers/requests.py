"""A request as another load generator tells it."""

from collections.abc import Sequence
from itertools import accumulate

from llem.units import NS_PER_S
from llem_events.events import Request


def request(
    number: int,
    *,
    arrival_ns: int,
    start_ns: int,
    first_ns: int | None,
    end_ns: int,
    input_tokens: int,
    output_tokens: int,
    gaps_sec: Sequence[float] | None,
    headers_ns: int | None = None,
    error: str | None = None,
    status: int | None = None,
) -> Request:
    """With the time of each token or piece after the first, where `gaps_sec` between them are known."""
    times_ns = [] if first_ns is None or gaps_sec is None else _times_ns(first_ns, gaps_sec)
    counted = len(times_ns) == output_tokens
    unknown = "the file has no times of tokens" if output_tokens and not times_ns else None
    return Request(
        request_id=number,
        batch_index=number,
        batch_size=1,
        arrival_ns=min(arrival_ns, start_ns),
        start_ns=start_ns,
        first_token_ns=first_ns,
        end_ns=max([start_ns, end_ns, *times_ns[-1:], *filter(None, [first_ns])]),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        token_times_ns=times_ns if counted else [],
        chunk_times_ns=[] if counted else times_ns,
        # how many tokens a piece brought, nobody wrote down
        chunk_tokens=[] if counted else [None] * len(times_ns),
        times_reason=unknown,
        finish_reason="finished" if error is None else "error",
        error=error,
        headers_ns=headers_ns,
        http_status=status,
    )


def _times_ns(first_ns: int, gaps_sec: Sequence[float]) -> list[int]:
    return [first_ns + round(after_sec * NS_PER_S) for after_sec in accumulate(gaps_sec, initial=0.0)]


def nanoseconds(seconds: float) -> int:
    """Of a length or a moment in seconds."""
    return round(seconds * NS_PER_S)
