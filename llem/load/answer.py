"""One request on its way: what its stream brought and when, until it is a `Request` of the log."""

from array import array
from collections.abc import Callable
from functools import lru_cache

from llem.load.http1 import AnswerError, Head
from llem.load.openai import (
    DONE,
    MAX_COUNT,
    Chunk,
    Prepared,
    Usage,
    decode_chunks,
    error_of,
    in_stream,
    text_of,
)
from llem.load.sse import EventParser
from llem_events.events import Request

MAX_SAID_BYTES = 2**16
_OK = 200
_FINISHED = {"length": "length", "stop": "eos", "tool_calls": "eos", "function_call": "eos"}
_NO_STREAMS = ("json", "html")
_NO_USAGE = Usage()
_UNKNOWN = -1  # for the tokens of a chunk, in a column of integers


class Answer:
    """An exchange that reads the stream of a completion. Every time is that of the read in which a chunk came."""

    __slots__ = (
        "_answered_ns",
        "_cached",
        "_chunk_times_ns",
        "_chunk_tokens",
        "_events",
        "_finish",
        "_headers_ns",
        "_is_over",
        "_is_stream",
        "_on_end",
        "_prepared",
        "_reused",
        "_said",
        "_status",
        "_told",
        "_total",
        "_usage",
        "_words",
        "arrival_ns",
        "last_ns",
        "request",
        "request_id",
        "start_ns",
    )

    def __init__(
        self,
        request_id: int,
        *,
        arrival_ns: int,
        request: bytes,
        prepared: Prepared,
        keeps_text: bool,
        on_end: Callable[["Answer", Request], None],
    ) -> None:
        self.request_id, self.arrival_ns, self.request = request_id, arrival_ns, request
        self.last_ns = arrival_ns  # when anything of it was sent or came last
        self._prepared, self._on_end = prepared, on_end
        self._events = EventParser()
        # Output tokens so far as the server says; None: a piece came without, so that the next says nothing of itself alone.
        self._total: int | None = 0
        self._chunk_times_ns, self._chunk_tokens = array("q"), array("q")
        self._words: list[str] | None = [] if keeps_text else None
        self.start_ns: int | None = None  # when its first byte was sent
        self._headers_ns: int | None = None
        self._status: int | None = None
        self._reused: bool | None = None
        self._usage: Usage | None = None
        self._cached: int | None = None
        self._finish: str | None = None
        self._said = b""  # of an answer that is no stream
        self._answered_ns: int | None = None  # when the stream said that it was whole
        self._is_stream = self._is_over = False
        self._told = 0  # chunks that `progress` has given

    @property
    def chunks(self) -> int:
        """How many it has brought so far."""
        return len(self._chunk_times_ns)

    def sent(self, at_ns: int, *, reused: bool) -> None:
        self.start_ns = self.last_ns = at_ns
        self._reused = reused

    def head(self, head: Head, at_ns: int) -> None:
        self._headers_ns = self.last_ns = at_ns
        self._status = head.status
        self._is_stream = head.status == _OK and not _is_no_stream(head.content_type)

    def body(self, piece: bytes, at_ns: int) -> None:
        self.last_ns = at_ns
        if self._is_stream:
            self._take(self._events.feed(piece), at_ns)
        else:
            self._said += piece[: MAX_SAID_BYTES - len(self._said)]

    def is_over(self) -> bool:
        return self._is_over

    def is_answered(self) -> bool:
        return self._answered_ns is not None

    def end(self, at_ns: int) -> None:
        if not self._is_stream:
            said = error_of(self._status or 0, self._said)
            self.fail(f"no stream, but {said}" if self._status == _OK else said, at_ns)
            return
        try:
            if last_events := self._events.end():
                self._take(last_events, at_ns)
        except AnswerError as error:
            self.fail(str(error), at_ns)
            return
        if self._answered_ns is None and self._finish is None:
            self.fail("the stream ended before its answer was finished", at_ns)
            return
        end_ns = self._answered_ns or at_ns
        output_tokens = self._output_tokens()
        problem = self._problem(output_tokens)
        if problem is None:
            self._over(_FINISHED[self._finish or "stop"], end_ns, output_tokens=output_tokens)
        else:
            self.fail(problem, end_ns)

    def fail(self, reason: str, at_ns: int) -> None:
        self._over("error", at_ns, error=reason)

    def stop(self, at_ns: int) -> None:
        """It is wanted no longer; what it has brought stays."""
        self._over("stopped", at_ns)

    def progress(self) -> tuple[list[int], list[int | None]]:
        """Times and tokens of the chunks that came since the last call."""
        since, self._told = self._told, len(self._chunk_times_ns)
        return self._chunk_times_ns[since:].tolist(), _counts(self._chunk_tokens[since:])

    def _take(self, events: list[bytes], at_ns: int) -> None:
        if events and events[-1] == DONE:
            self._answered_ns = at_ns
            events = events[:-1]
        for chunk in decode_chunks(events):
            text, choices = None, chunk.choices
            for choice in choices:
                text = choice.text if choice.delta is None else text_of(choice.delta)
                if choice.finish_reason is not None:
                    self._finish = choice.finish_reason
            tokens = None
            if (
                chunk.usage is not None
                or chunk.timings is not None
                or chunk.error is not None
                or (choices and choices[0].token_ids is not None)
            ):
                tokens = self._count(chunk, has_text=bool(text))
            elif text:
                # as most pieces are: it does not say of how many tokens it is
                self._total = None
            if text or (tokens and choices):
                self._chunk_times_ns.append(at_ns)
                self._chunk_tokens.append(_UNKNOWN if tokens is None else tokens)
                if self._words is not None:
                    self._words.append(text or "")

    def _count(self, chunk: Chunk, *, has_text: bool) -> int | None:
        """The output tokens of a piece, from a total that goes on from piece to piece or from its token ids; None where nobody says."""
        before, total = self._total, None
        if chunk.usage is not None:
            self._usage = chunk.usage
            total = chunk.usage.completion_tokens
        elif chunk.error is not None:
            raise in_stream(chunk.error)
        elif chunk.timings is not None:
            self._cached, total = chunk.timings.cache_n, chunk.timings.predicted_n
        if total is not None:
            self._total = total
            # one that falls counts nothing
            return None if before is None or total < before else total - before
        ids = chunk.choices[0].token_ids if chunk.choices else None
        if has_text or ids:
            self._total = None
        return None if ids is None else len(ids)

    def _problem(self, output_tokens: int | None) -> str | None:
        """Why its tokens are not known, which makes it useless; None where they are."""
        if self._finish is not None and self._finish not in _FINISHED:
            return f"the server ended it: {self._finish}"
        if output_tokens is None:
            return "neither the pieces of its stream nor a usage at its end say how many tokens it brought"
        if self._input_tokens() is None:
            return "the server does not say how many tokens its prompt had"
        return None

    def _input_tokens(self) -> int | None:
        if self._prepared.input_tokens is not None:
            return self._prepared.input_tokens
        return None if self._usage is None else self._usage.prompt_tokens

    def _output_tokens(self) -> int | None:
        """Those counted piece by piece; else the server's total; else, of one that ran to its limit, the limit."""
        if self._chunk_tokens and _UNKNOWN not in self._chunk_tokens:
            return sum(self._chunk_tokens)
        if self._usage is not None and self._usage.completion_tokens is not None:
            return self._usage.completion_tokens
        return self._prepared.max_tokens if self._finish == "length" else None

    def _over(
        self, finish_reason: str, at_ns: int, *, output_tokens: int | None = None, error: str | None = None
    ) -> None:
        """Without `output_tokens`, those that were counted until now."""
        if self._is_over:
            return
        self._is_over = True
        if output_tokens is None:
            counted = sum(tokens for tokens in self._chunk_tokens if tokens != _UNKNOWN)
            # totals that fall and rise may add up to more than a column holds
            output_tokens = min(counted, MAX_COUNT)
        self._on_end(self, self._request(finish_reason, at_ns, output_tokens, error))

    def _request(self, finish_reason: str, at_ns: int, output_tokens: int, error: str | None) -> Request:
        usage = self._usage or _NO_USAGE
        details, cached = usage.completion_tokens_details, usage.prompt_tokens_details
        token_times_ns, chunk_times_ns, chunk_tokens = self._times(output_tokens)
        has_times = token_times_ns or chunk_times_ns
        return Request(
            request_id=self.request_id,
            batch_index=self.request_id,
            batch_size=1,
            arrival_ns=self.arrival_ns,
            start_ns=at_ns if self.start_ns is None else self.start_ns,
            first_token_ns=self._chunk_times_ns[0] if self._chunk_times_ns else None,
            end_ns=at_ns,
            input_tokens=self._input_tokens() or 0,
            output_tokens=output_tokens,
            token_times_ns=token_times_ns,
            chunk_times_ns=chunk_times_ns,
            chunk_tokens=chunk_tokens,
            times_reason="its tokens came without any text" if output_tokens and not has_times else None,
            finish_reason=finish_reason,
            error=error,
            prompt=self._prepared.text,
            output=None if self._words is None else "".join(self._words),
            headers_ns=self._headers_ns,
            cached_input_tokens=self._cached if cached is None else cached.cached_tokens,
            usage_input_tokens=usage.prompt_tokens,
            usage_output_tokens=usage.completion_tokens,
            reasoning_tokens=None if details is None else details.reasoning_tokens,
            http_status=self._status,
            connection_reused=self._reused,
        )

    def _times(self, output_tokens: int) -> tuple[list[int], list[int], list[int | None]]:
        """A time for each token where every piece brought one, else for each piece with its tokens."""
        tokens, times_ns = self._chunk_tokens, self._chunk_times_ns.tolist()
        # A piece with text has a token at least, so as many tokens as pieces are one in each.
        is_one_each = tokens.count(1) == len(tokens) or (
            tokens.count(_UNKNOWN) == len(tokens) == output_tokens
        )
        if is_one_each:
            return times_ns, [], []
        return [], times_ns, _counts(tokens)


@lru_cache(maxsize=256)
def _is_no_stream(content_type: str) -> bool:
    return any(kind in content_type for kind in _NO_STREAMS)


def _counts(tokens: "array[int]") -> list[int | None]:
    return [None if count == _UNKNOWN else count for count in tokens]
