"""One process of a run so far: how far it has come, and what its requests say."""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from llem.live.device import Window
from llem.measure.warmup import LATENCIES_COMPARED, coefficient_of_variation, step_latency_ms
from llem.plan import Plan
from llem.units import NS_PER_MS, NS_PER_S, seconds
from llem_events.events import (
    BaselineMeasured,
    Event,
    ModelLoaded,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    Request,
    RequestProgressed,
    RequestsCompleted,
    ServerStarted,
    WarmupCompleted,
    WindowClosed,
    WindowOpened,
    WorkReported,
)

RECENT_REQUESTS = 4096  # of which the median is
STAGES = (
    "starting",
    "reading prompts",
    "baseline before",
    "loading",
    "baseline server idle",
    "cooling down",
    "warming up",
    "about to measure",
    "measuring",
    "ending",
    "done",
)
YOUNG_NS = 10 * NS_PER_S  # what came longer ago came before an end that is told now
Ints = npt.NDArray[np.int64]


class LiveProcess:
    """What a process has written so far."""

    def __init__(self) -> None:
        self.engine: str | None = None
        self.model: str | None = None
        self.windows: dict[str, list[Window]] = {"baseline": [], "warmup": [], "measurement": []}
        self.idle_w: dict[str, float | None] = {}  # of each device, before anything is loaded
        self.warmup: WarmupCompleted | None = None
        self.requests = self.failed_requests = 0
        self.work: WorkReported | None = None  # of a wrapped program
        self.failure: ProcessFailed | None = None
        self.is_done = False
        self._arrivals = Arrivals()
        self._in_flight: dict[int, int] = {}  # tokens of requests that have not ended
        self._reached_ns = 0
        self._ttft_ms = array("d")
        self._warmup_steps_ms: list[float] = []

    def take(self, event: Event, at_ns: int) -> None:
        """Note one event of the process."""
        match event:
            case ProcessStarted():
                self.engine = event.engine
            case WindowOpened() if event.kind in self.windows:
                self.windows[event.kind].append(Window(at_ns, opening=event.edges))
                self._note_end(event.kind, None)
            case WindowClosed() if self.windows.get(event.kind):
                window = self.windows[event.kind][-1]
                window.closed_ns, window.closing = at_ns, event.edges
                self._note_end(event.kind, at_ns)
            case BaselineMeasured(position="before"):
                self.idle_w = {power.device_uuid: power.mean_power_w for power in event.devices}
            case ModelLoaded():
                self.model = event.model_name
            case ServerStarted():
                self.model = event.model or self.model
                self.engine = event.kind
            case RequestsCompleted(window="warmup"):
                self._warmup_steps_ms.append(step_latency_ms(event.requests))
            case WarmupCompleted():
                self.warmup = event
            case RequestsCompleted(window="measurement"):
                self._count(event.requests)
            case RequestProgressed(window="measurement"):
                tokens = self._arrivals.until_end(event.chunk_times_ns, event.chunk_tokens)
                self._in_flight[event.request_id] = self._in_flight.get(event.request_id, 0) + tokens
                self._reached_ns = max(self._reached_ns, at_ns)
            case WorkReported():
                self.work, self._reached_ns = event, at_ns
            case ProcessFailed():
                self.failure = event
            case ProcessCompleted():
                self.is_done = True

    @property
    def measurement(self) -> Window | None:
        """The window that the figures are of."""
        return self.windows["measurement"][-1] if self.windows["measurement"] else None

    @property
    def output_tokens(self) -> int:
        """Those of requests that have ended, and those told of the others; what comes after the measurement is none of it."""
        return self._arrivals.answer + sum(self._in_flight.values())

    @property
    def input_tokens(self) -> int:
        """Those of prompts that were answered in the measurement."""
        return self._arrivals.prompt

    @property
    def reported_tokens(self) -> int | None:
        """All that a wrapped program has told so far; None where it tells none."""
        if self.work is None:
            return None
        apart = [count for count in (self.work.input_tokens, self.work.output_tokens) if count is not None]
        return self.work.tokens if self.work.tokens is not None or not apart else sum(apart)

    @property
    def counted_s(self) -> float:
        """From the measurement's start to the last request that is counted, or to its end."""
        window = self.measurement
        if window is None:
            return 0.0
        return max(0.0, seconds((window.closed_ns or self._reached_ns) - window.opened_ns))

    @property
    def ttft_p50_ms(self) -> float | None:
        """Of the last requests that had a first token."""
        if not self._ttft_ms:
            return None
        return float(np.median(np.frombuffer(self._ttft_ms)[-RECENT_REQUESTS:]))

    @property
    def warmup_steps_ms(self) -> Sequence[float]:
        """What a token took in each batch of the warm-up so far, or in each span of it under load."""
        return self.warmup.latencies_ms if self.warmup else self._warmup_steps_ms

    @property
    def warmup_variation(self) -> float | None:
        """How much the last of these differ."""
        if self.warmup is not None:
            return self.warmup.coefficient_of_variation
        return coefficient_of_variation(self._warmup_steps_ms[-LATENCIES_COMPARED:])

    def stage(self, plan: Plan) -> str:
        """One of STAGES, as far as the log tells it."""
        if self.is_done:
            return "done"
        if self.measurement is not None:
            return "measuring" if self.measurement.closed_ns is None else "ending"
        if self.windows["warmup"]:
            return "about to measure" if self.windows["warmup"][-1].closed_ns else "warming up"
        baseline = self.windows["baseline"]
        if self.model is not None:
            is_idling = plan.is_served and bool(baseline) and baseline[-1].closed_ns is None
            return "baseline server idle" if is_idling else "cooling down"
        if baseline:
            return "loading" if baseline[-1].closed_ns else "baseline before"
        if self.engine is None:
            return "starting"
        return "reading prompts" if plan.windows.baseline_s > 0 else "loading"

    def elapsed_s(self, kind: str, now_ns: int) -> float | None:
        """How long the last window of a kind has been open, or was; None before."""
        if not self.windows[kind]:
            return None
        window = self.windows[kind][-1]
        return max(0, (window.closed_ns or now_ns) - window.opened_ns) / NS_PER_S

    def _note_end(self, kind: str, at_ns: int | None) -> None:
        if kind == "measurement":
            self._arrivals.end(at_ns)

    def _count(self, requests: Sequence[Request]) -> None:
        self.requests += len(requests)
        self._arrivals.add(requests)
        for request in requests:
            self._in_flight.pop(request.request_id, None)
            self.failed_requests += request.finish_reason == "error"
            self._reached_ns = max(self._reached_ns, request.end_ns)
            if request.first_token_ns is not None:
                self._ttft_ms.append((request.first_token_ns - request.arrival_ns) / NS_PER_MS)
        if len(self._ttft_ms) > 2 * RECENT_REQUESTS:
            del self._ttft_ms[:-RECENT_REQUESTS]


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
