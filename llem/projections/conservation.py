"""What is conserved between the parts of a log: every breach is a reason against the result that was made of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import duckdb

from llem.projections.facts import ExperimentFacts, ProcessFacts, Window
from llem.projections.spans import measurement_spans
from llem.results import ExperimentResult, InvalidReason
from llem.units import NS_PER_S, seconds
from llem_events.events import ExperimentCompleted, ExperimentStarted, ProcessCompleted, ProcessStarted

MAX_EDGE_NS = (
    5 * NS_PER_S
)  # reading the counters of all devices takes a while, two seconds at most for one that does not answer
# Beyond these no device of today is; what is read there was not measured.
_IMPOSSIBLE_SAMPLE = (
    "power_w < 0 OR power_average_w < 0 OR energy_j < 0 OR memory_used_bytes < 0 OR sm_clock_mhz < 0 OR memory_clock_mhz < 0 "
    "OR power_limit_w < 0 OR temperature_c NOT BETWEEN -60 AND 200 OR gpu_utilisation_pct NOT BETWEEN 0 AND 100 "
    "OR memory_utilisation_pct NOT BETWEEN 0 AND 100"
)
_TOKENS_TIMED, _CHUNKS_TIMED = "len(token_times_ns) > 0", "(len(chunk_times_ns) > 0 OR len(chunk_tokens) > 0)"
# The rule of llem_events.request_times, for all requests at once.
_MISTIMED = f"""
({_TOKENS_TIMED})::INT + coalesce({_CHUNKS_TIMED}, false)::INT + (times_reason IS NOT NULL)::INT > 1
OR ({_CHUNKS_TIMED} AND (len(chunk_times_ns) <> len(chunk_tokens)
    OR (len(list_filter(chunk_tokens, lambda n: n IS NULL)) = 0 AND list_sum(chunk_tokens) <> output_tokens)))
OR (NOT coalesce({_CHUNKS_TIMED}, false) AND times_reason IS NULL AND len(token_times_ns) <> output_tokens)
"""
_DISORDERED = """
start_ns < arrival_ns OR end_ns < start_ns OR first_token_ns NOT BETWEEN start_ns AND end_ns
OR (len(token_times_ns) > 0 AND (first_token_ns IS NULL OR token_times_ns[1] <> first_token_ns OR token_times_ns[-1] > end_ns))
OR list_sort(token_times_ns) <> token_times_ns
OR (len(chunk_times_ns) > 0 AND (chunk_times_ns[1] < start_ns OR chunk_times_ns[-1] > end_ns))
OR list_sort(chunk_times_ns) <> chunk_times_ns
"""
_REQUESTS = f"""
SELECT count(*) AS requests, count(*) FILTER (finish_reason = 'error') AS failed_requests,
       coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens,
       count(DISTINCT batch_index) AS batches,
       count(*) FILTER (input_tokens < 0 OR output_tokens < 0 OR batch_size < 1 OR batch_index < 0
                        OR list_min(chunk_tokens) < 0 OR tokens_computed < 0) AS negative,
       count(*) FILTER ({_MISTIMED}) AS mistimed, count(*) FILTER ({_DISORDERED}) AS disordered
FROM requests WHERE experiment_id = ? AND segment_id = ? AND window_kind = 'measurement'
"""
_UNEQUAL_BATCHES = """
SELECT count(*) FROM (SELECT batch_index FROM requests WHERE experiment_id = ? AND segment_id = ? AND window_kind = 'measurement'
                      GROUP BY batch_index HAVING min(batch_size) <> count(*) OR max(batch_size) <> count(*))
"""
_REPEATED = """
SELECT count(*) - count(DISTINCT request_id) FROM requests WHERE experiment_id = ? AND window_kind = 'measurement'
"""
_SAMPLES = f"""
SELECT (SELECT count(*) FROM samples WHERE experiment_id = $id AND ({_IMPOSSIBLE_SAMPLE})),
       (SELECT count(*) FROM (SELECT at_ns <= lag(at_ns) OVER (PARTITION BY segment_id, device_uuid, meter ORDER BY rowid) AS backwards
                              FROM samples WHERE experiment_id = $id) WHERE backwards)
"""
Row = Mapping[str, Any]


def breaches(connection: duckdb.DuckDBPyConnection, facts: ExperimentFacts) -> list[InvalidReason]:
    """Every law that the log of an experiment breaks, the gravest first."""
    found = [
        *_of_the_log(facts),
        *(text for process in facts.processes for text in _of_process(connection, facts, process)),
        *_of_the_experiment(connection, facts),
    ]
    return [*_salvaged(facts), *map(_not_conserved, dict.fromkeys(found)), *_clocks(facts)]


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


def _clocks(facts: ExperimentFacts) -> Iterator[InvalidReason]:
    hosts = {(process.segment.host, process.segment.boot_id) for process in facts.processes}
    if len(hosts) > 1:
        text = f"{len(hosts)} hosts took part, and their clocks were not compared"
        yield InvalidReason(code="clocks_apart", text=text, value=len(hosts), threshold=1)


def _of_the_log(facts: ExperimentFacts) -> Iterator[str]:
    if facts.misfits:
        yield f"{facts.misfits} events do not fit their type and were left out"
    yield from _counted("start of the experiment", facts.every(ExperimentStarted), most=1)
    ends = facts.every(ExperimentCompleted)
    yield from _counted("end of the experiment", ends, most=1)
    completed = sum(process.completed is not None for process in facts.processes)
    for end in ends:
        if end.processes_completed != completed:
            yield f"{completed} processes ended, the experiment's end counts {end.processes_completed}"


def _counted(what: str, events: Sequence[object], *, most: int) -> Iterator[str]:
    if len(events) > most:
        yield f"{what}: found {len(events)}, expected {most}"


def _of_process(
    connection: duckdb.DuckDBPyConnection, facts: ExperimentFacts, process: ProcessFacts
) -> Iterator[str]:
    who = f"process {process.process_index}"
    yield from _counted(f"completion markers of {who}", process.every(ProcessCompleted), most=1)
    yield from _counted(f"starts of {who}", process.every(ProcessStarted), most=1)
    yield from _of_windows(who, process)
    if process.wraps_program:
        return
    key = [facts.experiment_id, process.segment.segment_id]
    asked = connection.execute(_REQUESTS, key)
    names = [column[0] for column in asked.description or ()]
    row = dict(zip(names, asked.fetchall()[0], strict=True))
    yield from _of_requests(who, row)
    if process.completed is not None:
        yield from _against_marker(who, row, process.completed)
    if unequal := _number(connection, _UNEQUAL_BATCHES, key):
        yield f"{unequal} batches of {who} have another size than their requests say"
    if outside := _outside(connection, process, key):
        yield f"{outside} requests of {who} lie outside of its measurement windows"


def _of_requests(who: str, row: Row) -> Iterator[str]:
    if row["negative"]:
        yield f"{row['negative']} requests of {who} have counts below what can be"
    if row["mistimed"]:
        yield f"{row['mistimed']} requests of {who} have another number of token times than of tokens"
    if row["disordered"]:
        yield f"{row['disordered']} requests of {who} have times out of order"
    if not row["output_tokens"]:
        yield f"no output token of {who} is in the log"


def _against_marker(who: str, row: Row, marker: ProcessCompleted) -> Iterator[str]:
    """The events against what the worker counted when it ended."""
    for name in ("requests", "failed_requests", "input_tokens", "output_tokens", "batches"):
        counted = getattr(marker, name)
        if counted != row[name]:
            yield f"{name.replace('_', ' ')} of {who}: {row[name]} in the log, {counted} counted when it ended"


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
    opened = [abs(edge.at_ns - window.opened_ns) for edge in window.opened.edges]
    closed = (
        [abs(edge.at_ns - (window.closed_ns or 0)) for edge in window.closed.edges] if window.closed else []
    )
    farthest_ns = max([*opened, *closed], default=0)
    if farthest_ns > MAX_EDGE_NS:
        yield f"an energy counter of {who} was read {seconds(farthest_ns):.0f} s from its window's edge"


def _outside(connection: duckdb.DuckDBPyConnection, process: ProcessFacts, key: Sequence[Any]) -> int:
    spans = measurement_spans(connection, process)
    inside = " OR ".join(["start_ns >= ? AND end_ns <= ?"] * len(spans)) or "false"
    edges = [edge for span in spans for edge in span]
    sql = "SELECT count(*) FROM requests WHERE experiment_id = ? AND segment_id = ? AND window_kind = 'measurement' "
    return _number(connection, f"{sql} AND NOT ({inside})", [*key, *edges])


def _of_the_experiment(connection: duckdb.DuckDBPyConnection, facts: ExperimentFacts) -> Iterator[str]:
    if repeated := _number(connection, _REPEATED, [facts.experiment_id]):
        yield f"{repeated} request ids occur more than once"
    impossible, backwards = connection.execute(_SAMPLES, {"id": facts.experiment_id}).fetchall()[0]
    if impossible:
        yield f"{impossible} samples hold what no device can read"
    if backwards:
        yield f"{backwards} samples are not later than the one before"
    yield from _of_sampling(connection, facts)


def _of_sampling(connection: duckdb.DuckDBPyConnection, facts: ExperimentFacts) -> Iterator[str]:
    """Samples in the log against what every sampler counted when it ended."""
    sql = "SELECT process_index, host, sum(samples) FROM segments WHERE experiment_id = ? AND role = 'sampler' GROUP BY ALL"
    stored = {
        (index, host): int(count)
        for index, host, count in connection.execute(sql, [facts.experiment_id]).fetchall()
    }
    for process in facts.processes:
        ended = process.sampling
        if ended is None:
            continue
        found = stored.get((process.segment.process_index, process.segment.host), 0)
        if found != ended.samples - ended.samples_dropped:
            yield f"samples of process {process.process_index}: {found} in the log, {ended.samples} counted when its sampler ended"


def _number(connection: duckdb.DuckDBPyConnection, sql: str, values: Iterable[Any]) -> int:
    return int(connection.execute(sql, list(values)).fetchall()[0][0] or 0)
