"""A store sealed: what is still to be done, by whom, and what was left and why; done again it goes on where it ended."""

import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import duckdb
import msgspec

from llem.errors import StoreError
from llem.projections import catch_up
from llem.projections.checkpoint import SegmentFile, left_out
from llem.projections.database import VERSION
from llem.projections.progress import Progress
from llem.seal.manifest import Line, Manifest
from llem.seal.places import Place, opened
from llem.seal.results import made_by
from llem.seal.segment import SealedSegment
from llem.seal.tasks import Done, Kind, Task, perform
from llem.seal.workers import by_processes
from llem.store import Store

BYTES_FOR_A_WORKER = 2**22  # of log: less is sealed sooner than another process has started
TASKS_FOR_A_WORKER = 64
FanOut = Callable[[Sequence[Task]], Iterable[Done]]


class Share(msgspec.Struct, frozen=True):
    """The part of a job that one of several ranks does."""

    rank: int
    size: int

    def holds(self, *names: str) -> bool:
        """Whether this rank does it: the same rank whatever else there is to do, and whoever is asked."""
        return zlib.crc32("/".join(names).encode()) % self.size == self.rank


class Unsealed(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment that is not sealed, or not wholly."""

    experiment_id: str
    kind: Kind
    reason: str

    def __str__(self) -> str:
        """One line for people."""
        return f"experiment {self.experiment_id} is not sealed, {self.kind}: {self.reason}"


class Sealing(msgspec.Struct, frozen=True, kw_only=True):
    """What was done."""

    folder: str  # or an address
    experiments: int  # whose results were sealed
    segments: int
    samples: int
    requests: int
    log_bytes: int  # of the segments sealed
    parquet_bytes: int
    done_before: int  # segments
    left: Sequence[Unsealed]


def seal(
    store: Store,
    root: Path | str,
    *,
    only: Sequence[str] | None = None,
    share: Share | None = None,
    workers: int | None = None,
    fan_out: FanOut | None = None,
    from_tables: bool = True,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Sealing:
    """Seal what is not sealed yet, or this rank's share of it, into a folder, or to an address.

    Results come from the store's tables; with a share, or unless `from_tables`, from tables of each experiment alone, which need not be
    seen by several hosts. Raises StoreError.
    """
    chosen = store.require().experiment_ids() if only is None else sorted(set(only))
    with opened(root, store, is_share=share is not None) as place:
        place.begin(chosen)
        job = _Job(store, place, share or Share(0, 1), on_progress)
        plans = [job.plan(experiment_id) for experiment_id in chosen]
        for make in (job.segment_tasks, partial(job.result_tasks, from_tables=from_tables)):
            tasks = make(plans)
            job.take((fan_out or partial(_fan_out, workers=_workers(tasks, workers, share)))(tasks), tasks)
    return job.told(plans, str(root))


def _workers(tasks: Sequence[Task], wanted: int | None, share: Share | None) -> int:
    """As many as there are processors for, and as are worth starting; a rank has its processors from its launcher."""
    weight = sum(task.log_bytes for task in tasks)
    useful = 1 + max(weight // BYTES_FOR_A_WORKER, len(tasks) // TASKS_FOR_A_WORKER)
    return min(wanted or (1 if share else len(os.sched_getaffinity(0))), useful)


def _fan_out(tasks: Sequence[Task], *, workers: int) -> Iterable[Done]:
    """In this process where another one would not be worth starting."""
    return by_processes(tasks, workers=workers) if workers > 1 else map(perform, tasks)


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done of one experiment."""

    experiment_id: str
    segments: Sequence[SegmentFile] = ()  # to be sealed by this rank
    done_before: int = 0
    results: bool = False  # whether they are to be sealed by this rank
    unsealed: Unsealed | None = None


class _Job:
    """One call of `seal`."""

    def __init__(
        self, store: Store, place: Place, share: Share, on_progress: Callable[[Progress], None]
    ) -> None:
        self._store, self._place, self._share, self._on_progress = store, place, share, on_progress
        self._left: dict[str, Unsealed] = {}
        self._lines: list[Line] = []

    def plan(self, experiment_id: str) -> _Plan:
        """Look what is there, in the log and sealed."""
        try:
            stats = self._store.segment_stats(experiment_id)
        except OSError as error:
            return self._unsealed(experiment_id, "unreadable", error.strerror or str(error))
        manifest = self._place.manifest(experiment_id)
        files = {
            name: SegmentFile(
                experiment_id=experiment_id,
                path=self._store.log_path / experiment_id / name,
                file_bytes=size,
                modified_ns=modified_ns,
            )
            for name, (size, modified_ns) in sorted(stats.items())
        }
        new = {name for name, file in files.items() if not self._is_sealed(manifest.segments.get(name), file)}
        has_results = self._has_results(manifest, {name: size for name, (size, _) in stats.items()})
        if not files or (not new and has_results):
            return _Plan(experiment_id=experiment_id, done_before=len(files))
        plan = self._plan_segments(experiment_id, manifest, files, new)
        wants_results = not has_results and self._share.holds(experiment_id)
        return msgspec.structs.replace(plan, results=wants_results and plan.unsealed is None)

    def _plan_segments(
        self, experiment_id: str, manifest: Manifest, files: Mapping[str, SegmentFile], new: set[str]
    ) -> _Plan:
        for name, file in files.items():
            if file.is_being_written():
                return self._unsealed(experiment_id, "unfinished", f"{name} is still being written")
        excluded = left_out(files.values())
        for name in manifest.segments.keys() - (files.keys() - excluded.keys()):
            self._place.remove(manifest.segments[name])
        mine = [
            file
            for name, file in files.items()
            if name in new and name not in excluded and self._share.holds(experiment_id, name)
        ]
        return _Plan(
            experiment_id=experiment_id,
            segments=mine,
            done_before=len(files) - len(new),
        )

    def _unsealed(self, experiment_id: str, kind: Kind, reason: str) -> _Plan:
        unsealed = Unsealed(experiment_id=experiment_id, kind=kind, reason=reason)
        self._left[experiment_id] = unsealed
        return _Plan(experiment_id=experiment_id, unsealed=unsealed)

    def _is_sealed(self, sealed: SealedSegment | None, file: SegmentFile) -> bool:
        return (
            sealed is not None
            and (sealed.log_bytes, sealed.made_by) == (file.file_bytes, VERSION.log)
            and self._place.has(sealed.files)
        )

    def _has_results(self, manifest: Manifest, log_bytes: Mapping[str, int]) -> bool:
        results = manifest.results
        return (
            results is not None
            and (results.log_bytes, results.made_by) == (log_bytes, made_by())
            and self._place.has(results.files)
        )

    def segment_tasks(self, plans: Sequence[_Plan]) -> list[Task]:
        """The largest first, so that no process is left with one at the end."""
        files = [file for plan in plans for file in plan.segments]
        tasks = [self._task(file.experiment_id, file.path.name, file.file_bytes) for file in files]
        return sorted(tasks, key=lambda task: -task.log_bytes)

    def result_tasks(self, plans: Sequence[_Plan], *, from_tables: bool) -> list[Task]:
        """Of the experiments whose segments could be sealed."""
        wanted = [plan for plan in plans if plan.results and plan.experiment_id not in self._left]
        current = (
            _current(self._store, [plan.experiment_id for plan in wanted])
            if from_tables and self._share.size == 1
            else set()
        )
        return [
            self._task(plan.experiment_id, None, 0, from_tables=plan.experiment_id in current)
            for plan in wanted
        ]

    def _task(
        self, experiment_id: str, file: str | None, log_bytes: int, *, from_tables: bool = False
    ) -> Task:
        return Task(
            store=str(self._store.path.absolute()),
            root=self._place.named,
            experiment_id=experiment_id,
            file=file,
            log_bytes=log_bytes,
            from_tables=from_tables,
        )

    def take(self, finished: Iterable[Done], tasks: Sequence[Task]) -> None:
        """Say in the manifest what was sealed, and remember what was not."""
        for number, done in enumerate(finished, start=1):
            if done.line is not None:
                self._place.add(done.line, rank=self._share.rank if self._share.size > 1 else None)
                self._lines.append(done.line)
            else:
                self._leave(done)
            self._on_progress(Progress(work="sealing", done=number, total=len(tasks), unit="parts"))
        self._remove_damaged()

    def _leave(self, done: Done) -> None:
        experiment_id = done.task.experiment_id
        reason = f"{done.task.path}: {done.reason}"
        self._left[experiment_id] = Unsealed(
            experiment_id=experiment_id, kind=done.kind or "failed", reason=reason
        )

    def _remove_damaged(self) -> None:
        """Sums over the rest of a damaged experiment would look whole: nothing of it stays."""
        for experiment_id in filter(self._is_damaged, self._left):
            self._place.remove_experiment(experiment_id)

    def _is_damaged(self, experiment_id: str) -> bool:
        return experiment_id in self._left and self._left[experiment_id].kind == "damaged"

    def told(self, plans: Sequence[_Plan], folder: str) -> Sealing:
        """All that was done, in the place as its user calls it."""
        sealed = [line.segment for line in self._lines if line.segment is not None]
        segments = [segment for segment in sealed if not self._is_damaged(segment.experiment_id)]
        results = [line.results for line in self._lines if line.results is not None]
        files = [file for segment in segments for file in segment.files]
        files += [file for result in results for file in result.files]
        rows = {
            table: sum(file.rows for file in files if file.table == table)
            for table in ("samples", "requests")
        }
        return Sealing(
            folder=folder,
            experiments=len(results),
            segments=len(segments),
            samples=rows["samples"],
            requests=rows["requests"],
            log_bytes=sum(segment.log_bytes for segment in segments),
            parquet_bytes=sum(file.bytes for file in files),
            done_before=sum(plan.done_before for plan in plans),
            left=list(self._left.values()),
        )


def _current(store: Store, experiment_ids: Sequence[str]) -> set[str]:
    """Of these, the experiments that the store's tables have as the log has them, once they are caught up."""
    if not experiment_ids:
        return set()
    try:
        report = catch_up(store)
    except (StoreError, OSError, duckdb.Error):
        return set()
    if report.behind_reason:
        return set()
    return set(experiment_ids) - {experiment.experiment_id for experiment in report.waiting}
