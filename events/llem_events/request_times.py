"""The rule for a request's times: for each token, or for each chunk, or none and why."""

from collections.abc import Sequence

from llem_events.records import Request


def problem(request: Request) -> str | None:
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
