"""The client: sends requests when they are due, whatever the server does, and says what it could not hold."""

import asyncio
import contextlib
import select
import selectors
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from llem.load.answer import Answer
from llem.load.http1 import Pool
from llem.load.openai import Prepared
from llem.units import NS_PER_S
from llem_events.events import LoadCompleted, Request

TICK_NS = 20_000_000
MARGIN_S = 0.002  # of a wait, that is left to the finer way
TELL_TICKS = 10
# What takes longer than LONG_NS is told as it goes, and what is told goes to the disk with the look that tells it: of what came, the log does not know what
# is younger than the two and a tick together. That leaves a quarter of a second for a late loop and a slow disk, so that a kill loses a second at most.
LONG_NS, LOOK_NS = 400_000_000, 300_000_000
FAILING_NS = 5 * NS_PER_S
BYTES_PER_KIB = 1024


class Sink(Protocol):
    """Where a client puts what it sees."""

    def completed(self, request: Request) -> None:
        """A request has ended."""

    def progressed(self, answer: Answer, times_ns: list[int], tokens: list[int | None]) -> None:
        """A long request has brought more chunks."""

    def flush(self) -> None:
        """Nothing is kept back any longer, and all has to be safe soon."""


class Offer(Protocol):
    """Decides when the next request is due."""

    @property
    def waiting(self) -> int:
        """Requests that are due and not sent."""

    def begin(self, client: "Client") -> None:
        """The window's first moment is `client.starts_ns`."""

    def freed(self, *, has_failed: bool) -> None:
        """A request has ended."""

    def withdraw(self) -> Sequence[tuple[int, int]]:
        """Number and due time of those that wait, which it sends no more."""

    def stop(self) -> None:
        """Let nothing more become due."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a window ends, and what becomes of a request that does not."""

    drain_s: float
    timeout_s: float
    max_failed_in_a_row: int
    keeps_text: bool = False


class Client:
    """One window of load: `run` returns once every request has ended."""

    def __init__(
        self,
        pool: Pool,
        prepare: Callable[[int], tuple[bytes, Prepared]],
        sink: Sink,
        rules: Rules,
        *,
        on_offered: Callable[[int], None] = lambda at_ns: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        """`prepare` gives the whole message of the n-th request, and what there is to know of it."""
        self.account = Account()
        self.in_flight: dict[int, Answer] = {}
        self.offered_ns: int | None = None
        self.starts_ns = 0
        self._pool, self._prepare, self._sink, self._rules = pool, prepare, sink, rules
        self._on_offered, self._on_tick = on_offered, on_tick
        self._ticks = 0

    async def run(self, offer: Offer, *, starts_ns: int) -> None:
        """Offer until the offer ends by itself or `end` is called, then wait for what is in flight, up to `drain_s`."""
        self._loop = asyncio.get_running_loop()
        self._all_ended: asyncio.Future[None] = self._loop.create_future()
        self._offer = offer
        self.starts_ns = starts_ns
        self._tick_due_ns = time.monotonic_ns()
        self._look_due_ns = self._tick_due_ns + LOOK_NS
        self._ticking = self._loop.call_soon(self._tick)
        offer.begin(self)
        try:
            await self._all_ended
        finally:
            self._ticking.cancel()
            self._sink.flush()

    def send(self, number: int, *, due_ns: int, ready_ns: int | None = None) -> None:
        """Send the n-th request, due at `due_ns` and held back by nothing since `ready_ns`."""
        now_ns = time.monotonic_ns()
        self.account.note_turn(now_ns - (due_ns if ready_ns is None else ready_ns))
        answer = self._answer(number, due_ns)
        answer.last_ns = now_ns
        self.in_flight[number] = answer
        if len(self.in_flight) > self.account.max_in_flight:
            self.account.max_in_flight = len(self.in_flight)
        self._pool.send(answer)

    @property
    def waiting(self) -> int:
        """Requests that are due and held back by the cap."""
        return self._offer.waiting

    def offered(self) -> None:
        """No further request will become due."""
        if self.offered_ns is not None:
            return
        self.offered_ns = time.monotonic_ns()
        self._on_offered(self.offered_ns)
        self._draining = self._loop.call_later(self._rules.drain_s, self._give_up_the_rest)
        self._end_when_empty()

    def end(self, *, drain: bool) -> None:
        """Offer nothing more; without `drain`, what is in flight is stopped now."""
        self._offer.stop()
        self.offered()
        if not drain:
            self._stop_the_rest()

    def _answer(self, number: int, due_ns: int) -> Answer:
        request, prepared = self._prepare(number)
        return Answer(
            number,
            arrival_ns=due_ns,
            request=request,
            prepared=prepared,
            keeps_text=self._rules.keeps_text,
            on_end=self._ended,
        )

    def _ended(self, answer: Answer, request: Request) -> None:
        self.in_flight.pop(answer.request_id, None)
        self.account.note_end(request, chunks=answer.chunks)
        self._sink.completed(request)
        self._offer.freed(has_failed=request.finish_reason == "error")
        self._end_when_empty()

    def _end_when_empty(self) -> None:
        if self.offered_ns is None or self.in_flight or self._offer.waiting or self._all_ended.done():
            return
        self._draining.cancel()
        self._all_ended.set_result(None)

    def _give_up_the_rest(self) -> None:
        """What the drain did not bring to its end has failed."""
        now_ns = time.monotonic_ns()
        for answer in self._withdrawn():
            sent = "not sent" if answer.start_ns is None else "not answered"
            answer.fail(f"{sent} within {self._rules.drain_s:g} s after the last request was due", now_ns)

    def _stop_the_rest(self) -> None:
        now_ns = time.monotonic_ns()
        for answer in self._withdrawn():
            answer.stop(now_ns)

    def _withdrawn(self) -> list[Answer]:
        """All that has not ended, those that were never sent too; the server is not waited for any longer."""
        waiting = self._offer.withdraw()
        for answer in self.in_flight.values():
            self._pool.cancel(answer)
        return [*self.in_flight.values(), *(self._answer(number, due_ns) for number, due_ns in waiting)]

    def _tick(self) -> None:
        now_ns = time.monotonic_ns()
        self.account.note_loop(now_ns - self._tick_due_ns)
        self._tick_due_ns = max(self._tick_due_ns + TICK_NS, now_ns)
        self._ticking = self._loop.call_at(self._tick_due_ns / NS_PER_S, self._tick)
        self._ticks += 1
        if now_ns >= self._look_due_ns:
            self._look_due_ns = now_ns + LOOK_NS
            self._look_after(now_ns)
            self._sink.flush()
        if self._ticks % TELL_TICKS == 0:
            self._on_tick()

    def _look_after(self, now_ns: int) -> None:
        """Tell of what takes long, and give up what takes too long."""
        silent_ns = now_ns - round(self._rules.timeout_s * NS_PER_S)
        for answer in list(self.in_flight.values()):
            if answer.last_ns < silent_ns:
                self._pool.cancel(answer)
                answer.fail(f"nothing came for {self._rules.timeout_s:g} s", now_ns)
            elif answer.start_ns is not None and now_ns - answer.start_ns >= LONG_NS:
                times_ns, tokens = answer.progress()
                if times_ns:
                    self._sink.progressed(answer, times_ns, tokens)
        self._look_for_the_end(now_ns)

    def _look_for_the_end(self, now_ns: int) -> None:
        """A server that fails for good is not asked for ever."""
        account = self.account
        since_ns = account.failing_since_ns
        if self.offered_ns is not None or since_ns is None or now_ns - since_ns < FAILING_NS:
            return
        if account.failed_in_a_row >= self._rules.max_failed_in_a_row:
            account.gave_up = (
                f"{account.failed_in_a_row} requests in a row failed, the last one: {account.last_error}"
            )
            self.end(drain=True)


class PreciseSelector(selectors.EpollSelector):
    """Waits in epoll, whose timeouts are milliseconds rounded up, until shortly before the time, and the rest in select.

    asyncio's own waits whole milliseconds, so that arrivals come in bursts.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Returns early, with nothing, before a wait's last part."""
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if timeout > MARGIN_S:
            return super().select(timeout - MARGIN_S)
        select.select([self], [], [], timeout)
        return super().select(0)


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are right to some ten microseconds, for `asyncio.Runner`."""
    return asyncio.SelectorEventLoop(PreciseSelector())


class Account:
    """Counts from its creation to `completed`."""

    def __init__(self) -> None:
        self.requests = self.failed_requests = self.input_tokens = self.output_tokens = 0
        self.chunks = 0
        self.max_in_flight = self.max_waiting = 0
        self.failed_in_a_row = 0
        self.failing_since_ns: int | None = None
        self.last_error: str | None = None
        self.gave_up: str | None = None
        self._send_lags_ns, self._loop_lags_ns = array("q"), array("q")
        self._cpu_ns = time.process_time_ns()

    def note_turn(self, lag_ns: int) -> None:
        """The client turned to a request so long after it was due."""
        self._send_lags_ns.append(lag_ns)

    def note_loop(self, lag_ns: int) -> None:
        """The event loop came so late to a call at a given time."""
        self._loop_lags_ns.append(lag_ns)

    def note_end(self, request: Request, *, chunks: int) -> None:
        """A request has ended, however it did."""
        self.requests += 1
        self.input_tokens += request.input_tokens
        self.output_tokens += request.output_tokens
        self.chunks += chunks
        if request.finish_reason == "error":
            self.failed_requests += 1
            self.failed_in_a_row += 1
            self.last_error = request.error
            if self.failing_since_ns is None:
                self.failing_since_ns = request.end_ns
        else:
            self.failed_in_a_row, self.failing_since_ns = 0, None

    def completed(
        self,
        *,
        process_index: int,
        window: str,
        starts_ns: int,
        offered_ns: int,
        connections: int,
        stale_connections: int,
    ) -> LoadCompleted:
        """The account as an event, now."""
        return LoadCompleted(
            process_index=process_index,
            window=window,
            requests=self.requests,
            failed_requests=self.failed_requests,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            starts_ns=starts_ns,
            offered_ns=offered_ns,
            ended_ns=time.monotonic_ns(),
            connections=connections,
            stale_connections=stale_connections,
            send_lag_p50_ns=_quantile(self._send_lags_ns, 0.5),
            send_lag_p99_ns=_quantile(self._send_lags_ns, 0.99),
            send_lag_max_ns=max(self._send_lags_ns, default=None),
            loop_lag_p99_ns=_quantile(self._loop_lags_ns, 0.99),
            loop_lag_max_ns=max(self._loop_lags_ns, default=None),
            cpu_time_ns=time.process_time_ns() - self._cpu_ns,
            peak_memory_bytes=_peak_memory_bytes(),
            max_in_flight=self.max_in_flight,
            max_waiting=self.max_waiting,
            gave_up=self.gave_up,
        )


def _quantile(lags_ns: "array[int]", share: float) -> int | None:
    """The lag that `share` of all are no longer than; None without any."""
    if not lags_ns:
        return None
    return sorted(lags_ns)[min(len(lags_ns) - 1, int(len(lags_ns) * share))]


def _peak_memory_bytes() -> int | None:
    """The most that this process has had resident; what getrusage says is also what its parent had when it was forked."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * BYTES_PER_KIB
    return None
