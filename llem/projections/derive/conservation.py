"""What is conserved between the parts of a log: every breach is a reason against the result that was made of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from llem.projections.derive.clocks import Clocks
from llem.projections.derive.history import Clock, ExperimentFacts, ProcessFacts, Window
from llem.projections.derive.process import Seen, thresholds
from llem.projections.derive.request_laws import RequestCounts
from llem.projections.derive.requests import count_requests
from llem.projections.derive.samples import between
from llem.projections.derive.source import Device, Source, Span
from llem.results import ExperimentResult, InvalidReason
from llem.units import NS_PER_S, seconds
from llem_events.events import (
    BaselineMeasured,
    ExperimentCompleted,
    ExperimentStarted,
    LogFailed,
    MeterStarted,
    ModelLoaded,
    ProcessCompleted,
    ProcessFailed,
    ProcessStarted,
    SamplesDropped,
)

MAX_EDGE_NS = NS_PER_S // 100  # a window opens with the last of its counters read, and closes with the first
MAX_CLOCK_STEP_NS = 3_600 * NS_PER_S  # no correction of a clock is larger; such a pair was never read
IDLE_POWER = (0.6, 1.6)  # of the least and of the highest sample in its window: a mean lies between them


def breaches(
    source: Source, facts: ExperimentFacts, measured: Sequence[Seen], clocks: Clocks
) -> list[InvalidReason]:
    """Every law that the log of an experiment breaks, the gravest first."""
    counts = {seen.process.segment.segment_id: seen.work.counts for seen in measured}
    broken = [
        *_of_the_log(facts, clocks),
        *_of_what_was_seen(measured),
        *(text for process in facts.processes for text in _of_process(source, process, counts)),
        *_of_the_experiment(source, facts),
    ]
    return [*_salvaged(facts), *map(_not_conserved, dict.fromkeys(broken)), *_clocks(facts, measured, clocks)]


def imported_breaches(result: ExperimentResult) -> list[InvalidReason]:
    """The laws that an imported result breaks: it has no log, only its figures."""
    counts = [("tokens", result.total_tokens), ("input tokens", result.total_input_tokens)]
    counts += [("output tokens", result.total_output_tokens), ("requests", result.total_requests)]
    counts += [("failed requests", result.failed_requests)]
    negative = [f"{count} {what}" for what, count in counts if count is not None and count < 0]
    figures = {
        "energy": result.total_energy_j,
        "inference time": result.total_inference_time_sec,
        "FLOPs": result.total_flops,
    }
    negative += [f"{what} of {value:g}" for what, value in figures.items() if value is not None and value < 0]
    if result.end_time < result.start_time:
        negative.append(f"an end {-result.duration_sec:.1f} s before its start")
    return [_not_conserved(text) for text in negative]


def _not_conserved(text: str) -> InvalidReason:
    return InvalidReason(code="not_conserved", text=text)


def _salvaged(facts: ExperimentFacts) -> Iterator[InvalidReason]:
    missing = [segment for segment in facts.segments if segment.missing_bytes > 0]
    if missing:
        lost = sum(segment.missing_bytes for segment in missing)
        files = ", ".join(segment.file for segment in missing)
        yield InvalidReason(
            code="salvaged",
            text=f"{lost} damaged bytes of its log are left out: {files}",
            value=lost,
            threshold=0,
        )


def _clocks(facts: ExperimentFacts, measured: Sequence[Seen], clocks: Clocks) -> Iterator[InvalidReason]:
    """Against an experiment of several hosts: clocks that nobody compared, or not well enough for windows so short, or windows that began apart."""
    hosts = {process.segment.clock for process in facts.processes}
    if len(hosts) < 2:
        return
    if unknown := [host for host, _ in hosts - clocks.errors_ns.keys()]:
        told = "" if len(unknown) == len(hosts) else f" with that of {', '.join(sorted(map(str, unknown)))}"
        text = f"{len(hosts)} hosts took part, and their clocks were not compared{told}"
        yield InvalidReason(code="clocks_apart", text=text, value=len(hosts), threshold=1)
    elif measured:
        yield from _placed(measured, clocks, {host: clocks.errors_ns[host] for host in hosts}, facts.plan)


def _placed(
    measured: Sequence[Seen], clocks: Clocks, errors_ns: Mapping[Clock, int], plan: Mapping[str, Any]
) -> Iterator[InvalidReason]:
    limit = thresholds(dict(plan)).max_clock_error
    shortest_ns = min(seen.spans[-1][1] - seen.spans[0][0] for seen in measured) or 1
    (host, _), error_ns = max(errors_ns.items(), key=lambda known: known[1])
    if error_ns > limit * shortest_ns:
        text = f"the clock of {host} is known to {seconds(error_ns):.3g} s, {error_ns / shortest_ns:.1%} of the measurement, more than {limit:.1%}"
        yield _apart(text, error_ns / shortest_ns, limit)
    begun_ns = [clocks.wall_ns(seen.process.segment, seen.spans[0][0]) for seen in measured]
    apart_ns = max(begun_ns) - min(begun_ns)
    if apart_ns > limit * shortest_ns:
        text = f"hosts began to measure {seconds(apart_ns):.3g} s apart, {apart_ns / shortest_ns:.1%} of the measurement, more than {limit:.1%}"
        yield _apart(text, apart_ns / shortest_ns, limit)


def _apart(text: str, value: float, limit: float) -> InvalidReason:
    return InvalidReason(code="clocks_apart", text=text, value=value, threshold=limit)


def _of_the_log(facts: ExperimentFacts, clocks: Clocks) -> Iterator[str]:
    if facts.misfits:
        yield f"{facts.misfits} events do not fit their type and were left out"
    for failure in facts.every(LogFailed):
        yield f"{failure.events_lost} events were lost when the log failed: {failure.error}"
    for (host, _), step_ns in clocks.stepped.items():
        if step_ns > MAX_CLOCK_STEP_NS:
            yield f"readings of the clocks of {host} are {seconds(step_ns):.0f} s apart"
    begun = {segment.segment_id: segment.monotonic_ns or 0 for segment in facts.segments}
    if early := sum(fact.at_ns < begun.get(fact.segment_id, 0) for fact in facts.all):
        yield f"{early} events are older than the segment that they stand in"
    both = {event.process_index for event in facts.every(ProcessFailed)} & {
        process.process_index for process in facts.processes if process.completed is not None
    }
    for index in sorted(both):
        yield f"process {index} both failed and completed"
    yield from _counted("starts of the experiment", facts.every(ExperimentStarted), least=1, most=1)
    ends = facts.every(ExperimentCompleted)
    yield from _counted("ends of the experiment", ends, most=1)
    completed = sum(process.completed is not None for process in facts.processes)
    counts = (completed, (facts.started.expected_processes if facts.started else 0) - completed)
    for end in ends:
        if (end.processes_completed, end.processes_failed) != counts:
            yield (
                f"{counts[0]} processes completed and {counts[1]} did not, "
                f"the experiment's end counts {end.processes_completed} and {end.processes_failed}"
            )


def _counted(what: str, events: Sequence[object], *, least: int = 0, most: int) -> Iterator[str]:
    if not least <= len(events) <= most:
        yield f"{what}: found {len(events)}, expected {most}"


def _of_what_was_seen(measured: Sequence[Seen]) -> Iterator[str]:
    """Of the samples that figures are made of."""
    for seen in measured:
        who = f"process {seen.process.process_index}"
        watched = [samples for spanned in seen.samples for samples in spanned]
        if repeated := sum(samples.repeated for samples in watched):
            yield f"{repeated} samples of {who} were taken at the moment of another"
        if any(samples.counter_ran_backwards for samples in watched):
            yield f"an energy counter of {who} ran backwards"


def _of_process(
    source: Source, process: ProcessFacts, counted: Mapping[str | None, RequestCounts]
) -> Iterator[str]:
    who = f"process {process.process_index}"
    yield from _counted(f"completion markers of {who}", process.every(ProcessCompleted), most=1)
    yield from _counted(f"starts of {who}", process.every(ProcessStarted), least=1, most=1)
    yield from _counted(f"starts of the sampler of {who}", process.every(MeterStarted), most=1)
    named = {event.process_index for event in process.all_about_itself}
    if named - {process.process_index}:
        yield f"events of {who} name process {min(named - {process.process_index})}"
    yield from _of_devices(who, process)
    yield from _of_idle_power(source, who, process)
    yield from _of_windows(who, process)
    if process.wraps_program:
        return
    if process.completed is not None and not process.is_imported:
        yield from _counted(f"models loaded by {who}", process.every(ModelLoaded), least=1, most=1)
    counts = counted.get(process.segment.segment_id) or count_requests(source, process)
    if not process.is_silent:
        yield from _of_requests(who, counts)
    if process.completed is not None:
        yield from _against_marker(who, counts, process.completed)
    if counts.unequal_batches:
        yield f"{counts.unequal_batches} batches of {who} have another size than their requests say"
    if counts.outside:
        yield f"{counts.outside} requests of {who} lie outside of its measurement windows"


def _of_requests(who: str, counts: RequestCounts) -> Iterator[str]:
    if counts.negative:
        yield f"{counts.negative} requests of {who} have counts below what can be"
    if counts.contradictory:
        yield f"{counts.contradictory} requests of {who} ended well and name an error"
    if counts.mistimed:
        yield f"{counts.mistimed} requests of {who} have another number of token times than of tokens"
    if counts.disordered:
        yield f"{counts.disordered} requests of {who} have times out of order"
    if not counts.output_tokens:
        yield f"no output token of {who} is in the log"


def _against_marker(who: str, counts: RequestCounts, marker: ProcessCompleted) -> Iterator[str]:
    """The events against what the worker counted when it ended."""
    for name in ("requests", "failed_requests", "input_tokens", "output_tokens", "batches"):
        found, counted = getattr(counts, name), getattr(marker, name)
        if counted != found:
            yield f"{name.replace('_', ' ')} of {who}: {found} in the log, {counted} counted when it ended"


def _of_windows(who: str, process: ProcessFacts) -> Iterator[str]:
    windows = process.windows
    names = [(window.opened.kind, window.opened.window_index) for window in windows]
    yield from _counted(f"windows of {who} of one name", names, most=len(set(names)))
    if process.stray_closes:
        yield f"{process.stray_closes} ends of windows of {who} belong to no window, or to one that had ended"
    for window in windows:
        if window.closed_ns is None:
            yield f"the end of a {window.opened.kind} window of {who} was not recorded and is guessed"
        elif window.closed_ns < window.opened_ns:
            yield f"a {window.opened.kind} window of {who} ends before it begins"
        yield from _of_edges(who, window)
    for before, after in pairwise(sorted(windows, key=lambda window: window.opened_ns)):
        if before.closed_ns is not None and before.closed_ns > after.opened_ns:
            yield f"two windows of {who} overlap"


def _of_edges(who: str, window: Window) -> Iterator[str]:
    opened_ns = max((edge.at_ns for edge in window.opened.edges), default=window.opened_ns)
    apart_ns = abs(opened_ns - window.opened_ns)
    if window.closed is not None and window.closed_ns is not None:
        closed_ns = min((edge.at_ns for edge in window.closed.edges), default=window.closed_ns)
        apart_ns = max(apart_ns, abs(closed_ns - window.closed_ns))
    if apart_ns > MAX_EDGE_NS:
        yield f"the energy counters of {who} were read {seconds(apart_ns):.2f} s from their window's edge"


def _of_devices(who: str, process: ProcessFacts) -> Iterator[str]:
    """The devices that the worker, its sampler and the edges of its windows name are the same."""
    watched = [metered for _, metered in process.every_device]
    uuids = {metered.device.uuid for metered in watched}
    if process.started is not None and process.started.devices != [own.device for own in process.devices]:
        yield f"{who} and its sampler name other devices"
    if len(uuids) < len(watched):
        yield f"a device of {who} is named twice"
    ends = [end for window in process.windows for end in (window.opened, window.closed) if end is not None]
    if any(end.edges and {edge.device_uuid for edge in end.edges} != uuids for end in ends):
        yield f"edges of windows of {who} name other devices"
    numbers = [
        number
        for metered in watched
        for number in (
            metered.counter_tick_ns,
            metered.power_window_ns,
            metered.device.memory_bytes,
            metered.device.power_limit_mw,
        )
    ]
    if any(number is not None and number < 0 for number in numbers):
        yield f"a device of {who} has a tick, an averaging time, a memory or a limit below zero"


def _of_idle_power(source: Source, who: str, process: ProcessFacts) -> Iterator[str]:
    """An idle power that was measured here lies between the samples of its window, the last that had ended when it was told."""
    for fact in process.all:
        if not isinstance(fact.event, BaselineMeasured) or fact.event.reused_from is not None:
            continue
        if (window := _ended_last(process, fact.at_ns)) is None:
            continue
        span = (window.opened_ns - NS_PER_S, (window.closed_ns or window.opened_ns) + NS_PER_S)
        for power in fact.event.devices:
            sampled = _powers(source, Device(process.process_index, power.device_uuid), span)
            mean = power.mean_power_w
            if mean is None or sampled is None:
                continue
            least, most = sampled
            if not IDLE_POWER[0] * least <= mean <= IDLE_POWER[1] * most:
                yield f"the idle power of {power.device_uuid} of {who} is {mean:g} W, its samples say {least:g} to {most:g} W"


def _ended_last(process: ProcessFacts, at_ns: int) -> Window | None:
    """The last of its baselines' windows that had ended by then."""
    ended = [
        window
        for window in process.windows
        if window.opened.kind == "baseline" and window.closed_ns is not None and window.closed_ns <= at_ns
    ]
    return max(ended, key=lambda window: window.opened_ns, default=None)


def _powers(source: Source, device: Device, span: Span) -> tuple[float, float] | None:
    """The least and the largest power that was sampled in a span, where it is not known its average; None without any."""
    power, average = source.values(device, span, ("power_w", "power_average_w")).values()
    seen = (
        power if power.known == power.samples or not average.known else average if not power.known else None
    )
    if seen is None:
        return _powers_one_by_one(source, device, span)
    return None if seen.least is None or seen.most is None else (seen.least, seen.most)


def _powers_one_by_one(source: Source, device: Device, span: Span) -> tuple[float, float] | None:
    extremes_w: list[float] = []
    for _, columns in between(source, device, span, ("power_w", "power_average_w")):
        power_w, average_w = columns.values()
        known_w = np.where(np.isnan(power_w), average_w, power_w)
        known_w = known_w[~np.isnan(known_w)]
        extremes_w += [float(known_w.min()), float(known_w.max())] if len(known_w) else []
    return (min(extremes_w), max(extremes_w)) if extremes_w else None


def _of_the_experiment(source: Source, facts: ExperimentFacts) -> Iterator[str]:
    if repeated := source.repeated_request_ids():
        yield f"{repeated} request ids occur more than once"
    known = {
        (process.process_index, metered.device.uuid)
        for process in facts.processes
        for _, metered in process.every_device
    }
    begun = {segment.segment_id: segment.monotonic_ns or 0 for segment in facts.segments}
    for (index, uuid), segment_id, count, first_ns, _, impossible in source.sampled():
        if impossible:
            yield f"{impossible} samples of {uuid} hold what no device can read"
        if (index or 0, uuid) not in known:
            yield f"{count} samples are of {uuid}, which no process named"
        if first_ns < begun.get(segment_id, 0):
            yield f"samples of {uuid} were taken before their sampler began"
    yield from _of_sampling(facts)


def _of_sampling(facts: ExperimentFacts) -> Iterator[str]:
    """Samples in the log against what every sampler counted when it ended."""
    stored: Counter[tuple[int | None, str | None]] = Counter()
    for segment in facts.segments:
        if segment.role == "sampler":
            stored[segment.process_index, segment.host] += segment.samples
    for process in facts.processes:
        ended = process.sampling
        if ended is None:
            continue
        dropped = sum(event.count for event in process.every(SamplesDropped))
        if dropped > ended.samples_dropped:
            yield f"{dropped} samples of process {process.process_index} were dropped, {ended.samples_dropped} counted when its sampler ended"
        in_log = stored[process.segment.process_index, process.segment.host]
        if in_log != ended.samples - ended.samples_dropped:
            yield f"samples of process {process.process_index}: {in_log} in the log, {ended.samples} counted when its sampler ended"
