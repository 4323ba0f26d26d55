"""Tokens of a measurement by when they came: its end is told after some of them, and what comes later, in a server's drain, is no part of it."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from llem.units import NS_PER_S
from llem_events.events import Request

YOUNG_NS = 10 * NS_PER_S  # what came longer ago came before an end that is told now
Ints = npt.NDArray[np.int64]


class _Came(NamedTuple):
    """Moments, and how many tokens each brought: of prompts where the first output token came, of answers where they came."""

    at_ns: Ints
    prompt: Ints
    answer: Ints

    @classmethod
    def of(cls, requests: Sequence[Request]) -> Self:
        rows = [row for request in requests for row in _rows(request)]
        return cls(*np.array(rows, np.int64).reshape(-1, 3).T)

    def after(self, end_ns: int) -> tuple[int, int]:
        """Tokens of prompts and of answers that came later."""
        late = self.at_ns > end_ns
        return int(self.prompt[late].sum()), int(self.answer[late].sum())


class Arrivals:
    """Counts the tokens of requests that have ended, until the end of the measurement; their times are looked at only around it."""

    def __init__(self) -> None:
        self.prompt = self.answer = 0
        self._end_ns: int | None = None
        self._young: deque[tuple[int, list[Request]]] = deque()

    def add(self, requests: Sequence[Request]) -> None:
        """Requests that have ended; a failed one has done no work."""
        worked = [request for request in requests if request.finish_reason != "error"]
        self.prompt += sum([request.input_tokens for request in worked])
        self.answer += sum([request.output_tokens for request in worked])
        if self._end_ns is not None:
            self._leave_out(worked, self._end_ns)
        elif worked:
            newest_ns = max([request.end_ns for request in worked])
            self._young.append((newest_ns, worked))
            while self._young[0][0] < newest_ns - YOUNG_NS:
                self._young.popleft()

    def end(self, at_ns: int | None) -> None:
        """The measurement has ended then; None: it goes on."""
        self._end_ns = at_ns
        while self._young and at_ns is not None:
            self._leave_out(self._young.popleft()[1], at_ns)

    def until_end(self, times_ns: Sequence[int], tokens: Sequence[int | None]) -> int:
        """Tokens of chunks, of one that nobody counted none, that came before the end as far as it is known."""
        end_ns = self._end_ns
        came = zip(times_ns, tokens, strict=True)
        return sum(count or 0 for at_ns, count in came if end_ns is None or at_ns <= end_ns)

    def _leave_out(self, requests: Sequence[Request], end_ns: int) -> None:
        prompt, answer = _Came.of(requests).after(end_ns)
        self.prompt -= prompt
        self.answer -= answer


def _rows(request: Request) -> Iterator[tuple[int, int, int]]:
    """Moment, tokens of the prompt, of the answer; a request without any times came when it ended."""
    times_ns = request.token_times_ns or request.chunk_times_ns or [request.end_ns]
    yield times_ns[0], request.input_tokens, 0
    counts = _brought(request, len(times_ns))
    yield from ((at_ns, 0, count) for at_ns, count in zip(times_ns, counts, strict=True))


def _brought(request: Request, moments: int) -> list[int]:
    """Tokens of each moment; where a chunk was not counted, each has an equal part, in whole tokens."""
    counts = [count for count in request.chunk_tokens if count is not None]
    if request.chunk_times_ns and len(counts) == moments:
        return counts
    until = np.rint(np.arange(1, moments + 1) * request.output_tokens / moments).astype(np.int64)
    return [int(count) for count in np.diff(until, prepend=0)]
