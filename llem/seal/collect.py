"""Many stores into one: segments are copied, verified as they came to lie, and given their names at once; nothing of a source changes."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from llem.errors import StoreError
from llem.store import SEGMENT_SUFFIX, Store, is_id
from llem_events import CorruptError, LogError, NewerFormatError, SegmentReader
from llem_events.files import OsFiles, open_segment_file

STAGED_PREFIX = ".new-"
CHUNK_BYTES = 2**20
LEFTOVER_AFTER_S = 24 * 3600.0
LINK = "a link, which is not followed"
Standing = Literal["new", "same", "grown", "other"]


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What was not taken, and why."""

    path: Path
    kind: Literal["damaged", "newer", "conflicting", "being written", "unreadable"]
    reason: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.path} is left, {self.kind}: {self.reason}"


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken of one store, or of one experiment in it."""

    source: Path
    experiments: int = 0  # of which all is there now; studies' own logs are not counted
    segments: int = 0  # copied
    copied_bytes: int = 0
    present: int = 0  # segments that were there already
    damaged: Sequence[Left] = ()  # copied with their damage, because --salvage was given
    left: Sequence[Left] = ()

    @property
    def has_all(self) -> bool:
        """Whether there was something, and nothing of it was left."""
        return self.segments + self.present > 0 and not self.left

    def plus(self, other: "Collected", *, experiments: int) -> "Collected":
        """Both together."""
        return Collected(
            source=self.source,
            experiments=self.experiments + experiments,
            segments=self.segments + other.segments,
            copied_bytes=self.copied_bytes + other.copied_bytes,
            present=self.present + other.present,
            damaged=[*self.damaged, *other.damaged],
            left=[*self.left, *other.left],
        )


def collect(
    source: Store, into: Store, *, salvage: bool = False, only: Container[str] | None = None
) -> Collected:
    """Take every experiment of a store, and what it knows of its studies, or those of these ids. Raises StoreError where `into` cannot be written."""
    check_apart(source.require(option=None), into)
    into.create(option="--into")
    _remove_leftovers(into)
    total = Collected(source=source.path, left=[*_strangers(source)] if only is None else [])
    for experiment_id in source.experiment_ids():
        if only is not None and experiment_id not in only:
            continue
        taken = _collect_folder(
            source.log_path / experiment_id, into.log_path / experiment_id, salvage=salvage
        )
        total = total.plus(taken, experiments=taken.has_all)
    for folder in _study_folders(source):
        if only is not None and folder.name not in only:
            continue
        into.studies_path.mkdir(mode=0o700, exist_ok=True)
        taken = _collect_folder(folder, into.studies_path / folder.name, salvage=salvage)
        total = total.plus(taken, experiments=0)
    return total


def collect_experiment(source: Store, into: Store, experiment_id: str) -> Collected:
    """Take one experiment, of which other ranks may still write: their segments are theirs to bring. Raises StoreError where `into` cannot be written."""
    check_apart(source, into)
    into.create(option="--collect")
    taken = _collect_folder(
        source.log_path / experiment_id, into.log_path / experiment_id, salvage=False, may_go_on=True
    )
    return Collected(source=source.path).plus(taken, experiments=taken.has_all)


def check_apart(source: Store, into: Store) -> None:
    """Nothing is collected into a store that lies in its source, which would change. Raises StoreError."""
    if into.path.resolve().is_relative_to(source.path.resolve()):
        raise StoreError(
            f"store {into.path}",
            found=f"the same as {source.path} or a folder in it",
            expected="another store to collect into",
        )


def _strangers(source: Store) -> Iterator[Left]:
    """What lies in the log and is not read: whoever believes that all was taken would lose it with the source."""
    for path in sorted(source.log_path.iterdir()):
        if path.is_symlink():
            yield Left(path=path, kind="unreadable", reason=LINK)
    for name in source.strange_folders():
        reason = "no experiment has such a name"
        yield Left(path=source.log_path / name, kind="unreadable", reason=reason)


def _study_folders(source: Store) -> list[Path]:
    if not source.studies_path.is_dir():
        return []
    folders = sorted(source.studies_path.iterdir())
    return [
        folder for folder in folders if is_id(folder.name) and folder.is_dir() and not folder.is_symlink()
    ]


def _collect_folder(source: Path, folder: Path, *, salvage: bool, may_go_on: bool = False) -> Collected:
    """All segments of one experiment that are not there yet, or none of them; without those still being written where it may go on."""
    try:
        segments = _segments(source)
        if may_go_on:
            segments = [path for path in segments if not _is_being_written(path)]
        _check_at_rest(segments)
        standings = {path: _standing(path, folder / path.name) for path in segments}
        new = [path for path in segments if standings[path] != "same"]
        damaged = _take(new, folder, salvage=salvage) if new else []
    except _LeftError as error:
        return Collected(source=source, left=[error.left])
    except LogError as error:
        return Collected(source=source, left=[Left(path=source, kind="unreadable", reason=str(error))])
    copied_bytes = sum((folder / path.name).stat().st_size for path in new)
    return Collected(
        source=source,
        segments=len(new),
        copied_bytes=copied_bytes,
        present=len(segments) - len(new),
        damaged=damaged,
    )


def _take(segments: Sequence[Path], folder: Path, *, salvage: bool) -> list[Left]:
    """Copy them into the folder; returns those that are damaged."""
    with _staged(folder) as staged:
        damaged = [left for path in segments if (left := _stage(path, staged, folder.name, salvage=salvage))]
        _publish(staged, folder)
    return damaged


class _LeftError(Exception):
    """Why an experiment is not taken."""

    def __init__(self, left: Left) -> None:
        self.left = left
        super().__init__(left.reason)


def _segments(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(Path(entry.path) for entry in entries if entry.name.endswith(SEGMENT_SUFFIX))
    except OSError as error:
        raise _LeftError(Left(path=folder, kind="unreadable", reason=error.strerror or str(error))) from error
    for path in found:
        if path.is_symlink():
            raise _LeftError(Left(path=path, kind="unreadable", reason=LINK))
    return [path for path in found if path.is_file()]


def _check_at_rest(segments: Sequence[Path]) -> None:
    """A run that goes on is taken when it has ended: half of it would look like one that was killed."""
    for path in segments:
        if _is_being_written(path):
            raise _LeftError(Left(path=path, kind="being written", reason="collect again when it has ended"))


def _is_being_written(path: Path) -> bool:
    try:
        with SegmentReader(path) as reader:
            return reader.is_being_written()
    except LogError:
        return False  # told when its copy is verified


def _standing(source: Path, target: Path) -> Standing:
    """What stands in the place of a segment: nothing, the same or more of it, less of it, or something else."""
    if not os.path.lexists(target):
        return "new"
    mine, other = _first_difference(source, target)
    # A writer appends, so that an earlier copy of a segment is how it begins.
    if other.startswith(mine):
        return "same"
    if mine.startswith(other):
        return "grown"
    reason = f"{target} is another segment of that name"
    raise _LeftError(Left(path=source, kind="conflicting", reason=reason))


def _first_difference(source: Path, target: Path) -> tuple[bytes, bytes]:
    """A piece of each from the same place on; two empty ones where the files are equal. Raises SegmentReadError."""
    with open_segment_file(source) as ours, open_segment_file(target) as theirs:
        while True:
            mine, other = ours.read(CHUNK_BYTES), theirs.read(CHUNK_BYTES)
            if mine != other or not mine:
                return mine, other


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder beside the one to be filled, which no reader looks into. Raises StoreError."""
    try:
        staged = Path(tempfile.mkdtemp(prefix=f"{STAGED_PREFIX}{folder.name}-", dir=folder.parent))
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written", found=error.strerror or str(error)) from error


def _stage(path: Path, staged: Path, experiment_id: str, *, salvage: bool) -> Left | None:
    """A durable copy, verified as it lies there; what is damaged about it, where that does not matter."""
    copy = staged / path.name
    _copy(path, copy)
    try:
        _verify(copy, experiment_id)
    except NewerFormatError as error:
        raise _LeftError(Left(path=path, kind="newer", reason=str(error))) from error
    except CorruptError as error:
        left = Left(path=path, kind="damaged", reason=str(error))
        if not salvage:
            raise _LeftError(left) from error
        return left
    return None


def _copy(path: Path, copy: Path) -> None:
    fd = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open_segment_file(path) as source, open(fd, "wb") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)
        target.flush()
        os.fsync(target.fileno())


def _verify(path: Path, experiment_id: str) -> None:
    """Raises CorruptError, NewerFormatError."""
    with SegmentReader(path) as reader:
        for _ in reader.blocks():
            pass
        header = reader.header
    if header is not None and header.experiment_id != experiment_id:
        raise CorruptError(
            f"its header names experiment {header.experiment_id!r}, its folder is {experiment_id!r}", offset=0
        )


def _publish(staged: Path, folder: Path) -> None:
    """All copies in their places: the folder at once where there is none yet, else one file at a time."""
    files = OsFiles()
    files.sync_directory(staged)
    if _became(staged, folder):
        files.sync_directory(folder.parent)
        return
    for copy in sorted(staged.iterdir()):
        target = folder / copy.name
        # whoever collected meanwhile may have been here
        match _standing(copy, target):
            case "new" | "grown":
                copy.replace(target)
    files.sync_directory(folder)


def _became(staged: Path, folder: Path) -> bool:
    try:
        OsFiles().rename(staged, folder)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _remove_leftovers(into: Store) -> None:
    """Of collectors that were killed."""
    before_s = time.time() - LEFTOVER_AFTER_S
    for root in (into.log_path, into.studies_path):
        for folder in root.glob(f"{STAGED_PREFIX}*"):
            if folder.lstat().st_mtime < before_s and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
