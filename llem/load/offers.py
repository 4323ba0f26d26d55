"""How a plan's load is offered: at times that were drawn before, or each request when one before it has ended."""

import asyncio
import time
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Literal

import msgspec

from llem.load.client import Client, Offer
from llem.load.schedule import (
    TracedRequest,
    arrivals_ns,
    prompts_of,
    read_trace,
    schedule_sha256,
    slots_ns,
    trace_ns,
)
from llem.plan import Plan
from llem.plan_file import path_of
from llem.prompts import load_prompts
from llem.units import NS_PER_S
from llem_events.events import LoadPlanned

Window = Literal["warmup", "measurement"]
FAILED_SLOT_WAIT_S = 0.1  # a server that refuses at once is not asked as fast as it can refuse


class OpenLoop:
    """Requests at times that were drawn before, however many are in flight; under a cap they wait, and stay due when they were."""

    def __init__(self, due_ns: "array[int]", *, max_concurrency: int | None = None) -> None:
        self._due_ns = due_ns
        self._cap = max_concurrency
        self._next = 0
        self._waiting: deque[tuple[int, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def begin(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._send_due()

    def freed(self, *, has_failed: bool) -> None:
        if self._waiting and not self._is_full():
            number, due_ns = self._waiting.popleft()
            self._client.send(number, due_ns=due_ns, ready_ns=time.monotonic_ns())

    def withdraw(self) -> Sequence[tuple[int, int]]:
        waiting, self._waiting = self._waiting, deque()
        return list(waiting)

    def stop(self) -> None:
        self._next = len(self._due_ns)
        if self._timer is not None:
            self._timer.cancel()

    def _is_full(self) -> bool:
        return self._cap is not None and len(self._client.in_flight) >= self._cap

    def _send_due(self) -> None:
        starts_ns, due_ns = self._client.starts_ns, self._due_ns
        while self._next < len(due_ns) and starts_ns + due_ns[self._next] <= time.monotonic_ns():
            number, at_ns = self._next, starts_ns + due_ns[self._next]
            self._next += 1
            if self._is_full():
                self._waiting.append((number, at_ns))
                account = self._client.account
                account.max_waiting = max(account.max_waiting, len(self._waiting))
            else:
                self._client.send(number, due_ns=at_ns)
        if self._next < len(due_ns):
            self._timer = self._loop.call_at((starts_ns + due_ns[self._next]) / NS_PER_S, self._send_due)
        else:
            self._client.offered()


class ClosedLoop:
    """So many requests in flight, each sent when one before it has ended, and due then."""

    waiting = 0

    def __init__(
        self, slots_ns: "array[int]", *, requests: int, min_duration_s: float, max_duration_s: float | None
    ) -> None:
        """Ends after `requests` and `min_duration_s`, or after `max_duration_s`."""
        self._slots_ns = slots_ns
        self._requests, self._min_ns = requests, min_duration_s * NS_PER_S
        self._max_s = max_duration_s
        self._next = 0
        self._is_stopped = False

    def begin(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        for slot_ns in self._slots_ns:
            self._loop.call_at((client.starts_ns + slot_ns) / NS_PER_S, self._send_next)
        if self._max_s is not None:
            self._loop.call_at(client.starts_ns / NS_PER_S + self._max_s, self._end)

    def freed(self, *, has_failed: bool) -> None:
        if self._is_stopped:
            return
        if has_failed:
            self._loop.call_later(FAILED_SLOT_WAIT_S, self._send_next)
        else:
            self._send_next()

    def withdraw(self) -> Sequence[tuple[int, int]]:
        return ()

    def stop(self) -> None:
        self._is_stopped = True

    def _send_next(self) -> None:
        if self._is_stopped:
            return
        now_ns = time.monotonic_ns()
        if self._next >= self._requests and now_ns - self._client.starts_ns >= self._min_ns:
            self._end()
            return
        self._next += 1
        self._client.send(self._next - 1, due_ns=now_ns)

    def _end(self) -> None:
        self.stop()
        self._client.offered()


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """An offer, and what it will do."""

    window: str
    offer: Offer
    plan: Plan
    due_ns: "array[int] | None"  # None for a closed loop
    seed: int
    requests: int | None

    def planned(self, process_index: int, *, starts_ns: int) -> LoadPlanned:
        """The event that stands in the log before the first request."""
        load = self.plan.load
        return LoadPlanned(
            process_index=process_index,
            window=self.window,
            kind=load.kind,
            arrival=load.arrival if load.kind == "open" else None,
            rate_per_s=load.rate,
            burstiness=load.burstiness if load.arrival == "gamma" else None,
            concurrency=load.concurrency if load.kind == "closed" else None,
            max_concurrency=load.max_concurrency,
            ramp_s=load.ramp_s,
            time_scale=load.time_scale if load.kind == "trace" else None,
            seed=self.seed,
            requests=self.requests,
            schedule_sha256=None if self.due_ns is None else schedule_sha256(self.due_ns),
            starts_ns=starts_ns,
        )


class Schedules:
    """The plan's prompts and when they are due, for its warm-up and its measurement."""

    def __init__(self, plan: Plan) -> None:
        """Reads the files of the plan. Raises PlanError."""
        self._plan = plan
        self._trace: list[TracedRequest] = []
        if plan.load.kind == "trace":
            self._trace = read_trace(path_of(plan.load.trace or ""))
            self.prompts, self.warmup_prompts = (
                prompts_of(self._trace, seed=plan.workload.seed, is_warmup=is_warmup)
                for is_warmup in (False, True)
            )
        else:
            self.prompts = self.warmup_prompts = load_prompts(plan)
        # what is too large is told before anything is sent
        self.of("measurement")

    def of(self, window: Window) -> Schedule:
        """A new schedule; that of a warm-up goes on for `windows.warmup_max_s`, without a ramp."""
        if window == "measurement":
            workload, ramp_s = self._plan.workload, self._plan.load.ramp_s
            return self._schedule(
                window,
                seed=workload.seed,
                requests=workload.requests,
                min_duration_s=workload.min_duration_s,
                max_duration_s=workload.max_duration_s,
                ramp_s=ramp_s,
            )
        limit_s = self._plan.windows.warmup_max_s
        seed = (self._plan.workload.seed + 1) % 2**63
        return self._schedule(
            window, seed=seed, requests=0, min_duration_s=limit_s, max_duration_s=limit_s, ramp_s=0.0
        )

    def _schedule(
        self,
        window: Window,
        *,
        seed: int,
        requests: int,
        min_duration_s: float,
        max_duration_s: float | None,
        ramp_s: float,
    ) -> Schedule:
        load = self._plan.load
        if load.kind == "closed":
            offer: Offer = ClosedLoop(
                slots_ns(load.concurrency, ramp_s=ramp_s),
                requests=requests,
                min_duration_s=min_duration_s,
                max_duration_s=max_duration_s,
            )
            return Schedule(
                window=window, offer=offer, plan=self._plan, due_ns=None, seed=seed, requests=requests or None
            )
        if load.kind == "open":
            due_ns = arrivals_ns(
                load.arrival,
                rate_per_s=load.rate or 1.0,
                burstiness=load.burstiness,
                ramp_s=ramp_s,
                seed=seed,
                requests=requests,
                min_duration_s=min_duration_s,
                max_duration_s=max_duration_s,
            )
        else:
            due_ns = trace_ns(
                [request.timestamp for request in self._trace],
                time_scale=load.time_scale,
                max_duration_s=max_duration_s,
            )
        return Schedule(
            window=window,
            offer=OpenLoop(due_ns, max_concurrency=load.max_concurrency),
            plan=self._plan,
            due_ns=due_ns,
            seed=seed,
            requests=len(due_ns),
        )
