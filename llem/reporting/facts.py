"""What a report draws, asked from the tables: power in even steps of time, distributions of latencies, percentiles. Nothing here is a formula."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt

from llem.factors import Factors
from llem.projections import footprint
from llem.projections.database import limit_cache
from llem.reporting.charts import Curves, Trace
from llem.results.roofline import RooflinePoint, WeightReads, roofline_point
from llem.results.throttling import ANY_REASON
from llem_events.events import StatedFactor
from llem_events.inspection import SegmentDigest, root_digest

STEPS, FEW_STEPS = 600, 360  # of a trace: a pixel each; of one among many
CACHE = "160MB"  # of what DuckDB has read of the samples: each is read twice at most
COUNTED_NS = 500_000_000  # several ticks of a counter
COUNTED_STEPS = 80
LEAD_S = 2.0  # before the first window
GAP_REQUESTS = 500
Floats = npt.NDArray[np.float64]
SHARES = [0.0, 0.01, *(step / 50 for step in range(1, 50)), 0.99, 0.999, 1.0]

_NAME = "SELECT device_name FROM devices WHERE experiment_id = ? AND device_uuid = ?"
_START = "SELECT min(opened_ns) FROM windows WHERE experiment_id = ? AND kind = 'measurement'"
# Once for all runs: a name in WHERE alone lets DuckDB read all samples, rows from one to another do not.
_EXTENTS = """
SELECT experiment_id, device_uuid, min(rowid) AS first_row, max(rowid) AS last_row, min(at_ns) AS first_ns, max(at_ns) AS last_ns
FROM samples WHERE experiment_id IN (SELECT unnest($runs::VARCHAR[])) AND power_w IS NOT NULL GROUP BY ALL ORDER BY device_uuid
"""
_TRACE = """
SELECT (floor((at_ns - $first_ns) / $step_ns) + 0.5) * $step_ns / 1e9 + ($first_ns - $start_ns) / 1e9 AS at_s,
       min(power_w), avg(power_w), max(power_w), arg_min(energy_j, at_ns), min(at_ns),
       bool_or(throttle_reasons & $slowed > 0), max(temperature_c)
FROM samples WHERE rowid BETWEEN $first_row AND $last_row AND experiment_id = $run AND device_uuid = $device AND power_w IS NOT NULL
GROUP BY at_s ORDER BY at_s
"""
_WINDOWS = """
SELECT kind, min((opened_ns - $start_ns) / 1e9), max((closed_ns - $start_ns) / 1e9) FROM windows
WHERE experiment_id = $run AND closed_ns IS NOT NULL AND kind <> 'region' GROUP BY kind, window_index ORDER BY 2
"""
_LATENCIES = """
SELECT experiment_id, quantile_cont({series}, $shares) FROM timed_requests
WHERE list_contains($runs, experiment_id) AND window_kind = 'measurement' AND error IS NULL AND {series} > 0
GROUP BY GROUPING SETS ((), (experiment_id)) ORDER BY experiment_id
"""
_GAPS = """
WITH chosen AS (
    SELECT experiment_id, token_times_ns AS times FROM requests
    WHERE list_contains($runs, experiment_id) AND window_kind = 'measurement' AND error IS NULL AND len(token_times_ns) > 1
    QUALIFY row_number() OVER (PARTITION BY experiment_id ORDER BY hash(request_id)) <= $most),
gaps AS (
    SELECT experiment_id, unnest(list_transform(range(1, len(times)), lambda i: (times[i + 1] - times[i]) / 1e6)) AS gap_ms FROM chosen)
SELECT experiment_id, quantile_cont(gap_ms, $shares) FROM gaps WHERE gap_ms > 0
GROUP BY GROUPING SETS ((), (experiment_id)) ORDER BY experiment_id
"""
# A run that calibrates shows what it found, another what it relied on; where that is in no run of this store, only that it did.
_SENSORS = """
SELECT d.device_name, d.device_uuid, c.sensor, coalesce(d.calibrated_by, d.experiment_id) AS run, min(d.calibration_age_sec), c.reason,
       c.power_refresh_sec, c.averaging_window_sec, c.delay_sec, c.seen_share, max(coalesce(c.counter_over_power, d.counter_over_power))
FROM devices d LEFT JOIN calibrations c ON c.experiment_id = coalesce(d.calibrated_by, d.experiment_id) AND (c.host, c.device_uuid) = (d.host, d.device_uuid)
WHERE list_contains($runs, d.experiment_id) AND (d.calibrated_by IS NOT NULL OR c.experiment_id IS NOT NULL)
GROUP BY ALL ORDER BY ALL
"""
# A step that brings several tokens of a request reads the weights once; a batch takes as many steps as its longest answer.
_WEIGHT_READS = """
WITH steps AS (
    SELECT experiment_id, process_index, batch_index,
           max(CASE WHEN len(chunk_times_ns) > 0 THEN len(chunk_times_ns) ELSE output_tokens END) AS steps
    FROM requests WHERE list_contains($runs, experiment_id) AND window_kind = 'measurement' GROUP BY ALL),
passes AS (
    SELECT experiment_id, process_index, sum(steps) AS passes FROM batches JOIN steps USING (experiment_id, process_index, batch_index) GROUP BY ALL)
SELECT p.experiment_id, TRY_CAST(v.body ->> 'non_embedding_parameters' AS BIGINT),
       CASE WHEN coalesce(p.quantization, 'none') = 'none' THEN p.dtype END, s.passes
FROM processes p LEFT JOIN passes s USING (experiment_id, process_index)
LEFT JOIN events v ON (v.experiment_id, v.segment_id) = (p.experiment_id, p.segment_id) AND v.type = 'model_loaded'
WHERE list_contains($runs, p.experiment_id) AND coalesce(p.group_rank, 0) = 0
"""
_SPEEDS = """
SELECT r.experiment_id, r.total_flops, r.flops_per_second, r.model_flops_utilisation,
       (SELECT list(device_name) FROM devices d WHERE d.experiment_id = r.experiment_id)
FROM experiment_results r WHERE list_contains($runs, r.experiment_id) AND r.model_flops_utilisation > 0
"""
_SEGMENTS = """
SELECT experiment_id, file, segment_id, blocks, events, digest, verdict FROM segments
WHERE list_contains($runs, experiment_id) AND segment_id IS NOT NULL AND digest IS NOT NULL AND verdict <> 'left_out'
"""
_SAMPLES = """
SELECT (at_ns - $start_ns) / 1e9 AS at_s, power_w FROM samples
WHERE rowid BETWEEN $first_row AND $last_row AND experiment_id = $run AND device_uuid = $device AND power_w IS NOT NULL ORDER BY at_ns
"""


class _Extent(NamedTuple):
    """Where the samples of a device of a run stand, and when they were taken."""

    run: str
    device: str
    first_row: int
    last_row: int
    first_ns: int
    last_ns: int

    @property
    def place(self) -> dict[str, object]:
        """For a statement."""
        return {
            "run": self.run,
            "device": self.device,
            "first_row": self.first_row,
            "last_row": self.last_row,
        }


def traces(connection: duckdb.DuckDBPyConnection, runs: Sequence[str], *, steps: int = STEPS) -> list[Trace]:
    """Power of every device of some runs, run after run; none of one without samples."""
    limit_cache(connection, CACHE)
    try:
        rows = connection.execute(_EXTENTS, {"runs": list(runs)}).fetchall()
        extents = sorted((_Extent(*row) for row in rows), key=lambda extent: runs.index(extent.run))
        found = [_trace(connection, extent, steps=steps) for extent in extents]
    finally:
        limit_cache(connection, None)
    return [drawn for drawn in found if drawn is not None]


def _trace(connection: duckdb.DuckDBPyConnection, extent: _Extent, *, steps: int) -> Trace | None:
    start = connection.execute(_START, [extent.run]).fetchone()
    if start is None or start[0] is None or extent.last_ns == extent.first_ns:
        return None
    (start_ns,) = start
    windows = connection.execute(_WINDOWS, {"run": extent.run, "start_ns": start_ns}).fetchall()
    from_s = windows[0][1] - LEAD_S if windows else -math.inf
    named = {
        **extent.place,
        "start_ns": start_ns,
        "first_ns": extent.first_ns,
        "step_ns": max((extent.last_ns - extent.first_ns) // steps, 1),
        "slowed": ANY_REASON,
    }
    rows = [row for row in connection.execute(_TRACE, named).fetchall() if row[0] >= from_s]
    if len(rows) < 2:
        return None
    (name,) = connection.execute(_NAME, [extent.run, extent.device]).fetchone() or ("device",)
    at_s, low, mean, high, *_, temperature = zip(*rows, strict=True)
    return Trace(
        run=extent.run,
        place=extent.place,
        name=f"{name} ({extent.device})",
        at_s=at_s,
        low_w=low,
        mean_w=mean,
        high_w=high,
        temperature_c=temperature,
        windows=windows,
        counter_w=list(_counter_power(rows, start_ns)),
        throttled=_stretches([(row[0], bool(row[6])) for row in rows]),
    )


def _stretches(steps: Sequence[tuple[float, bool]]) -> list[tuple[float, float]]:
    """From and to of the steps in a row that are marked; a step lasts until the next one."""
    ends = [at_s for at_s, _ in steps[1:]] + [steps[-1][0]]
    marked = zip(steps, ends, strict=True)
    found = []
    for is_marked, group in itertools.groupby(marked, key=lambda step: step[0][1]):
        if is_marked:
            members = list(group)
            found.append((members[0][0][0], members[-1][1]))
    return found


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


class Sensor(NamedTuple):
    """A power sensor, as a calibration found it; None for what is not known."""

    device_name: str
    device_uuid: str
    sensor: str | None
    run: str  # that calibrated it
    age_sec: float | None  # when it was first relied on; None of the run itself
    reason: str | None  # why nothing of it is relied on
    power_refresh_sec: float | None
    averaging_window_sec: float | None
    delay_sec: float | None
    seen_share: float | None
    counter_over_power: float | None


def sensors(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[Sensor]:
    """Those that some runs calibrated, or rely on; none where nothing was ever calibrated."""
    rows = connection.execute(_SENSORS, {"runs": list(runs)}).fetchall()
    return [Sensor(*row) for row in rows]


def root_digests(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> dict[str, str]:
    """What `llem log digest` says of each run, from what was read of its segments."""
    segments: dict[str, list[SegmentDigest]] = {}
    for run, file, segment_id, blocks, events, digest, verdict in connection.execute(
        _SEGMENTS, {"runs": list(runs)}
    ).fetchall():
        segments.setdefault(run, []).append(
            SegmentDigest(
                *(bytes.fromhex(segment_id), Path(file), blocks, events, bytes.fromhex(digest)),
                is_sealed=verdict == "clean",
            )
        )
    return {run: root_digest(found).hex() for run, found in segments.items()}


def roofline(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> dict[str, RooflinePoint]:
    """Where each run stands below its roof; those of which too little is known are not there."""
    speeds = connection.execute(_SPEEDS, {"runs": list(runs)}).fetchall()
    if not speeds:
        return {}
    reads: dict[str, list[WeightReads]] = {}
    for run, *known in connection.execute(_WEIGHT_READS, {"runs": [run for run, *_ in speeds]}).fetchall():
        reads.setdefault(run, []).append(WeightReads(*known))
    points = {
        run: roofline_point(
            reads.get(run, []),
            flops=flops,
            flops_per_s=flops_per_s,
            utilisation=utilisation,
            device_names=names or [],
        )
        for run, flops, flops_per_s, utilisation, names in speeds
    }
    return {run: point for run, point in points.items() if point is not None}


def distribution(connection: duckdb.DuckDBPyConnection, runs: Sequence[str], series: str) -> Curves | None:
    """Milliseconds and the share of requests that took no longer, of all runs and of each; None where it was not measured."""
    named = {"runs": list(runs), "shares": SHARES}
    return _curves(connection.execute(_LATENCIES.format(series=series), named).fetchall())


def token_gaps(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> Curves | None:
    """The same of the times between two tokens, of at most `GAP_REQUESTS` requests of each run, the same ones every time."""
    named = {"runs": list(runs), "shares": SHARES, "most": GAP_REQUESTS}
    return _curves(connection.execute(_GAPS, named).fetchall())


def _curves(rows: Sequence[tuple[str | None, list[float] | None]]) -> Curves | None:
    curves = {run: list(zip(values, SHARES, strict=True)) for run, values in rows if values}
    if None not in curves:
        return None
    whole = curves.pop(None)
    return Curves(whole, list(curves.values()) if len(curves) > 1 else [])


def all_samples(connection: duckdb.DuckDBPyConnection, drawn: Trace) -> tuple[Floats, Floats]:
    """Seconds from the measurement's start, and power, of every sample of a device."""
    start = connection.execute(_START, [drawn.run]).fetchone()
    named = {**drawn.place, "start_ns": start[0] if start else 0}
    columns = connection.execute(_SAMPLES, named).fetchnumpy()
    return columns["at_s"], columns["power_w"]


class Site(NamedTuple):
    """The factors that were stated, and what they make of each group's runs: figure -> its values."""

    factors: Sequence[StatedFactor]
    hours: int  # rows of carbon by the hour
    currency: str
    groups: Sequence[dict[str, list[float | None]]]
    reasons: Sequence[str]  # why some are not known


def while_measured(connection: duckdb.DuckDBPyConnection, stated: Factors, runs: Sequence[str]) -> Factors:
    """The factors with the hours of some runs alone: a table of a year is mostly of other times."""
    sql = (
        "SELECT min(start_ns), max(end_ns) FROM experiment_results WHERE list_contains($runs, experiment_id)"
    )
    first_ns, last_ns = connection.execute(sql, {"runs": list(runs)}).fetchone() or (None, None)
    if first_ns is None:
        return stated
    hourly = [hour for hour in stated.hourly if hour.from_ns <= last_ns and hour.to_ns >= first_ns]
    return Factors(stated=stated.stated, hourly=hourly)


def site_of(connection: duckdb.DuckDBPyConnection, stated: Factors, groups: Sequence[Sequence[str]]) -> Site:
    """What footprint() says with these factors."""
    names = [figure.name for figure in footprint.FIGURES]
    sql = f"SELECT experiment_id, currency, reason, {', '.join(names)} FROM footprint() WHERE list_contains($runs, experiment_id)"
    runs = [run for group in groups for run in group]
    rows = {row[0]: row for row in connection.execute(sql, {"runs": runs}).fetchall()}
    unknown = (None,) * (3 + len(names))
    columns = [
        {name: [rows.get(run, unknown)[place] for run in group] for place, name in enumerate(names, start=3)}
        for group in groups
    ]
    return Site(
        factors=stated.stated,
        hours=len(stated.hourly),
        currency=next((row[1] for row in rows.values() if row[1]), ""),
        groups=columns,
        reasons=sorted({row[2] for row in rows.values() if row[2]}),
    )
