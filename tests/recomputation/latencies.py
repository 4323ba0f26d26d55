"""Raw latencies of every process, worked out from the times in the table `requests`, and put where a result had them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import duckdb

_FINISHED = """
SELECT r.experiment_id, r.process_index, arrival_ns, first_token_ns, end_ns, token_times_ns, clock_offset_ns
FROM requests r JOIN segments USING (experiment_id, segment_id)
WHERE window_kind = 'measurement' AND finish_reason IN ('length', 'eos')
"""
TTFT = "inference_metrics_latency_measurements_ttft_ms"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SERIES = ("ttft_ms", "itl_full_ms", "itl_trimmed_ms", "e2e_ms")
Span = tuple[datetime, datetime]
Finished = tuple[Span, Mapping[str, list[str]]]  # arrival and end, and the values as they are printed
Latencies = Mapping[tuple[str, int], Sequence[Finished]]  # by experiment and process


def finished_requests(connection: duckdb.DuckDBPyConnection) -> Latencies:
    """All requests of measurements that ran to their end."""
    found = defaultdict(list)
    rows = connection.execute(_FINISHED).fetchall()
    for experiment_id, index, arrival, first, end, times, offset in rows:
        gaps = [_ms(after - before) for before, after in pairwise(times)]
        values = {
            "ttft_ms": [] if first is None else [_ms(first - arrival)],
            "itl_full_ms": gaps,
            "itl_trimmed_ms": gaps[1:-1],
            "e2e_ms": [_ms(end - arrival)],
        }
        found[experiment_id, index].append(((_wall(arrival + offset), _wall(end + offset)), values))
    return found


def _ms(ns: int) -> str:
    return repr(ns / 1e6)


def _wall(wall_ns: int) -> datetime:
    return EPOCH + timedelta(microseconds=wall_ns // 1000)


def into_processes(processes: Iterable[dict[str, Any]], latencies: Latencies) -> None:
    """Fill the raw values of processes whose results hold only statistics."""
    for process in processes:
        measured = process["inference_metrics"]["latency_measurements"]
        if measured and measured["statistics"]:
            stamps = process["timestamps"]
            spans = process["windows"] or [(stamps["start"], stamps["end"])]
            values = list(_within(latencies[process["experiment_id"], process["process_index"]], spans))
            measured |= {series: [ms for one in values for ms in one[series]] for series in SERIES}


def into_line(line: dict[str, str], latencies: Latencies) -> dict[str, str]:
    """The same of a line of CSV; the rules ask for times to the first token alone."""
    if json.loads(line[TTFT] or "[]"):
        return line
    spans = json.loads(line["windows"]) or [(line["timestamps_start"], line["timestamps_end"])]
    finished = latencies.get((line["experiment_id"], int(line["process_index"])), [])
    values = [ms for one in _within(finished, spans) for ms in one["ttft_ms"]]
    return line | {TTFT: f"[{', '.join(values)}]"}


def _within(
    finished: Sequence[Finished], spans: Sequence[tuple[str, str]]
) -> Iterator[Mapping[str, list[str]]]:
    edges = [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in spans]
    for (arrival, end), values in finished:
        if any(opened <= arrival and end <= closed for opened, closed in edges):
            yield values
