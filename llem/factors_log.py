"""Which factors are reckoned with: those of a file, or those that a report recorded in the log of its runs."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from llem.errors import QueryError
from llem.factors import FILE_NAME, Factors, read_factors
from llem.store import LAST, Store, open_segment
from llem_events import SegmentReader, unpack
from llem_events.events import FactorsStated

RECORDED = "@"  # before a run, in the place of a file


def factors_for(store_path: Path, given: Path | None) -> Factors | None:
    """Those of the file given, else of a factors.toml beside the store; None without either. @RUN stands for those in its log. Raises QueryError, StoreError."""
    if given is not None and str(given).startswith(RECORDED):
        return _recorded(Store(store_path), str(given))
    if given is not None:
        return read_factors(given)
    beside = store_path.resolve().parent / FILE_NAME
    return read_factors(beside) if beside.is_file() else None


def record(
    store: Store, experiment_ids: Sequence[str], factors: Factors, *, report: str, content: str
) -> None:
    """A note in the log of every run of a report, with what it was written with. Raises LogWriteError."""
    stated = FactorsStated(
        report=report,
        report_sha256=hashlib.sha256(content.encode()).hexdigest(),
        factors=factors.stated,
        hourly=factors.hourly,
    )
    for experiment_id in experiment_ids:
        folder = store.log_path / experiment_id
        with open_segment(folder, experiment_id=experiment_id, role="note") as writer:
            writer.append(stated, at_ns=time.monotonic_ns())
            writer.seal()


def _recorded(store: Store, named: str) -> Factors:
    """Those of the newest report of a run that recorded any. Raises QueryError, StoreError."""
    run = store.resolve(named if named == LAST else named.removeprefix(RECORDED))
    notes = [note for path in (store.log_path / run).glob("note-*") for note in _stated(path)]
    if not notes:
        raise QueryError(
            f"factors in the log of {run}", found="none", expected="those of llem report --record"
        )
    _, newest = max(notes, key=lambda note: note[0])
    return Factors(stated=newest.factors, hourly=newest.hourly)


def _stated(path: Path) -> list[tuple[int, FactorsStated]]:
    """What a note says of factors, by the wall clock of its writer. Raises LogError."""
    with SegmentReader(path) as reader:
        events = [unpack(envelope) for block in reader.blocks() for envelope in reader.events(block)]
        wall_ns = reader.header.wall_ns if reader.header else 0
    return [(wall_ns, event) for event in events if isinstance(event, FactorsStated)]
