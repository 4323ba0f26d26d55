"""What the log says of a server and its load, beside requests and samples: counters, usage, rates."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from llem.projections.derive.history import ProcessFacts
from llem.projections.derive.requests import Requests
from llem.projections.derive.source import Span
from llem.results.nullable import ratio, total
from llem.results.process import ResultWarning
from llem.results.serving import ServingMetrics
from llem.units import NS_PER_MS, NS_PER_S
from llem_events.events import ServerMetricsRead, ServerStarted

MAX_CACHED = 0.01  # of the input tokens; more is told
OTHERS = "other_process_on_gpu"
Reading = tuple[int, float]  # when, and what
Edges = tuple[int, int, int]  # first due, last due, last sent


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """What was done after a measurement for requests that were due in it."""

    duration_sec: float
    energy_j: float | None
    requests: int  # that ended then
    output_tokens: int


def serving_metrics(
    process: ProcessFacts,
    requests: Requests,
    *,
    drain: Drain | None = None,
    idle_energy_j: float | None = None,
) -> ServingMetrics | None:
    """Of a process that measured a server; None for any other."""
    server = process.server
    if server is None:
        return None
    load, usage = process.load, requests.usage()
    duration_ns = load.ended_ns - load.starts_ns if load else 0
    others = [warning.value or 0.0 for warning in process.warnings if warning.code == OTHERS]
    return ServingMetrics(
        server_idle_power_w=total(power.mean_power_w for power in process.idle_powers("server_idle")),
        idle_energy_j=idle_energy_j,
        drain_sec=drain.duration_sec if drain else None,
        drain_energy_j=drain.energy_j if drain else None,
        drain_requests=drain.requests if drain else None,
        drain_output_tokens=drain.output_tokens if drain else None,
        server_start_sec=_seconds(server.started_ns, server.first_answer_ns),
        **_rates(requests),
        send_lag_p99_ms=_ms(load.send_lag_p99_ns) if load else None,
        client_cpu=ratio(load.cpu_time_ns, duration_ns) if load and duration_ns else None,
        client_lag_p99_ms=_ms(load.loop_lag_p99_ns) if load else None,
        max_in_flight=load.max_in_flight if load else None,
        cached_input_tokens=usage.cached_input_tokens,
        usage_input_tokens=usage.input_tokens,
        usage_output_tokens=usage.output_tokens,
        counted_output_tokens=usage.counted_output_tokens,
        streamed_output_tokens=usage.streamed_output_tokens,
        **_counters(process, server, requests.windows),
        other_processes_on_gpus=int(max(others, default=0)),
    )


def serving_doubts(serving: ServingMetrics | None) -> Iterator[ResultWarning]:
    """What is worth knowing of a server, and no reason against its figures."""
    if serving is None:
        return
    share = ratio(serving.cached_input_tokens, serving.usage_input_tokens)
    if share is not None and share > MAX_CACHED:
        text = (
            f"{share:.1%} of the input tokens were in the server's cache, so that they cost next to nothing"
        )
        yield ResultWarning(code="prefix_cache_hit", text=text, value=share, threshold=MAX_CACHED)


def _seconds(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) / NS_PER_S


def _ms(lag_ns: int | None) -> float | None:
    return None if lag_ns is None else lag_ns / NS_PER_MS


def _rates(requests: Requests) -> dict[str, Any]:
    """How fast requests became due, and how fast they were sent: the same count over two times."""
    count, edges_ns = 0, []
    for piece in requests.pieces():
        if len(arrivals_ns := piece["arrival_ns"]):
            count += len(arrivals_ns)
            edges_ns.append((arrivals_ns.min(), arrivals_ns.max(), piece["start_ns"].max()))
    if count < 2:
        return {}
    first_ns, last_due_ns, last_sent_ns = (int(edge) for edge in _ends(edges_ns))
    return {
        "offered_rate_per_s": ratio((count - 1) * NS_PER_S, last_due_ns - first_ns),
        "sent_rate_per_s": ratio((count - 1) * NS_PER_S, last_sent_ns - first_ns),
    }


def _ends(edges_ns: Sequence[Edges]) -> Edges:
    """The least of the firsts, the largest of the others."""
    firsts_ns, due_ns, sent_ns = zip(*edges_ns, strict=True)
    return min(firsts_ns), max(due_ns), max(sent_ns)


def _counters(process: ProcessFacts, server: ServerStarted, spans: Sequence[Span]) -> dict[str, int | None]:
    """What the server's counters rose by from the last reading before the spans to the first after them, and how often they fell."""
    readings = process.every(ServerMetricsRead)
    found: dict[str, int | None] = {}
    for name, metric in (
        ("server_input_tokens", server.input_tokens_metric),
        ("server_output_tokens", server.output_tokens_metric),
    ):
        course = sorted(_course(readings, metric)) if metric else []
        before = [value for at_ns, value in course if at_ns <= spans[0][0]]
        after = [value for at_ns, value in course if at_ns >= spans[-1][1]]
        if before and after:
            found[name] = round(after[0] - before[-1])
        if course:
            falls = sum(later < earlier for (_, earlier), (_, later) in pairwise(course))
            found["restarts"] = max(falls, found.get("restarts") or 0)
    return found


def _course(readings: Sequence[ServerMetricsRead], metric: str) -> Iterator[Reading]:
    """A metric over time, all its labels together."""
    for reading in readings:
        rows = [
            values
            for name, values in zip(reading.names, reading.values, strict=True)
            if name.partition("{")[0] == metric
        ]
        for place, at_ns in enumerate(reading.times_ns):
            known = [value for row in rows if (value := row[place]) is not None]
            if known:
                yield at_ns, sum(known)
