"""Cooling down and warming up, by batches or under a load: the state in which every measurement begins."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llem.measure.messages import LoadProgress
from llem.measure.windows import SamplerLink
from llem.plan import WindowsPlan
from llem.units import MS_PER_S, NS_PER_MS
from llem_events.events import Request, WarmupCompleted

LATENCIES_COMPARED = 5
SETTLED_C = 1.0  # a change below this over SETTLED_S counts as settled
SETTLED_S = 5.0
SPAN_S = 0.5  # of a load, whose rate is compared with that of others
CHANCE = 1.5  # times the spread that the number of requests alone explains


@dataclass(frozen=True, slots=True)
class Cooldown:
    """How long it took, and the hottest device's temperature before and after; None where there is none."""

    duration_s: float
    start_c: float | None
    end_c: float | None


def cool_down(
    sampler: SamplerLink, *, limit_s: float, should_stop: Callable[[], bool], tell: Callable[[str], None]
) -> Cooldown:
    """Wait until the temperature has stopped changing, at most `limit_s`; where there is none, do not wait.

    `tell` hears what is waited for, each time that the temperature is read.
    """
    started = changed = time.monotonic()
    sampler.read_edges()
    start_c = reference_c = sampler.temperature_c
    tell(_awaited(start_c, limit_s))
    while reference_c is not None and time.monotonic() - changed < SETTLED_S:
        if should_stop() or time.monotonic() - started >= limit_s:
            break
        time.sleep(0.5)
        sampler.read_edges()
        tell(_awaited(sampler.temperature_c, limit_s))
        if sampler.temperature_c is None or abs(sampler.temperature_c - reference_c) >= SETTLED_C:
            reference_c, changed = sampler.temperature_c, time.monotonic()
    return Cooldown(time.monotonic() - started, start_c, sampler.temperature_c)


def _awaited(temperature_c: float | None, limit_s: float) -> str:
    if temperature_c is None:
        return "not waited for, no device tells its temperature"
    return f"{temperature_c:.0f} C, until it is stable, at most {limit_s:g} s"


def warm_up(
    plan: WindowsPlan,
    run_batch: Callable[[], Sequence[Request]],
    *,
    cooldown: Cooldown,
    should_stop: Callable[[], bool],
    agree: Callable[[bool], bool] = lambda goes_on: goes_on,
) -> WarmupCompleted:
    """Run batches until the last latencies per token step agree, or a limit is reached; in a group that runs one model, as its rank 0 says."""
    latencies_ms: list[float] = []
    deadline = time.monotonic() + plan.warmup_max_s
    reason = None
    while reason is None:
        latencies_ms.append(step_latency_ms(run_batch()))
        spread = coefficient_of_variation(latencies_ms[-LATENCIES_COMPARED:])
        reason = _reason_to_end(
            plan, len(latencies_ms), spread, late=time.monotonic() >= deadline, stopped=should_stop()
        )
        goes_on = agree(reason is None)
        reason = None if goes_on else reason or "ended by rank 0 of its group"
    return _completed(latencies_ms, spread, reason, cooldown)


def _reason_to_end(
    plan: WindowsPlan, batches: int, spread: float | None, *, late: bool, stopped: bool
) -> str | None:
    if stopped:
        return "interrupted"
    if batches >= plan.warmup_min_batches and spread is not None and spread < plan.warmup_cv:
        return "converged"
    if batches >= plan.warmup_max_batches:
        return "warmup_max_batches reached"
    return "warmup_max_s reached" if late else None


class WarmupSpans:
    """Spans of about half a second of a load: what a token took in each, and whether they vary no more than chance explains."""

    def __init__(self, plan: WindowsPlan) -> None:
        self._plan = plan
        self._last: LoadProgress | None = None
        self._latencies_ms: list[float] = []
        self._requests: list[int] = []

    def add(self, progress: LoadProgress) -> None:
        """Count what came since the last span's end, once it is long enough."""
        last = self._last or LoadProgress(
            elapsed_s=0.0,
            requests=0,
            failed_requests=0,
            in_flight=0,
            waiting=0,
            input_tokens=0,
            output_tokens=0,
            chunks=0,
        )
        duration_s = progress.elapsed_s - last.elapsed_s
        if duration_s < SPAN_S:
            return
        self._last = progress
        if (tokens := progress.output_tokens - last.output_tokens) > 0:
            self._latencies_ms.append(duration_s * MS_PER_S / tokens)
            self._requests.append(progress.requests - last.requests)

    def reason_to_end(self, *, late: bool, stopped: bool) -> str | None:
        """Why the warm-up is over; None while it goes on."""
        if stopped:
            return "interrupted"
        if len(self._latencies_ms) >= self._plan.warmup_min_batches and self._are_steady:
            return "converged"
        return "warmup_max_s reached" if late else None

    def completed(self, reason: str, cooldown: Cooldown) -> WarmupCompleted:
        """The event of it."""
        return _completed(self._latencies_ms, self._spread, reason, cooldown)

    @property
    def _spread(self) -> float | None:
        return coefficient_of_variation(self._latencies_ms[-LATENCIES_COMPARED:])

    @property
    def _are_steady(self) -> bool:
        """Whether the last vary no more than the plan allows, or than so few requests do by chance."""
        mean_requests = statistics.fmean(self._requests[-LATENCIES_COMPARED:] or [0])
        chance = CHANCE / max(mean_requests, 1.0) ** 0.5
        return self._spread is not None and self._spread <= max(self._plan.warmup_cv, chance)


def _completed(
    latencies_ms: list[float], spread: float | None, reason: str, cooldown: Cooldown
) -> WarmupCompleted:
    return WarmupCompleted(
        latencies_ms=latencies_ms,
        coefficient_of_variation=spread,
        converged=reason == "converged",
        reason=reason,
        cooldown_s=cooldown.duration_s,
        temperature_start_c=cooldown.start_c,
        temperature_end_c=cooldown.end_c,
    )


def step_latency_ms(requests: Sequence[Request]) -> float:
    """Duration of a batch divided by its longest request's tokens, so that batches of other lengths compare."""
    duration_ns = max(request.end_ns for request in requests) - min(request.start_ns for request in requests)
    return duration_ns / NS_PER_MS / max(1, *(request.output_tokens for request in requests))


def coefficient_of_variation(latencies_ms: Sequence[float]) -> float | None:
    """Standard deviation over mean of latencies; None where they are too few to compare."""
    if len(latencies_ms) < LATENCIES_COMPARED:
        return None
    mean = statistics.fmean(latencies_ms)
    return statistics.stdev(latencies_ms) / mean if mean else None
