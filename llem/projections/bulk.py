"""Many small experiments that are new, at once: each segment decoded once, results derived from what was decoded, rows appended in columns.

Many experiments are one transaction. Whatever is not plain goes the other way, one experiment and one segment at a time: damage, growing
files, large experiments, and every experiment of which some value fits no column.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import duckdb
import msgspec

from llem.projections import cells
from llem.projections.cells import Batch
from llem.projections.checkpoint import Files, SegmentFile
from llem.projections.containment import LOG_TABLES, reason_against
from llem.projections.database import Rows, Tables
from llem.projections.derive.experiment import derive_experiment
from llem.projections.derive.history import ExperimentFacts, facts_of
from llem.projections.derive.rows import DERIVED_TABLES, clock_offsets, derived_rows
from llem.projections.derive.source import Stored
from llem.projections.ingest import Taken, read_whole, release_cache
from llem.projections.log_cells import request_batch, sample_batch
from llem.projections.ranges import check_ranges
from llem.sql import literal

TEXT_FACTOR = 8  # a compressed byte of text becomes more rows than one of samples
# Of one transaction, and of what is derived together: every statement of a derivation looks through all of the latter.
CHUNK_BYTES, CHUNK_EXPERIMENTS = 2**22, 48
GROUP_BYTES, GROUP_EXPERIMENTS = 2**20, 8
_STAGED = (*LOG_TABLES, "segments")


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """All segments of one experiment, decoded."""

    experiment_id: str
    segments: Sequence[Taken]

    def facts(self) -> ExperimentFacts:
        """What its events say."""
        events = (event for segment in self.segments for event in segment.events)
        return facts_of(self.experiment_id, [segment.checkpoint for segment in self.segments], events)


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Some experiments as they go into the tables: the log's rows in columns, and the rows of what they mean."""

    log: Mapping[str, Batch]
    derived: Mapping[str, Rows]


class Prepared:
    """A connection that plans each statement once: to plan one takes longer than to run it on a few thousand rows."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._names: dict[str, str] = {}

    def execute(self, sql: str, values: Sequence[Any] = ()) -> duckdb.DuckDBPyConnection:
        """As a connection does, for values that are numbers and texts."""
        if not values:
            return self._connection.execute(sql)
        if sql not in self._names:
            self._names[sql] = f"statement_{len(self._names)}"
            self._connection.execute(f"PREPARE {self._names[sql]} AS {sql}")
        return self._connection.execute(f"EXECUTE {self._names[sql]}({', '.join(map(literal, values))})")


def chunks(experiments: Files) -> Iterator[Files]:
    """Those of one transaction each; an experiment that is not small, or has no files, is left out."""
    small = {name: files for name, files in experiments.items() if files and _weight(files) <= CHUNK_BYTES}
    return _packed(small, most_bytes=CHUNK_BYTES, most=CHUNK_EXPERIMENTS)


def _weight(files: Mapping[str, SegmentFile]) -> int:
    return sum(
        file.file_bytes * (1 if name.startswith("sampler") else TEXT_FACTOR) for name, file in files.items()
    )


def _read(experiment_id: str, files: Mapping[str, SegmentFile]) -> Experiment | None:
    """None where any of its files is not plain."""
    try:
        segments = [taken for file in files.values() if (taken := read_whole(file)) is not None]
    except Exception as error:  # noqa: BLE001 -- told when its segments are read one at a time
        reason_against(error)
        return None
    if len({segment.identity.segment_id for segment in segments}) < len(files):
        return None
    return Experiment(experiment_id=experiment_id, segments=segments)


class Bulk:
    """Takes new experiments into the tables, by way of tables in memory that hold only a few of them."""

    def __init__(self, tables: Tables, staging: duckdb.DuckDBPyConnection) -> None:
        self._tables, self._staging = tables, staging
        self._prepared = cast(duckdb.DuckDBPyConnection, Prepared(staging))

    def apply(self, chunk: Files) -> list[str]:
        """Put experiments into the tables, with their results; return those that are there now.

        Where one of the experiments does not fit, the half without it is still taken.
        """
        taken: list[str] = []
        try:
            groups = []
            for some in _groups(chunk):
                experiments = [found for each in some.items() if (found := _read(*each)) is not None]
                groups += [self._derive(experiments)] if experiments else []
                taken += [experiment.experiment_id for experiment in experiments]
            self._commit(groups)
        except Exception as error:  # noqa: BLE001 -- whatever a log brings about is its own experiment's damage
            reason_against(error)
        else:
            return taken
        halves = _halves(chunk)
        return [experiment_id for half in halves for experiment_id in self.apply(half)]

    def _derive(self, experiments: Sequence[Experiment]) -> Group:
        """Both kinds of rows; the checkpoints say that the results include all."""
        log = {name: Batch({}, {}) for name in LOG_TABLES} | _log(self._tables, experiments)
        for table in _STAGED:
            self._staging.execute(f"TRUNCATE {table}")
            if table in log and log[table].cells:
                cells.insert(self._staging, table, [log[table]])
        derived: dict[str, Rows] = {table: [] for table in (*DERIVED_TABLES, "segments")}
        for experiment in experiments:
            for table, rows in self._derive_one(experiment).items():
                derived[table] += rows
        return Group(log={table: log[table] for table in LOG_TABLES}, derived=derived)

    def _derive_one(self, experiment: Experiment) -> Mapping[str, Rows]:
        facts = experiment.facts()
        source = Stored(self._prepared, experiment.experiment_id)
        check_ranges(source, facts)
        derived = derive_experiment(source, facts)
        offsets = {row["file"]: row["offset_ns"] for row in clock_offsets(derived)}
        checkpoints = [_derived(segment.checkpoint, offsets) for segment in experiment.segments]
        return {**derived_rows(source, derived), "segments": checkpoints}

    def _commit(self, groups: Sequence[Group]) -> None:
        if not groups:
            return
        with self._tables.transaction():
            for table in LOG_TABLES:
                batches = [group.log[table] for group in groups if group.log[table].cells]
                if batches:
                    cells.insert(self._tables.connection, table, batches)
            for table in groups[0].derived:
                self._tables.insert(table, [row for group in groups for row in group.derived[table]])
        release_cache(self._tables.connection)


@contextmanager
def bulk(tables: Tables) -> Iterator[Bulk]:
    """A Bulk with its tables in memory. One thread and no optimizer: they cost more than they save on so few rows."""
    with duckdb.connect(config={"threads": 1}) as staging:
        staging.execute("PRAGMA disable_optimizer")
        for table in _STAGED:
            columns = ", ".join(f'"{name}" {kind}' for name, kind in tables.types(table).items())
            staging.execute(f"CREATE TABLE {table} ({columns})")
        yield Bulk(tables, staging)


def _groups(chunk: Files) -> Iterator[Files]:
    return _packed(chunk, most_bytes=GROUP_BYTES, most=GROUP_EXPERIMENTS)


def _packed(experiments: Files, *, most_bytes: int, most: int) -> Iterator[Files]:
    """As many at once as are small together, at least one."""
    pack: dict[str, Mapping[str, SegmentFile]] = {}
    weight = 0
    for experiment_id, files in experiments.items():
        own = _weight(files)
        if pack and (weight + own > most_bytes or len(pack) == most):
            yield pack
            pack, weight = {}, 0
        pack[experiment_id] = files
        weight += own
    if pack:
        yield pack


def _halves(chunk: Files) -> list[Files]:
    """None of a single experiment."""
    items, middle = list(chunk.items()), len(chunk) // 2
    return [dict(items[:middle]), dict(items[middle:])] if middle else []


def _derived(checkpoint: Mapping[str, Any], offsets: Mapping[str, int | None]) -> dict[str, Any]:
    """The checkpoint of a segment that its experiment's results include."""
    offset_ns = offsets[checkpoint["file"]]
    return {**checkpoint, "derived_blocks": checkpoint["blocks"], "clock_offset_ns": offset_ns}


def _log(tables: Tables, experiments: Sequence[Experiment]) -> dict[str, Batch]:
    """What the log says, a batch for each table that has rows of it."""
    segments = [segment for experiment in experiments for segment in experiment.segments]
    samples = [(segment.identity, batch) for segment in segments for batch in segment.batches]
    reported = [event for segment in segments for event in segment.reported]
    rows = {
        "segments": [segment.checkpoint for segment in segments],
        "events": [row for segment in segments for row in segment.events],
    }
    log = {table: cells.batch(new, tables.types(table)) for table, new in rows.items() if new}
    log |= {"requests": request_batch(reported, tables.types("requests"))} if reported else {}
    return log | {"samples": sample_batch(samples)} if samples else log
