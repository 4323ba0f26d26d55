"""What a report draws, asked from the tables: power in even steps of time, distributions of latencies, percentiles. Nothing here is a formula."""

import itertools
import math
from collections.abc import Sequence

import duckdb

from llem.report.charts import Trace
from llem.results.throttling import ANY_REASON

STEPS = 600  # of a trace: a pixel each
COUNTED_NS = 500_000_000  # several ticks of a counter
COUNTED_STEPS = 80
LEAD_S = 2.0  # before the first window
SHARES = [0.0, 0.01, *(step / 50 for step in range(1, 50)), 0.99, 0.999, 1.0]

_DEVICES = """
SELECT DISTINCT device_uuid, device_name FROM devices WHERE experiment_id = ? AND device_uuid IS NOT NULL ORDER BY device_uuid
"""
_START = "SELECT min(opened_ns) FROM windows WHERE experiment_id = ? AND kind = 'measurement'"
_SPAN = "SELECT min(at_ns), max(at_ns) FROM samples WHERE experiment_id = ? AND device_uuid = ? AND power_w IS NOT NULL"
_TRACE = """
SELECT (floor((at_ns - $first_ns) / $step_ns) + 0.5) * $step_ns / 1e9 + ($first_ns - $start_ns) / 1e9 AS at_s,
       min(power_w), avg(power_w), max(power_w), arg_min(energy_j, at_ns), arg_min(at_ns, at_ns),
       bool_or(throttle_reasons & $slowed > 0)
FROM samples WHERE experiment_id = $run AND device_uuid = $device AND power_w IS NOT NULL
GROUP BY at_s ORDER BY at_s
"""
_WINDOWS = """
SELECT kind, min((opened_ns - $start_ns) / 1e9), max((closed_ns - $start_ns) / 1e9) FROM windows
WHERE experiment_id = $run AND closed_ns IS NOT NULL AND kind <> 'region' GROUP BY kind, window_index ORDER BY 2
"""
_LATENCIES = """
SELECT quantile_cont({series}, $shares) FROM timed_requests
WHERE list_contains($runs, experiment_id) AND window_kind = 'measurement' AND error IS NULL AND {series} > 0
"""


def traces(connection: duckdb.DuckDBPyConnection, run: str) -> list[Trace]:
    """Power of every device of a run; none for one without samples."""
    start = connection.execute(_START, [run]).fetchone()
    start_ns = start[0] if start else None
    if start_ns is None:
        return []
    windows = connection.execute(_WINDOWS, {"run": run, "start_ns": start_ns}).fetchall()
    from_s = windows[0][1] - LEAD_S if windows else -math.inf
    found = []
    for uuid, name in connection.execute(_DEVICES, [run]).fetchall():
        if (drawn := _trace(connection, run, uuid, start_ns, from_s)) is not None:
            found.append(drawn._replace(name=f"{name} ({uuid})", windows=windows))
    return found


def _trace(
    connection: duckdb.DuckDBPyConnection, run: str, device: str, start_ns: int, from_s: float
) -> Trace | None:
    first_ns, last_ns = connection.execute(_SPAN, [run, device]).fetchone() or (None, None)
    if first_ns is None or last_ns == first_ns:
        return None
    step_ns = max((last_ns - first_ns) // STEPS, 1)
    named = {
        "run": run,
        "device": device,
        "start_ns": start_ns,
        "first_ns": first_ns,
        "step_ns": step_ns,
        "slowed": ANY_REASON,
    }
    rows = [row for row in connection.execute(_TRACE, named).fetchall() if row[0] >= from_s]
    if len(rows) < 2:
        return None
    at_s, low, mean, high, *_ = zip(*rows, strict=True)
    throttled = [row[0] for row in rows if row[6]]
    return Trace(device, at_s, low, mean, high, [], list(_counter_power(rows, start_ns)), throttled)


def _counter_power(rows: Sequence[tuple[float, ...]], start_ns: int) -> list[tuple[float, float]]:
    """The counter's gain over its time, between readings so far apart that its ticks do not show, at the middle between them."""
    readings = [(row[5], row[4]) for row in rows if row[4] is not None]
    if not readings:
        return []
    least_ns = max(COUNTED_NS, (readings[-1][0] - readings[0][0]) / COUNTED_STEPS)
    edges = readings[:1]
    for at_ns, energy_j in readings:
        if at_ns - edges[-1][0] >= least_ns:
            edges.append((at_ns, energy_j))
    return [
        ((first + last) / 2e9 - start_ns / 1e9, (after - before) / (last - first) * 1e9)
        for (first, before), (last, after) in itertools.pairwise(edges)
    ]


def distribution(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[str], series: str
) -> list[tuple[float, float]]:
    """Milliseconds and the share of the runs' requests that took no longer; nothing where it was not measured."""
    named = {"runs": list(runs), "shares": SHARES}
    row = connection.execute(_LATENCIES.format(series=series), named).fetchone()
    values = row[0] if row else None
    return list(zip(values, SHARES, strict=True)) if values else []
