"""Results of experiments as rows, replaced as a whole whenever the log grew."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from llem.projections.batch_rows import batches
from llem.projections.containment import check_memory, reason_against, set_aside
from llem.projections.derive.experiment import Derived, derive_experiment
from llem.projections.derive.history import load_facts
from llem.projections.process_rows import devices, experiments, processes
from llem.projections.ranges import check_ranges
from llem.projections.result_rows import experiment_results, raw_process_results, warnings
from llem.projections.tables import Rows, Tables
from llem.projections.window_rows import windows
from llem.results import ExperimentResult

DERIVED_TABLES = (
    "experiments",
    "processes",
    "devices",
    "windows",
    "batches",
    "warnings",
    "raw_process_results",
    "experiment_results",
)


MAX_REQUESTS = 20_000  # of the experiments that are derived in one transaction; bounds their memory
MAX_EXPERIMENTS = 64


def derive(tables: Tables, experiment_ids: Sequence[str]) -> None:
    """Replace the derived rows of the experiments, some in one transaction; one that cannot be derived is set aside."""
    tables.course.begin("deriving results", len(experiment_ids), "experiments")
    for group in _groups(tables, experiment_ids):
        reason = _try(tables, group)
        tables.course.complete(len(group))
        for experiment_id in group if reason is not None else ():
            reason = _try(tables, [experiment_id])
            if reason is not None:
                set_aside(tables, experiment_id, reason)
                with tables.transaction():
                    _replace(tables, [experiment_id])


def _try(tables: Tables, experiment_ids: Sequence[str]) -> str | None:
    """None where all went well; else why nothing was changed."""
    try:
        with tables.transaction():
            _replace(tables, experiment_ids)
    except Exception as error:  # noqa: BLE001 -- whatever a log brings about is its own experiment's damage
        return reason_against(error)
    return None


def _groups(tables: Tables, experiment_ids: Sequence[str]) -> Iterator[list[str]]:
    sizes = tables.connection.execute("SELECT experiment_id, sum(requests) FROM segments GROUP BY ALL")
    requests = dict(sizes.fetchall())
    group: list[str] = []
    weight = 0
    for experiment_id in experiment_ids:
        group.append(experiment_id)
        weight += int(requests.get(experiment_id, 0))
        if weight >= MAX_REQUESTS or len(group) >= MAX_EXPERIMENTS:
            yield group
            group, weight = [], 0
    if group:
        yield group


def _replace(tables: Tables, experiment_ids: Sequence[str]) -> None:
    rows: dict[str, Rows] = {table: [] for table in DERIVED_TABLES}
    offsets: Rows = []
    for experiment_id in experiment_ids:
        facts = load_facts(tables.connection, experiment_id)
        if not facts.segments:
            continue
        if facts.refused is None:
            check_memory(tables, experiment_id)
            check_ranges(tables.connection, facts)
        derived = derive_experiment(tables.connection, facts)
        _check_types(derived.result)
        for table, new in _rows(tables, derived).items():
            rows[table] += new
        offsets += [
            {
                "experiment_id": experiment_id,
                "file": segment.file,
                "offset_ns": derived.clocks.offset_ns(segment),
            }
            for segment in facts.segments
        ]
    for table, new in rows.items():
        tables.delete_experiments(table, experiment_ids)
        tables.insert(table, new)
    _mark(tables, offsets)


def _check_types(result: ExperimentResult | None) -> None:
    """Raises ValidationError for a result that could be stored and not be read again: a plan in the log may hold anything."""
    if result is not None:
        msgspec.json.decode(msgspec.json.encode(result), type=ExperimentResult)


def _rows(tables: Tables, derived: Derived) -> Mapping[str, Rows]:
    return {
        "experiments": experiments(derived),
        "processes": processes(derived),
        "devices": devices(derived),
        "windows": windows(tables.connection, derived),
        "batches": batches(tables.connection, derived),
        "warnings": warnings(derived),
        "raw_process_results": raw_process_results(derived),
        "experiment_results": experiment_results(derived),
    }


def _mark(tables: Tables, offsets: Rows) -> None:
    """Say in each segment's checkpoint that the results include it, and which clock they were placed by."""
    kind = "STRUCT(experiment_id VARCHAR, file VARCHAR, offset_ns BIGINT)[]"
    tables.connection.execute(
        "UPDATE segments SET derived_blocks = blocks, clock_offset_ns = derived.offset_ns "
        f"FROM (SELECT unnest(?::JSON::{kind}, max_depth := 2)) AS derived "
        "WHERE segments.experiment_id = derived.experiment_id AND segments.file = derived.file",
        [msgspec.json.encode(offsets).decode()],
    )
