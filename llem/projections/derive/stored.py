"""The rows of an experiment where they stand: samples and requests of its tables, read in pieces."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from llem.projections.derive.columns import FAILED, GIVEN, LISTS, MAYBE, NO_INTS, Ints, Lists, RequestColumns
from llem.projections.derive.pieces import (
    Asked,
    DevicePieces,
    ends_of,
    extremes_of,
    load_pieces,
    numbers_of_rows,
    values_of,
)
from llem.projections.derive.source import (
    LIMITED,
    MEASUREMENT,
    POSSIBLE,
    SERIES,
    TIMES,
    WARMUP,
    Column,
    Device,
    Piece,
    Sampled,
    Series,
    Sizes,
    Span,
    Usage,
    Values,
    ascending,
    extremes_in,
    values_in,
)
from llem.results.latency import FINISHED
from llem.results.power import LeftOut

THINNED_FROM = 2**15  # samples of a device: fewer are read one by one
FEW_RUNS = 4
EDGE_SAMPLES = 2**11  # of one look-up that is kept
KEPT_SAMPLES = 2**19  # of a large experiment, whose columns are asked for again and again
Places = Mapping[str, Span]  # table -> the first and the last row of an experiment, others between them
_NOWHERE = 0, -1
_AMONG = "experiment_id IN (SELECT unnest(?::VARCHAR[]))"


def rows_of(connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str]) -> Mapping[str, Places]:
    """Where the rows of experiments stand in each table until anything is deleted: DuckDB skips what lies beyond, and names alike it does not tell apart."""
    places: dict[str, dict[str, Span]] = {experiment_id: {} for experiment_id in experiment_ids}
    known = connection.execute("SELECT count(DISTINCT experiment_id) FROM segments").fetchall()[0][0]
    # To ask of each row of many whether it is wanted takes longer than to group them all.
    wanted = f"WHERE {_AMONG}" if 2 * len(experiment_ids) < known else ""
    for table in ("events", "samples", "sample_pieces", "requests") if experiment_ids else ():
        found = connection.execute(
            f"SELECT experiment_id, min(rowid), max(rowid) FROM {table} {wanted} GROUP BY ALL",
            [experiment_ids] if wanted else [],
        )
        for experiment_id, first, last in found.fetchall():
            places.setdefault(experiment_id, {})[table] = first, last
    return places


def rows_within(table: str, span: Span) -> str:
    """Rows of a table that stand between two, both included."""
    return f"FROM {table} WHERE rowid BETWEEN {span[0]} AND {span[1]}"


def rows_among(table: str, places: Mapping[str, Places], experiment_ids: Sequence[str]) -> str:
    """Rows of some experiments; their names are the first value of a statement."""
    spans = [places[each][table] for each in experiment_ids if table in places[each]]
    span = min((first for first, _ in spans), default=0), max((last for _, last in spans), default=-1)
    return f"{rows_within(table, span)} AND {_AMONG}"


class Totals(NamedTuple):
    """What is asked of all rows of an experiment, and for many of them at once: to plan a statement takes longer than its answer."""

    extremes: Mapping[str, Mapping[str, Span]]  # by table, as of Source
    token_times: int
    repeated_request_ids: int


def totals_of(
    connection: duckdb.DuckDBPyConnection, experiment_ids: Sequence[str], places: Mapping[str, Places]
) -> Mapping[str, Totals]:
    """Of experiments whose rows stand there."""
    if not experiment_ids:
        return {}

    def by_experiment(table: str, asked: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        rows = rows_among(table, places, experiment_ids)
        sql = f"SELECT experiment_id, {', '.join((*_ENDS[table], *asked))} {rows} GROUP BY ALL"
        return {each: found for each, *found in connection.execute(sql, [list(experiment_ids)]).fetchall()}

    events, requests = by_experiment("events", ()), by_experiment("requests", (_TOKEN_TIMES, _REPEATED))
    totals = {}
    for experiment_id in experiment_ids:
        *ends, token_times, repeated = requests.get(experiment_id, (0, 0))
        found = {"events": events.get(experiment_id, ()), "requests": ends}
        extremes = {table: _pairs(LIMITED[table], ends) for table, ends in found.items()}
        totals[experiment_id] = Totals(extremes, int(token_times), int(repeated))
    return totals


def _pairs(columns: Sequence[str], ends: Sequence[int | None]) -> Mapping[str, Span]:
    pairs = zip(columns, ends[::2], ends[1::2], strict=False)
    return {name: (least, most) for name, least, most in pairs if least is not None and most is not None}


class Stored:
    """The rows of an experiment in the tables `samples` and `requests`."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        experiment_id: str,
        places: Mapping[str, Places] | None = None,
        totals: Totals | None = None,
    ) -> None:
        self._connection = connection
        self._experiment_id = experiment_id
        if places is None:
            places = rows_of(connection, [experiment_id])
        self._places = places[experiment_id]
        self.totals = totals or totals_of(connection, [experiment_id], places)[experiment_id]
        self._sampled: Sequence[Sampled] | None = None
        self._kept: dict[tuple[Device, Span], Piece] = {}
        self._edges: dict[str, Mapping[str, NDArray[Any]]] = {}

    def extremes(self, table: str) -> Mapping[str, Span]:
        """See Source."""
        if table == "samples":
            return extremes_in({"at_ns": [self._rows_of_pieces[name] for name in ("first_ns", "last_ns")]})
        return self.totals.extremes[table]

    @cached_property
    def _rows_of_pieces(self) -> Mapping[str, NDArray[Any]]:
        return self._columns(f"SELECT * EXCLUDE (experiment_id) {self._rows('sample_pieces')}")

    @cached_property
    def _pieces(self) -> Mapping[Device, DevicePieces]:
        return {Device(*key): pieces for key, pieces in load_pieces(self._rows_of_pieces).items()}

    def sampled(self) -> Sequence[Sampled]:
        """See Source."""
        if self._sampled is None:
            rows = self._rows_of_pieces
            impossible = {} if self._all_possible() else self._impossible()
            self._sampled = [
                Sampled(
                    Device(index, uuid),
                    segment_id,
                    samples=int(rows["samples"][numbers].sum()),
                    first_ns=int(rows["first_ns"][numbers].min()),
                    last_ns=int(rows["last_ns"][numbers].max()),
                    impossible=impossible.get((index, uuid, segment_id), 0),
                )
                for (index, uuid, segment_id), numbers in numbers_of_rows(rows, _SAMPLED).items()
            ]
        return self._sampled

    def _all_possible(self) -> bool:
        """Whether no value is beyond its limits: quicker than to count those that are."""
        limits = {name: extremes_of(self._rows_of_pieces, name) for name in POSSIBLE}
        return all(
            ends is None or (POSSIBLE[name][0] <= ends[0] and ends[1] <= POSSIBLE[name][1])
            for name, ends in limits.items()
        )

    def _impossible(self) -> Mapping[tuple[Any, ...], int]:
        key = ", ".join(_SAMPLED)
        sql = f"SELECT {key}, count(*) FILTER ({_IMPOSSIBLE}) {self._rows('samples')} GROUP BY {key}"
        return {tuple(of): count for *of, count in self._fetch(sql)}

    def extent(self, device: Device) -> tuple[int, int, int]:
        """See Source."""
        pieces = self._pieces.get(device)
        if pieces is None:
            return 0, 0, 0
        return pieces.parts.all_rows, int(pieces.first_ns[0]), int(pieces.last_ns[-1])

    def ranges(self, device: Device, span: Span) -> Iterable[Span]:
        """See Source."""
        pieces = self._pieces.get(device)
        return () if pieces is None else pieces.ranges(*span)

    def moments(self, device: Device, span: Span) -> Ints:
        """See Source."""
        pieces = self._thinned(device)
        return NO_INTS if pieces is None else pieces.last_ns[pieces.touching(*span)]

    def _thinned(self, device: Device) -> DevicePieces | None:
        """None where all samples are read one by one."""
        pieces = self._pieces.get(device)
        return None if pieces is None or pieces.parts.all_rows < THINNED_FROM else pieces

    def series(self, device: Device, span: Span, asked: Asked) -> Iterable[Series]:
        """See Source."""
        pieces = self._thinned(device)
        if pieces is None:
            yield (*self.samples(device, span, SERIES), None)
            return
        touching = pieces.touching(*span)
        needed = pieces.one_by_one(touching, *span, asked)
        for some, of_some in pieces.chunks(touching, needed):
            rows = self._standing_at(pieces.parts.rows_of(some, of_some), SERIES)
            yield _together(_within(rows, span), ends_of(pieces, some, ~of_some))

    def _standing_at(self, rows: Ints, names: Sequence[str]) -> Piece:
        """Samples by their number among those of the experiment, in the order of their times."""
        if not len(rows):
            return NO_INTS, dict.fromkeys(names, np.empty(0))
        first_ids, first_rows = self._islands
        island = np.searchsorted(first_rows, rows, side="right") - 1
        ids = first_ids[island] + rows - first_rows[island]
        starts = np.append(0, np.flatnonzero(np.diff(ids) != 1) + 1)
        ends = np.append(starts[1:], len(ids)) - 1
        read = self._runs(ids[starts], ids[ends], names)
        order = np.argsort(read["rowid"], kind="stable")
        columns = {name: np.ma.filled(read[name], np.nan)[order] for name in names}
        return ascending(np.asarray(read["at_ns"], np.int64)[order], columns)

    def _runs(self, firsts: Ints, lasts: Ints, names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
        """Samples with these row ids, of which few are planned one by one: that is quicker than to look each of them up."""
        cast = ", ".join(f"{name}::DOUBLE AS {name}" for name in names)
        span = f"SELECT rowid, at_ns, {cast} {rows_within('samples', (firsts[0], lasts[-1]))}"
        runs = list(zip(firsts.tolist(), lasts.tolist(), strict=True))
        if len(runs) <= FEW_RUNS:
            sql = f"{span} AND ({' OR '.join(f'rowid BETWEEN {first} AND {last}' for first, last in runs)})"
            return self._edges.get(sql) or self._look_up(sql)
        sql = f"{span} {_IN_RUNS}"
        return self._connection.execute(sql, [firsts.tolist(), lasts.tolist()]).fetchnumpy()

    def _look_up(self, sql: str) -> Mapping[str, NDArray[Any]]:
        """Samples around the edges of a window are asked for by its energies, its phases and its row."""
        found = self._connection.execute(sql).fetchnumpy()
        if len(found["rowid"]) <= EDGE_SAMPLES:
            self._edges[sql] = found
        return found

    @cached_property
    def _islands(self) -> tuple[Ints, Ints]:
        """Where the experiment's samples stand side by side: of each stretch the first row's id, and how many samples are before it."""
        first, last = self._places.get("samples", _NOWHERE)
        if last - first + 1 == sum(pieces.parts.all_rows for pieces in self._pieces.values()):
            return np.array([first]), np.array([0])
        found = self._columns(
            f"SELECT id, row FROM (SELECT rowid AS id, lag(rowid) OVER () AS before, row_number() OVER () - 1 AS row {self._rows('samples')}) "
            "WHERE before IS NULL OR before <> id - 1 ORDER BY id"
        )
        return np.asarray(found["id"], np.int64), np.asarray(found["row"], np.int64)

    def samples(self, device: Device, span: Span, names: Sequence[str]) -> Piece:
        """See Source."""
        at_ns, columns = self._kept.get((device, span), (NO_INTS, {}))
        if not columns.keys() >= set(names):
            at_ns, columns = self._read(device, span, names)
            self._keep(device, span, (at_ns, columns))
        return at_ns, {name: columns[name] for name in names}

    def _read(self, device: Device, span: Span, names: Sequence[str]) -> Piece:
        cast = ", ".join(f"{name}::DOUBLE AS {name}" for name in names)
        rows = self._columns(
            f"SELECT at_ns, {cast} {self._rows('samples')} {_OF_DEVICE} {_IN_SPAN}", *device, *span
        )
        at_ns = np.asarray(rows["at_ns"], np.int64)
        return ascending(at_ns, {name: np.ma.filled(rows[name], np.nan) for name in names})

    def _keep(self, device: Device, span: Span, piece: Piece) -> None:
        kept_samples = sum(len(at_ns) for at_ns, _ in self._kept.values())
        if (device, span) not in self._kept and kept_samples + len(piece[0]) <= KEPT_SAMPLES:
            self._kept[device, span] = piece

    def values(self, device: Device, span: Span, names: Sequence[str]) -> Mapping[str, Values]:
        """See Source."""
        pieces = self._thinned(device)
        if pieces is None:
            _, columns = self.samples(device, span, names)
            return {name: values_in(columns[name]) for name in names}
        touching = pieces.touching(*span)
        partly = (~pieces.alone | (pieces.first_ns < span[0]) | (pieces.last_ns > span[1]))[touching]
        rows = self._standing_at(pieces.parts.rows_of(touching, partly), names)
        _, columns = _within(rows, span)
        return {
            name: values_in(columns[name]).joined(Values(*values_of(pieces, touching, ~partly, name)))
            for name in names
        }

    def last_sample_ns(self, process_index: int, since_ns: int) -> int | None:
        """See Source."""
        latest_ns = [
            int(pieces.last_ns[-1])
            for device, pieces in self._pieces.items()
            if device.process_index == process_index
        ]
        return max((at_ns for at_ns in latest_ns if at_ns >= since_ns), default=None)

    def request_sizes(self, segment_id: str) -> Sizes:
        """See Source."""
        sizes = self._columns(
            f"SELECT {_SIZES} {self._rows('requests')} {_OF_SEGMENT} GROUP BY event_number ORDER BY event_number",
            segment_id,
        )
        measured = np.asarray(sizes["requests"]) > 0
        return Sizes(
            np.asarray(sizes["event_number"])[measured],
            np.asarray(sizes["values"])[measured],
            int(sizes["warmup_requests"].sum()),
        )

    def requests(self, segment_id: str, first_event: int, last_event: int) -> RequestColumns:
        """See Source."""
        key = segment_id, first_event, last_event
        columns = self._columns(f"SELECT {_COLUMNS} {self._rows('requests')} {_EVENTS}", *key)
        lists: dict[str, Any] = {
            name: self._lists(name, np.asarray(columns.pop(f"{name}_length")), key) for name in LISTS
        }
        masks: dict[str, Any] = {name: np.asarray(columns[name]) for name in _MASKS}
        given = {name: np.asarray(columns[name]) for name in GIVEN}
        return RequestColumns(
            numbers=given | {name: np.ma.asarray(columns[name]) for name in MAYBE}, **masks, **lists
        )

    def request_ids(self, segment_id: str) -> Ints:
        """See Source."""
        sql = f"SELECT request_id {self._rows('requests')} {_OF_SEGMENT} AND window_kind = '{MEASUREMENT}'"
        return np.asarray(self._columns(sql, segment_id)["request_id"], np.int64)

    def _lists(self, name: str, lengths: Ints, key: Sequence[Any]) -> Lists:
        if not lengths.any():
            return Lists(np.empty(0, np.int64), lengths)
        values = self._columns(f"SELECT unnest({name}) AS value {self._rows('requests')} {_EVENTS}", *key)[
            "value"
        ]
        missing = np.ma.getmaskarray(values) if np.ma.is_masked(values) else None
        return Lists(np.ma.getdata(values), lengths, missing)

    def last_end_ns(self, segment_id: str, window_kind: str, since_ns: int) -> int | None:
        """See Source."""
        sql = f"SELECT max(end_ns) {self._rows('requests')} {_OF_SEGMENT} AND window_kind = ? AND end_ns >= ?"
        latest: int | None = self._fetch(sql, segment_id, window_kind, since_ns)[0][0]
        return latest

    def usage(self, segment_id: str) -> Usage:
        """See Source."""
        streamed, *said = self._fetch(
            f"SELECT {_USAGE} {self._rows('requests')} {_OF_SEGMENT} AND window_kind = '{MEASUREMENT}'",
            segment_id,
        )[0]
        return Usage(int(streamed or 0), *(None if count is None else int(count) for count in said))

    def repeated_request_ids(self) -> int:
        """See Source."""
        return self.totals.repeated_request_ids

    def _rows(self, table: str) -> str:
        """The experiment's; its name is the first value of a statement."""
        return f"{rows_within(table, self._places.get(table, _NOWHERE))} AND experiment_id = ?"

    def _fetch(self, sql: str, *values: Any) -> list[Any]:
        return self._connection.execute(sql, [self._experiment_id, *values]).fetchall()

    def _columns(self, sql: str, *values: Any) -> dict[str, NDArray[Any]]:
        return self._connection.execute(sql, [self._experiment_id, *values]).fetchnumpy()


_SAMPLED = "process_index", "device_uuid", "segment_id"
_IMPOSSIBLE = " OR ".join(
    f"{name} < {least:f} OR {name} > '{most}'::DOUBLE" for name, (least, most) in POSSIBLE.items()
)
_IN_RUNS = "AND rowid IN (SELECT unnest(range(first, last + 1)) FROM (SELECT unnest(?::BIGINT[]) AS first, unnest(?::BIGINT[]) AS last))"
_OF_DEVICE = "AND process_index = ? AND device_uuid = ?"
_IN_SPAN = "AND at_ns BETWEEN ? AND ?"
_OF_SEGMENT = "AND segment_id = ?"
# Every statement on some events sees its rows in the order of the table.
_EVENTS = f"{_OF_SEGMENT} AND window_kind = '{MEASUREMENT}' AND event_number BETWEEN ? AND ?"
_USAGE = f"""
sum(output_tokens) FILTER (finish_reason <> '{FAILED}'), sum(output_tokens) FILTER (finish_reason <> '{FAILED}' AND usage_output_tokens IS NOT NULL),
sum(usage_output_tokens) FILTER (finish_reason <> '{FAILED}'), sum(usage_input_tokens) FILTER (finish_reason <> '{FAILED}'), sum(cached_input_tokens)
"""
_ENDS = {
    table: [
        f"min(list_min({name})), max(list_max({name}))" if name in TIMES else f"min({name}), max({name})"
        for name in columns
    ]
    for table, columns in LIMITED.items()
}
_TOKEN_TIMES = "coalesce(sum(len(token_times_ns)), 0)"
_MEASURED = f"FILTER (window_kind = '{MEASUREMENT}')"
_REPEATED = f"count(*) {_MEASURED} - count(DISTINCT request_id) {_MEASURED}"
_LENGTHS = {name: f"coalesce(len({name}), 0)" for name in LISTS}
_SIZES = f"""
event_number, count(*) FILTER (window_kind = '{MEASUREMENT}') AS requests,
       coalesce(sum(1 + {" + ".join(_LENGTHS.values())}) FILTER (window_kind = '{MEASUREMENT}'), 0)::BIGINT AS values,
       count(*) FILTER (window_kind = '{WARMUP}') AS warmup_requests
"""
_MASKS = {
    "failed": f"finish_reason = '{FAILED}'",
    "finished": f"finish_reason IN {FINISHED}",
    "names_error": "error IS NOT NULL",
    "names_reason": "times_reason IS NOT NULL",
}
_COLUMNS = ", ".join(
    [
        *GIVEN,
        *MAYBE,
        *(f"{condition} AS {name}" for name, condition in _MASKS.items()),
        *(f"{length} AS {name}_length" for name, length in _LENGTHS.items()),
    ]
)


def _within(piece: Piece, span: Span) -> Piece:
    at_ns, columns = piece
    first, end = np.searchsorted(at_ns, (span[0], span[1] + 1)).tolist()
    return at_ns[first:end], {name: column[first:end] for name, column in columns.items()}


def _together(rows: Piece, ends: tuple[Ints, Mapping[str, Column], LeftOut]) -> Series:
    """Some samples and the ends of pieces, in the order of their times."""
    at_ns = np.concatenate((rows[0], ends[0]))
    order = np.argsort(at_ns, kind="stable")
    columns = {name: np.concatenate((column, ends[1][name]))[order] for name, column in rows[1].items()}
    return at_ns[order], columns, ends[2].after(len(rows[0])).of(order)
