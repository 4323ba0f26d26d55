"""Many small experiments that are new, at once: each segment decoded once, results derived from what was decoded, rows appended in columns.

Many experiments are one transaction. Whatever is not plain goes the other way, one experiment and one segment at a time: damage, growing
files, large experiments, and every experiment of which some value fits no column.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from llem.projections import cells
from llem.projections.cells import Batch
from llem.projections.checkpoint import Files, SegmentFile
from llem.projections.containment import LOG_TABLES, reason_against
from llem.projections.database import Rows, Tables, release_cache
from llem.projections.derive.experiment import derive_experiment
from llem.projections.derive.held import Held, HeldRequests
from llem.projections.derive.history import ExperimentFacts, facts_of
from llem.projections.derive.rows import DERIVED_TABLES, clock_offsets, derived_rows
from llem.projections.ingest import Taken, read_whole
from llem.projections.log_cells import held_samples, request_batch, sample_batch
from llem.projections.ranges import check_ranges
from llem.projections.sample_pieces import is_small, weight_of

TEXT_FACTOR = 8  # a compressed byte of text becomes more rows than one of samples
# Of one transaction, and of what is decoded at once.
CHUNK_BYTES, CHUNK_EXPERIMENTS = 2**22, 48
GROUP_BYTES, GROUP_EXPERIMENTS = 2**20, 8


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """All segments of one experiment, decoded."""

    experiment_id: str
    segments: Sequence[Taken]

    def facts(self) -> ExperimentFacts:
        """What its events say."""
        events = (event for segment in self.segments for event in segment.events)
        return facts_of(self.experiment_id, [segment.checkpoint for segment in self.segments], events)

    def source(self) -> Held:
        """Its samples and requests."""
        return Held(
            [event["at_ns"] for segment in self.segments for event in segment.events],
            [held_samples(segment.identity, batch) for segment in self.segments for batch in segment.batches],
            {
                segment.identity.segment_id: HeldRequests([event[1:] for event in segment.reported])
                for segment in self.segments
                if segment.reported
            },
        )


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Some experiments as they go into the tables: the log's rows in columns, and the rows of what they mean."""

    log: Mapping[str, Batch]
    derived: Mapping[str, Rows]


def chunks(experiments: Files) -> Iterator[Files]:
    """Those of one transaction each; an experiment that is not small, or has no files, is left out."""
    small = {name: files for name, files in experiments.items() if files and _weight(files) <= GROUP_BYTES}
    return _packed(small, most_bytes=CHUNK_BYTES, most=CHUNK_EXPERIMENTS)


def _weight(files: Mapping[str, SegmentFile]) -> int:
    return sum(
        file.file_bytes * (1 if name.startswith("sampler") else TEXT_FACTOR) for name, file in files.items()
    )


def _read(experiment_id: str, files: Mapping[str, SegmentFile]) -> Experiment | None:
    """None where any of its files is not plain, or its figures come from pieces of it once it is in the tables."""
    try:
        segments = [taken for file in files.values() if (taken := read_whole(file)) is not None]
    except Exception as error:  # noqa: BLE001 -- told when its segments are read one at a time
        reason_against(error)
        return None
    if len({segment.identity.segment_id for segment in segments}) < len(files) or not _are_read_whole(
        segments
    ):
        return None
    return Experiment(experiment_id=experiment_id, segments=segments)


def _are_read_whole(segments: Iterable[Taken]) -> bool:
    weights = (
        weight_of(
            segment.checkpoint["role"],
            samples=segment.checkpoint["samples"],
            applied_bytes=segment.checkpoint["applied_bytes"],
        )
        for segment in segments
    )
    return is_small(sum(weights))


class Bulk:
    """Takes new experiments into the tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

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
        derived: dict[str, Rows] = {table: [] for table in (*DERIVED_TABLES, "segments")}
        for experiment in experiments:
            for table, rows in _derive_one(experiment).items():
                derived[table] += rows
        return Group(log={table: log[table] for table in LOG_TABLES}, derived=derived)

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


def _derive_one(experiment: Experiment) -> Mapping[str, Iterable[dict[str, Any]]]:
    """The derived rows of an experiment, and its checkpoints."""
    facts, source = experiment.facts(), experiment.source()
    check_ranges(source, facts)
    derived = derive_experiment(source, facts)
    offsets = {row["file"]: row["offset_ns"] for row in clock_offsets(derived)}
    checkpoints = [_derived(segment.checkpoint, offsets) for segment in experiment.segments]
    return {**derived_rows(source, derived), "segments": checkpoints}


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
