"""Runs as a timeline in the Trace Event format, which Perfetto's UI and Chrome open: read from the tables and written in a stream."""

from collections.abc import Callable, Iterator, Sequence
from math import log10
from typing import Any, NamedTuple, TextIO

import duckdb

from llem.export import formats
from llem.export.tracks import Numbers, Process, Slice, TraceEvent
from llem.results.throttling import ANY_REASON
from llem.units import NS_PER_S

MOST_STEPS = 10_000  # of a counter, unless a resolution is asked for
RATE_STEPS = 1_000  # of tokens per second, where all samples are written
LEAST_RATE_STEP_NS = NS_PER_S // 10
FETCHED_ROWS = 2_000
SHOWN_AS = {  # column of samples -> name of the counter, unit
    "power_w": ("power", "W"),
    "temperature_c": ("temperature", "C"),
    "sm_clock_mhz": ("sm clock", "MHz"),
    "memory_clock_mhz": ("memory clock", "MHz"),
    "gpu_utilisation_pct": ("utilisation", "%"),
    "memory_used_bytes": ("memory used", "B"),
    "power_limit_w": ("power limit", "W"),
}


class Course(NamedTuple):
    """The samples of a device by the worker that took most of them."""

    host: str
    device_uuid: str
    meter: str | None
    process_index: int | None
    samples: int


class Span(NamedTuple):
    """When the first and the last thing of a run happened, by its wall clock."""

    from_ns: int
    to_ns: int


class RunTimeline:
    """The events of one run, in microseconds from its start; `resolution_s` 0 takes every sample."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        experiment_id: str,
        numbers: Numbers,
        *,
        resolution_s: float | None,
    ) -> None:
        self._connection, self._id, self._numbers = connection, experiment_id, numbers
        self._span = Span(*self._rows(_SPAN)[0])
        self._courses = [Course(*row) for row in self._rows(_COURSES)]
        most = max((course.samples for course in self._courses), default=0)
        self.step_ns = self._step(most) if resolution_s is None else round(resolution_s * NS_PER_S)
        self.rate_step_ns = self.step_ns or max(LEAST_RATE_STEP_NS, self._even_step(RATE_STEPS))

    def events(self) -> Iterator[TraceEvent]:
        """All of them, each track in the order of time."""
        if self._span.from_ns is None:
            return
        yield from self._warnings()
        for index, host in self._rows(_WORKERS):
            yield from self._worker(index, host)
        for course in self._courses:
            yield from self._device(course)

    def _warnings(self) -> Iterator[TraceEvent]:
        process, named = self._numbers.process(f"run {self._id}")
        tid, thread = self._numbers.thread(process.pid, "warnings")
        warnings = self._rows(_WARNINGS)
        yield from (*named, thread) if warnings else named
        for code, text, index, device, at_us in warnings:
            told = _known(text=text, worker=index, device=device)
            yield process.instant(code, at_us, tid, **told)

    def _worker(self, index: int, host: str) -> Iterator[TraceEvent]:
        process, named = self._numbers.process(f"worker {index} on {host}")
        yield from named
        yield from self._sliced(process, "windows", _WINDOWS, index, _window, nests=True)
        yield from self._sliced(process, "batches", _BATCHES, index, _batch, nests=True)
        yield from self._sliced(process, "slot", _REQUESTS, index, _request)
        yield from self._rates(process, index)

    def _sliced(
        self,
        process: Process,
        name: str,
        sql: str,
        index: int,
        slice_of: Callable[..., Slice],
        *,
        nests: bool = False,
    ) -> Iterator[TraceEvent]:
        lanes = process.lanes(name, nests=nests)
        for row in self._streamed(sql, index=index):
            yield from lanes.events(slice_of(*row))

    def _rates(self, process: Process, index: int) -> Iterator[TraceEvent]:
        """Tokens per second of each step; nothing where the times of some tokens are not known."""
        seconds, next_us = self.rate_step_ns / NS_PER_S, None
        for from_us, to_us, tokens in self._streamed(_RATES, index=index, step=self.rate_step_ns):
            if next_us is not None and next_us < from_us:
                yield process.counter("tokens", next_us, per_s=0)
            yield process.counter("tokens", from_us, per_s=tokens / seconds)
            next_us = to_us
        if next_us is not None:
            yield process.counter("tokens", next_us, per_s=0)

    def _device(self, course: Course) -> Iterator[TraceEvent]:
        process, named = self._numbers.process(self._device_name(course))
        yield from named
        yield from self._counters(process, course)
        tid, thread = self._numbers.thread(process.pid, "throttling")
        for number, (at_us, reasons) in enumerate(self._streamed(_THROTTLING, **_of(course))):
            if not number:
                yield thread
            yield process.instant(", ".join(reasons) or "throttling ended", at_us, tid)

    def _counters(self, process: Process, course: Course) -> Iterator[TraceEvent]:
        """A counter keeps its value until the next event, so only changes are written."""
        last: list[Any] = [None] * len(SHOWN_AS)
        sql = _SAMPLES if not self.step_ns else _MEANS.format(step=self.step_ns)
        for at_us, *values in self._streamed(sql, **_of(course)):
            for place, ((name, unit), value) in enumerate(zip(SHOWN_AS.values(), values, strict=True)):
                if value is not None and value != last[place]:
                    last[place] = value
                    yield process.counter(name, at_us, **{unit: value})

    def _device_name(self, course: Course) -> str:
        for index, name, kind in self._rows(_DEVICE, **_of(course)):
            return f"{kind} {index}: {name} on {course.host}"
        return f"{course.device_uuid} on {course.host}"

    def _step(self, samples: int) -> int:
        """All where there are few of a device, else even steps."""
        return 0 if samples <= MOST_STEPS else self._even_step(MOST_STEPS)

    def _even_step(self, most: int) -> int:
        """The least of 1, 2 and 5 times a power of ten in which the run has at most so many steps."""
        least_ns = max(1, ((self._span.to_ns or 0) - (self._span.from_ns or 0)) / most)
        power: int = 10 ** int(log10(least_ns))
        return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least_ns)

    def _rows(self, sql: str, **about: Any) -> list[tuple[Any, ...]]:
        return list(self._streamed(sql, **about))

    def _streamed(self, sql: str, **about: Any) -> Iterator[tuple[Any, ...]]:
        parameters = {"id": self._id, **about}
        if "$origin" in sql:
            parameters["origin"] = self._span.from_ns
        cursor = self._connection.execute(sql, parameters)
        while rows := cursor.fetchmany(FETCHED_ROWS):
            yield from rows


def write_timeline(
    out: TextIO,
    connection: duckdb.DuckDBPyConnection,
    experiment_ids: Sequence[str],
    *,
    resolution_s: float | None,
    tell: Callable[[str], object],
) -> None:
    """A JSON object with `traceEvents`, every run from its own start; `tell` hears what the counters are."""
    numbers, separator, said = Numbers(), "", ""
    out.write('{"traceEvents":[')
    for experiment_id in experiment_ids:
        run = RunTimeline(connection, experiment_id, numbers, resolution_s=resolution_s)
        if said != (said := _said(run)):
            tell(said)
        for event in run.events():
            out.write(f"{separator}\n{formats.as_json(event).decode()}")
            separator = ","
    other = formats.as_json({"runs": list(experiment_ids), "times": "from the start of each run"})
    out.write(f'\n],"displayTimeUnit":"ms","otherData":{other.decode()}}}\n')


def _said(run: RunTimeline) -> str:
    rate = f"tokens/s over {run.rate_step_ns / NS_PER_S:g} s"
    if not run.step_ns:
        return f"every sample is written, {rate}"
    return f"counters are means over {run.step_ns / NS_PER_S:g} s, {rate}; --resolution 0 writes every sample"


def _of(course: Course) -> dict[str, Any]:
    return {"device": course.device_uuid, "meter": course.meter, "index": course.process_index}


def _known(**args: Any) -> dict[str, Any]:
    return {name: value for name, value in args.items() if value is not None}


def _window(
    kind: str, name: str | None, number: int, from_us: int, to_us: int, energy_j: float | None, closed: bool
) -> Slice:
    told = _known(window_index=number, energy_j=energy_j, closed=None if closed else False)
    return Slice(name or kind, from_us, to_us, told)


def _batch(
    number: int,
    from_us: int,
    first_us: int | None,
    to_us: int,
    requests: int,
    energy_j: float | None,
    prefill_j: float | None,
    decode_j: float | None,
) -> Slice:
    phases = _phases(from_us, first_us, to_us, _known(energy_j=prefill_j), _known(energy_j=decode_j))
    return Slice(f"batch {number}", from_us, to_us, _known(requests=requests, energy_j=energy_j), phases)


def _request(
    number: int,
    window: str,
    from_us: int,
    first_us: int | None,
    to_us: int,
    waited_us: int,
    input_tokens: int,
    output_tokens: int,
    finish_reason: str,
    error: str | None,
) -> Slice:
    told = _known(
        window=window,
        waited_ms=waited_us / 1000,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        finish_reason=finish_reason,
        error=error,
    )
    return Slice(f"request {number}", from_us, to_us, told, _phases(from_us, first_us, to_us, {}, {}))


def _phases(
    from_us: int, first_us: int | None, to_us: int, prefill: dict[str, Any], decode: dict[str, Any]
) -> tuple[Slice, ...]:
    if first_us is None or not from_us <= first_us <= to_us:
        return ()
    return Slice("prefill", from_us, first_us, prefill), Slice("decode", first_us, to_us, decode)


_CLOCKS = "(SELECT experiment_id, segment_id, host, clock_offset_ns FROM segments WHERE clock_offset_ns IS NOT NULL) g"
_PLACED = f"FROM {{}} JOIN {_CLOCKS} USING (experiment_id, segment_id) WHERE experiment_id = $id"
_ON_WORKER = f"""JOIN (SELECT experiment_id, process_index, clock_offset_ns FROM processes JOIN {_CLOCKS} USING (experiment_id, segment_id))
USING (experiment_id, process_index) WHERE experiment_id = $id"""
_US = "(({} + clock_offset_ns - $origin) // 1000)"
_OF_DEVICE = f"{_PLACED.format('samples')} AND device_uuid = $device AND meter IS NOT DISTINCT FROM $meter AND process_index IS NOT DISTINCT FROM $index"
_COLUMNS = ["coalesce(power_w, power_average_w)", *list(SHOWN_AS)[1:]]

_SPAN = f"""
WITH moments AS (
    SELECT min(monotonic_ns + clock_offset_ns) AS first, max(monotonic_ns + clock_offset_ns) AS last FROM segments WHERE experiment_id = $id
    UNION ALL SELECT min(at_ns + clock_offset_ns), max(at_ns + clock_offset_ns) {_PLACED.format("samples")}
    UNION ALL SELECT min(least(arrival_ns, start_ns) + clock_offset_ns), max(end_ns + clock_offset_ns) {_PLACED.format("requests")}
    UNION ALL SELECT min(opened_ns + clock_offset_ns), max(closed_ns + clock_offset_ns) FROM windows {_ON_WORKER})
SELECT min(first), max(last) FROM moments"""

_COURSES = f"""
SELECT host, device_uuid, meter, arg_max(process_index, n), max(n) FROM (
    SELECT host, device_uuid, meter, process_index, count(*) AS n {_PLACED.format("samples")} GROUP BY ALL ORDER BY ALL)
GROUP BY host, device_uuid, meter ORDER BY ALL"""

_DEVICE = """
SELECT device_index, device_name, kind FROM devices WHERE experiment_id = $id AND device_uuid = $device AND process_index = $index
AND (meter IS NULL OR meter IS NOT DISTINCT FROM $meter)"""

_WORKERS = "SELECT process_index, host FROM processes WHERE experiment_id = $id ORDER BY process_index"

_WARNINGS = f"""
WITH raised AS (
    SELECT process_index, body ->> 'code' AS code, body ->> 'text' AS text, min(at_ns + clock_offset_ns) AS at_ns
    {_PLACED.format("events")}
    AND type = 'warning_raised' GROUP BY ALL),
ended AS (SELECT max(closed_ns + clock_offset_ns) AS at_ns FROM windows {_ON_WORKER})
SELECT w.code, w.text, w.process_index, w.device_uuid, (coalesce(r.at_ns, ended.at_ns, $origin) - $origin) // 1000 AS at_us
FROM warnings w CROSS JOIN ended
LEFT JOIN raised r ON r.code = w.code AND r.text = w.text AND r.process_index IS NOT DISTINCT FROM w.process_index
WHERE w.experiment_id = $id ORDER BY at_us, w.code, w.text, w.process_index, w.device_uuid"""

_WINDOWS = f"""
SELECT kind, name, window_index, {_US.format("opened_ns")} AS from_us, {_US.format("closed_ns")} AS to_us,
       CASE WHEN count(energy_j) = count(*) THEN sum(energy_j) END AS energy_j, bool_and(closed)
FROM windows {_ON_WORKER} AND process_index = $index AND closed_ns >= opened_ns
GROUP BY kind, name, window_index, from_us, to_us ORDER BY from_us, to_us DESC, kind, window_index"""

_BATCHES = f"""
SELECT batch_index, {_US.format("start_ns")} AS from_us, {_US.format("first_token_ns")}, {_US.format("end_ns")} AS to_us,
       requests, energy_j, prefill_energy_j, decode_energy_j
FROM batches {_ON_WORKER} AND process_index = $index ORDER BY from_us, to_us, batch_index"""

_REQUESTS = f"""
SELECT request_id, window_kind, {_US.format("start_ns")} AS from_us, {_US.format("first_token_ns")}, {_US.format("end_ns")} AS to_us,
       (start_ns - arrival_ns) // 1000, input_tokens, output_tokens, finish_reason, error
{_PLACED.format("requests")} AND process_index = $index AND end_ns >= start_ns ORDER BY from_us, to_us, request_id"""

_RATES = f"""
WITH worked AS (SELECT token_times_ns, chunk_times_ns, chunk_tokens, output_tokens, clock_offset_ns {_PLACED.format("requests")} AND process_index = $index),
known AS (
    SELECT bool_and(output_tokens = 0 OR len(token_times_ns) > 0 OR (len(chunk_times_ns) > 0 AND len(list_filter(chunk_tokens, lambda n: n IS NULL)) = 0)) AS all_known
    FROM worked),
told AS (
    SELECT unnest(token_times_ns) + clock_offset_ns AS at_ns, 1 AS tokens FROM worked
    UNION ALL SELECT unnest(chunk_times_ns) + clock_offset_ns, unnest(chunk_tokens) FROM worked WHERE len(token_times_ns) = 0)
SELECT (at_ns - $origin) // $step * $step // 1000 AS from_us, ((at_ns - $origin) // $step + 1) * $step // 1000 AS to_us, sum(tokens)::DOUBLE
FROM told WHERE (SELECT all_known FROM known) GROUP BY ALL ORDER BY from_us"""

_SAMPLES = f"SELECT {_US.format('at_ns')} AS at_us, {', '.join(_COLUMNS)} {_OF_DEVICE} ORDER BY at_us"

_MEANS = f"""
SELECT (at_ns + clock_offset_ns - $origin) // {{step}} * {{step}} // 1000 AS at_us, {", ".join(f"round(avg({column}), 3)" for column in _COLUMNS)}
{_OF_DEVICE} GROUP BY at_us ORDER BY at_us"""

_THROTTLING = f"""
WITH course AS (SELECT at_ns, {_US.format("at_ns")} AS at_us, throttle_reasons & {ANY_REASON} AS mask {_OF_DEVICE}),
marked AS (SELECT at_us, mask, coalesce(lag(mask) OVER (ORDER BY at_ns), 0) AS before FROM course WHERE mask IS NOT NULL)
SELECT at_us, throttle_names(mask) FROM marked WHERE mask <> before ORDER BY at_us"""
